"""Optimizers of a GPT: which parameters go to which, gradients made ready, state by parameter name.

Matrices go to Muon (or AdamW), embedding and head to AdamW. A step whose gradients are not finite, or that had nothing
to learn, leaves weights and state as they were: the decision is taken on the device, so that no step waits for the
host.

State leaves and enters as tensors named `<parameter>/<quantity>`, whole and independent of how parameters are grouped,
so that a checkpoint outlives a change of grouping or world size.

    optimizers = Optimizers(model, settings)
    norm = finish_gradients(model.parameters(), factor, max_norm=1.0)
    optimizers.set(lr_fraction=1.0, momentum=0.95, decay_fraction=1.0)
    optimizers.step(skip=(~norm.isfinite()).float()); optimizers.zero_grad()
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from nanofast.config import OptimizerSettings
from nanofast.model import GPT
from nanofast.muon import Muon

# AdamW's guard against division by zero. Small, since gradients of a mean over many targets are small themselves.
EPSILON = 1e-10


def finish_gradients(parameters: Iterable[Tensor], factor: Tensor, max_norm: float) -> Tensor:
    """Multiply all gradients by `factor`, clip them to the global norm `max_norm` (0: not); the norm before clipping.

    One pass over the gradients, and no reading back from the device.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients) * factor
    scale = factor
    if max_norm > 0:
        scale = factor * (max_norm / (norm + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(scale)
    return norm


class Optimizers:
    """All optimizers of one model behind one face."""

    def __init__(self, model: GPT, settings: OptimizerSettings) -> None:
        assert settings.matrix_lr is not None
        assert settings.embedding_lr is not None
        assert settings.head_lr is not None
        self.names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
        kinds = model.parameters_by_kind()
        matrices: dict[str, Any] = {
            "params": kinds["matrices"],
            "lr": settings.matrix_lr,
            "weight_decay": settings.weight_decay,
        }
        others: list[dict[str, Any]] = [
            {"params": kinds["embedding"], "lr": settings.embedding_lr, "weight_decay": 0.0},
            {"params": kinds["head"], "lr": settings.head_lr, "weight_decay": 0.0},
        ]
        self.members: list[torch.optim.Optimizer] = []
        if settings.optimizer == "muon":
            muon = Muon([matrices], lr=settings.matrix_lr, momentum=settings.momentum, dtype=model.compute_dtype)
            self.members = [muon]
        else:
            others = [matrices, *others]
        betas = (settings.beta1, settings.beta2)
        self.members.append(torch.optim.AdamW(others, betas=betas, eps=EPSILON, fused=True))
        for group in self._groups():
            group["height"], group["full_decay"] = group["lr"], group["weight_decay"]

    def _groups(self) -> list[dict[str, Any]]:
        return [group for member in self.members for group in member.param_groups]

    def set(self, *, lr_fraction: float, momentum: float, decay_fraction: float) -> None:
        """Set this step's rates: fractions of the heights that were configured, and Muon's momentum."""
        for group in self._groups():
            group["lr"] = group["height"] * lr_fraction
            group["weight_decay"] = group["full_decay"] * decay_fraction
            if "momentum" in group:
                group["momentum"] = momentum

    def step(self, skip: Tensor | None = None) -> None:
        """Move the weights, unless `skip` (a float on the device) is 1."""
        for member in self.members:
            member.found_inf = skip  # type: ignore[attr-defined]  # as torch's fused optimizers know it from GradScaler
            member.step()

    def zero_grad(self) -> None:
        """Drop the gradients."""
        for member in self.members:
            member.zero_grad(set_to_none=True)

    def state_tensors(self) -> dict[str, Tensor]:
        """The state as named tensors; views, not copies."""
        return {
            f"{self.names[parameter]}/{key}": value
            for member in self.members
            for parameter, state in member.state.items()
            for key, value in state.items()
        }

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Take over what `state_tensors` gave."""
        by_name: dict[str, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            parameter_name, _, key = name.rpartition("/")
            by_name.setdefault(parameter_name, {})[key] = tensor
        for member in self.members:
            for group in member.param_groups:
                for parameter in group["params"]:
                    for key, value in by_name.pop(self.names[parameter], {}).items():
                        if key in member.state[parameter]:  # a part of a stack, say: it stays where it lies
                            member.state[parameter][key].copy_(value)
                        else:
                            member.state[parameter][key] = value.clone().to(parameter.device)
        if by_name:
            raise ValueError(f"optimizer state names parameters that the model has not: {', '.join(sorted(by_name))}")
