"""Weights of equal shape in one block of memory, dealt to the ranks: the ground that a sharded optimizer stands on.

A model's parameters become views of the block, and so do their gradients; nothing is copied to work on all of them at
once.

    weights   [N padded, R, C]   unit 0 │ unit 1 │ unit 2 │ unit 3 │ …        a unit is a matrix, or a row of a table
    ranks                        ├── rank 0 ──┤├── rank 1 ──┤                 each moves its own part

A step with W ranks (ZeRO, Rajbhandari et al. 2020): `reduce` sums gradients so that each rank has the sum for its part,
the optimizer moves that part, `gather` brings all parts to all ranks. Alone, both do nothing. N is padded with zeros to
a multiple of W.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def _single(name: str) -> Any:
    """A collective over one tensor by the name that this torch has; the older `_tensor` names warn from 2.13 on."""
    import torch.distributed as dist

    new = getattr(dist, f"{name}_single", None)
    return (
        new if new is not None else getattr(dist, {"all_gather": "all_gather_into_tensor"}.get(name, f"{name}_tensor"))
    )


class Arena:
    """Some parameters of a model. `part` is what this rank moves, a tensor whose gradient is `part.grad`."""

    def __init__(self, members: dict[str, Tensor], *, by_rows: bool, rank: int, world_size: int) -> None:
        """`by_rows` deals the rows of one table; else the units are the members, matrices of one shape."""
        self.members, self.by_rows, self.world_size = members, by_rows, world_size
        first = next(iter(members.values()))
        if by_rows and len(members) != 1:
            raise ValueError(f"an arena by rows holds one table; found {len(members)}")
        units = first.size(0) if by_rows else len(members)
        unit_shape = first.shape[1:] if by_rows else first.shape
        self.units_each = -(-units // world_size)
        shape = (self.units_each * world_size, *unit_shape)
        self.weights = torch.zeros(shape, device=first.device)
        self.gradients = torch.zeros(shape, device=first.device)
        for parameter, weight, gradient in zip(
            members.values(), self.views(self.weights), self.views(self.gradients), strict=True
        ):
            weight.copy_(parameter.detach())
            parameter.data = weight
            parameter.grad = gradient
        here = slice(rank * self.units_each, (rank + 1) * self.units_each)
        self.here = here
        self.part = self.weights[here]
        self.part.grad = self.gradients[here] if world_size == 1 else torch.zeros_like(self.part)
        self._waiting: Any = None

    def views(self, block: Tensor) -> list[Tensor]:
        """The members' places in a block that is laid out as the weights are."""
        if self.by_rows:
            return [block[: next(iter(self.members.values())).size(0)]]
        return list(block[: len(self.members)].unbind())

    def zero_gradients(self) -> None:
        """Make room for the next step's sums."""
        self.gradients.zero_()

    def reduce(self) -> None:
        """Begin to sum this rank's part of the gradients over all ranks; `wait` before using it."""
        if self.world_size > 1:
            self._waiting = _single("reduce_scatter")(self.part.grad, self.gradients, async_op=True)

    def gather(self) -> None:
        """Begin to bring every rank's part of the weights here; `wait` before using them."""
        if self.world_size > 1:
            self._waiting = _single("all_gather")(self.weights, self.part.clone(), async_op=True)

    def wait(self) -> None:
        """Wait for what was begun."""
        if self._waiting is not None:
            self._waiting.wait()
            self._waiting = None

    def wholes(self, part: Tensor) -> list[Tensor]:
        """The members' whole tensors from every rank's part of them; a collective."""
        return self.views(self._whole(part))

    cuts = wholes  # what FSDP leaves where it lies

    def local(self, values: list[Tensor]) -> Tensor:
        """This rank's part of the members' whole tensors."""
        block = torch.zeros_like(self.weights)
        for place, value in zip(self.views(block), values, strict=True):
            place.copy_(value)
        return block[self.here].clone()

    def _whole(self, part: Tensor) -> Tensor:
        """A block from every rank's part of it."""
        if self.world_size == 1:
            return part
        block = torch.zeros((self.units_each * self.world_size, *part.shape[1:]), dtype=part.dtype, device=part.device)
        _single("all_gather")(block, part.contiguous())
        return block
