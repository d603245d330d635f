"""`--parallel fsdp`: a model cut over the ranks by torch's `fully_shard`, for models that do not fit on one device.

Each rank keeps its rows of every parameter, of its gradient and of its optimizer state; a block's weights are gathered
when the block is needed and let go behind it. `Shard` shows one parameter to the optimizer as an arena does (arena.py),
so the rest of the trainer knows no difference, and whole tensors leave and enter under the same names.

Imported only where a model is cut, since it takes its time.

    shard_model(model, device)                           # parameters become DTensors
    shards = [Shard({name: parameter}) for …]
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from nanofast.model import GPT
from nanofast.muon import Muon


def shard_model(model: GPT, device: torch.device) -> None:
    """Cut a model in place, block by block. All ranks have given it the same weights."""
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for block in model.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    register_fsdp_forward_method(model, "loss")
    model.is_cut = True
    for module in model.modules():
        if isinstance(module, FSDPModule):
            # sums over ranks, as everywhere here, divided at the step's end; plain sums, since gloo knows no others
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)


def sum_gradients_next(model: GPT, wanted: bool) -> None:
    """Whether the next backward pass sums gradients over the ranks; before the last micro-batch there is no traffic."""
    assert isinstance(model, FSDPModule)
    model.set_requires_gradient_sync(wanted)


def whole_weights(model: GPT) -> dict[str, Tensor]:
    """The model's state with every tensor whole; a collective."""
    return {name: t.full_tensor() if isinstance(t, DTensor) else t for name, t in model.state_dict().items()}


@torch.no_grad()
def load_weights(model: GPT, tensors: dict[str, Tensor]) -> None:
    """Give a cut model whole tensors by name, or tensors that are cut as it is."""
    parameters = dict(model.named_parameters())
    if parameters.keys() != tensors.keys():
        raise ValueError(f"weights do not fit the model: {', '.join(sorted(parameters.keys() ^ tensors.keys()))}")
    for name, parameter in parameters.items():
        assert isinstance(parameter, DTensor)
        parameter.to_local().copy_(local_part(tensors[name], parameter))


def local_part(tensor: Tensor, like: DTensor) -> Tensor:
    """This rank's part of a tensor of a cut parameter's shape; a tensor that is cut already gives its own."""
    if isinstance(tensor, DTensor):
        part: Tensor = tensor.to_local()
        return part
    cut = distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
    return cut.to_local()


class Shard:
    """One cut parameter. `part` is this rank's rows, a tensor whose gradient is `part.grad`."""

    def __init__(self, members: dict[str, Tensor]) -> None:
        ((_, parameter),) = members.items()
        assert isinstance(parameter, DTensor)
        self.members, self.parameter = members, parameter
        self.part: Tensor = parameter.to_local().detach()

    def reduce(self) -> None:
        """Take over the gradient; the backward pass has summed it."""
        gradient = self.parameter.grad
        self.part.grad = torch.zeros_like(self.part) if gradient is None else gradient.to_local()  # type: ignore[attr-defined]

    def gather(self) -> None:
        """Nothing: weights are gathered when they are needed."""

    wait = gather

    def zero_gradients(self) -> None:
        """Let the gradient go."""
        self.parameter.grad = self.part.grad = None

    def cut(self, part: Tensor) -> DTensor:
        """A part as the whole tensor that it is of, left where it lies."""
        like = self.parameter
        return DTensor.from_local(
            part, like.device_mesh, like.placements, run_check=False, shape=like.shape, stride=like.stride()
        )

    def wholes(self, part: Tensor) -> list[Tensor]:
        """The whole tensor of a part, in a list of one; a collective."""
        return [self.cut(part).full_tensor()]

    def cuts(self, part: Tensor) -> list[Tensor]:
        """The whole tensor of a part, left where it lies."""
        return [self.cut(part)]

    def local(self, values: list[Tensor]) -> Tensor:
        """This rank's part of a tensor."""
        return local_part(values[0], self.parameter).clone()


class ShardedMuon(Muon):
    """Muon over cut matrices: momentum stays cut, updates are gathered to be made orthogonal, each rank keeps its rows.

    Every rank makes every matrix orthogonal. That is the price for not holding them: the stacks of arena.py share this
    work out as well.
    """

    def __init__(self, shards: Iterable[Shard], groups: list[dict[str, Any]], **settings: Any) -> None:
        super().__init__(groups, **settings)
        self._shards = {shard.part: shard for shard in shards}

    def _check(self, stack: Tensor) -> None:
        if stack.ndim != 2:
            raise ValueError(f"a cut matrix has two dimensions; found a parameter of shape {tuple(stack.shape)}")

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move this rank's rows of every matrix, all matrices of a shape at once."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = {}
            for part in group["params"]:
                by_shape.setdefault(self._shards[part].parameter.shape, []).append(part)
            for parts in by_shape.values():
                directions = [self._direction(p, p.grad, group) for p in parts if p.grad is not None]
                wholes = [self._shards[part].wholes(d)[0] for part, d in zip(parts, directions, strict=True)]
                updates = self._orthogonal(torch.stack(wholes))
                for part, update in zip(parts, updates, strict=True):
                    self._apply(part, local_part(update, self._shards[part].parameter), update.shape, group)
