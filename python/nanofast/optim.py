"""Optimizers of a GPT, sharded over the ranks: which parameters go to which, gradients made ready, state by name.

Matrices go to Muon (or AdamW), all else to AdamW. Each rank moves its part of every arena (or its rows of every cut
parameter, see fsdp.py) and keeps state for that part alone. A step whose gradients are not finite, or that had nothing
to learn, leaves weights and state as they were: the decision is taken on the device, so that no step waits for the
host.

State leaves and enters as tensors named `<parameter>/<quantity>`, whole and independent of grouping and world size.

    optimizers = Optimizers(model, settings)                        # parameters become views of the arenas
    norm = optimizers.finish_gradients(factor, max_norm=1.0)        # summed over ranks, scaled, clipped
    optimizers.set(lr_fraction=1.0, momentum=0.95, decay_fraction=1.0)
    optimizers.step(skip=(~norm.isfinite()).float()); optimizers.zero_grad()
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nanofast.arena import Arena
from nanofast.config import OptimizerSettings
from nanofast.distributed import sum_over_ranks
from nanofast.model import GPT
from nanofast.muon import Muon

if TYPE_CHECKING:
    from nanofast.fsdp import Shard

# AdamW's guard against division by zero. Small, since gradients of a mean over many targets are small themselves.
EPSILON = 1e-10


class Optimizers:
    """All optimizers of one model behind one face, the same on every rank."""

    def __init__(self, model: GPT, settings: OptimizerSettings, *, rank: int = 0, world_size: int = 1) -> None:
        names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
        kinds = model.parameters_by_kind()
        rates = {
            "matrices": settings.matrix_lr,
            "embedding": settings.embedding_lr,
            "head": settings.head_lr,
            "value_embeddings": settings.embedding_lr,
            "scales": settings.scale_lr,
        }
        place = {"rank": rank, "world_size": world_size}
        by_kind: dict[str, Sequence[Arena | Shard]] = {}
        for kind, parameters in kinds.items():
            if model.is_cut:
                from nanofast.fsdp import Shard

                by_kind[kind] = [Shard({names[p]: p}) for p in parameters]
            elif kind == "matrices":
                by_shape: dict[torch.Size, dict[str, Tensor]] = {}
                for matrix in parameters:
                    by_shape.setdefault(matrix.shape, {})[names[matrix]] = matrix
                by_kind[kind] = [Arena(members, by_rows=False, **place) for members in by_shape.values()]
            else:
                by_kind[kind] = [Arena({names[p]: p}, by_rows=True, **place) for p in parameters]
        self.arenas = [arena for arenas in by_kind.values() for arena in arenas]
        groups: dict[str, dict[str, Any]] = {
            kind: {"params": [arena.part for arena in arenas], "lr": rates[kind], "weight_decay": 0.0}
            for kind, arenas in by_kind.items()
        }
        groups["matrices"]["weight_decay"] = settings.weight_decay or 0.0
        self.members: list[torch.optim.Optimizer] = []
        if settings.optimizer == "muon":
            assert settings.matrix_lr is not None
            own: dict[str, Any] = {
                "lr": settings.matrix_lr,
                "momentum": settings.momentum,
                "dtype": model.compute_dtype,
            }
            matrices = [groups.pop("matrices")]
            if model.is_cut:
                from nanofast.fsdp import Shard, ShardedMuon

                shards = [arena for arena in by_kind["matrices"] if isinstance(arena, Shard)]
                self.members.append(ShardedMuon(shards, matrices, **own))
            else:
                self.members.append(Muon(matrices, **own))
        betas = (settings.beta1, settings.beta2)
        self.members.append(torch.optim.AdamW(list(groups.values()), betas=betas, eps=EPSILON, fused=True))
        for group in self._groups():
            group["height"], group["full_decay"] = group["lr"], group["weight_decay"]

    def _groups(self) -> list[dict[str, Any]]:
        return [group for member in self.members for group in member.param_groups]

    @torch.no_grad()
    def finish_gradients(self, factor: Tensor, max_norm: float) -> Tensor:
        """Sum gradients over the ranks, multiply by `factor`, clip to the global norm `max_norm` (0: not).

        The norm before clipping, the same on all ranks. Called once a step, after the last micro-batch; nothing is read
        back from the device.
        """
        for arena in self.arenas:
            arena.reduce()
        squares = []
        for arena in self.arenas:
            arena.wait()
            assert arena.part.grad is not None
            squares.append(arena.part.grad.square().sum())
        norm = sum_over_ranks(torch.stack(squares).sum()).sqrt() * factor
        scale = factor
        if max_norm > 0:
            scale = factor * (max_norm / (norm + 1e-6)).clamp(max=1.0)
        for arena in self.arenas:
            assert arena.part.grad is not None
            arena.part.grad.mul_(scale)
        return norm

    def set(self, *, lr_fraction: float, momentum: float, decay_fraction: float) -> None:
        """Set this step's rates: fractions of the heights that were configured, and Muon's momentum."""
        for group in self._groups():
            group["lr"] = group["height"] * lr_fraction
            group["weight_decay"] = group["full_decay"] * decay_fraction
            if "momentum" in group:
                group["momentum"] = momentum

    def step(self, skip: Tensor | None = None) -> None:
        """Move this rank's part, unless `skip` (a float on the device) is 1, and bring in the others'."""
        for member in self.members:
            member.found_inf = skip  # type: ignore[attr-defined]  # as torch's fused optimizers know it from GradScaler
            member.step()
        for arena in self.arenas:
            arena.gather()
        for arena in self.arenas:
            arena.wait()

    def zero_grad(self) -> None:
        """Make room for the next step's gradients."""
        for arena in self.arenas:
            arena.zero_gradients()

    def _state(self, arena: Arena | Shard) -> dict[str, Any]:
        return next((member.state[arena.part] for member in self.members if arena.part in member.state), {})

    def state_tensors(self, *, cut: bool = False) -> dict[str, Tensor]:
        """The whole state as named tensors; `cut` leaves those of cut parameters where they lie. A collective."""
        found: dict[str, Tensor] = {}
        for arena in self.arenas:
            for key, value in self._state(arena).items():
                if value.shape != arena.part.shape:  # AdamW's count of steps
                    tensors = [value] * len(arena.members)
                else:
                    tensors = arena.cuts(value) if cut else arena.wholes(value)
                found |= {f"{name}/{key}": tensor for name, tensor in zip(arena.members, tensors, strict=True)}
        return found

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Take over this rank's part of what `state_tensors` gave, at whatever world size it did."""
        by_name: dict[str, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            parameter_name, _, key = name.rpartition("/")
            by_name.setdefault(parameter_name, {})[key] = tensor
        unknown = by_name.keys() - {name for arena in self.arenas for name in arena.members}
        if unknown:
            raise ValueError(f"optimizer state names parameters that the model has not: {', '.join(sorted(unknown))}")
        owners = {part: member for member in self.members for group in member.param_groups for part in group["params"]}
        for arena in self.arenas:
            first, *_ = (by_name.get(name, {}) for name in arena.members)
            for key, example in first.items():
                values = [by_name[name][key] for name in arena.members]
                owners[arena.part].state[arena.part][key] = (
                    example.clone() if example.ndim == 0 else arena.local(values)
                )
