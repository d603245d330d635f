"""Optimizers of a GPT: which parameters go to which, gradients made ready, state by parameter name.

State leaves and enters as tensors named `<parameter>/<quantity>`, whole and independent of how parameters are grouped,
so that a checkpoint outlives a change of grouping or world size.

    optimizers = Optimizers(model, settings)
    grad_norm = finish_gradients(model.parameters(), factor, max_norm=1.0)
    optimizers.set_lr(fraction); optimizers.step(); optimizers.zero_grad()
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from nanofast.config import OptimizerSettings
from nanofast.model import GPT

# AdamW's guard against division by zero. Small, since gradients of a mean over many targets are small themselves.
EPSILON = 1e-10


def finish_gradients(parameters: Iterable[Tensor], factor: Tensor, max_norm: float) -> Tensor:
    """Multiply all gradients by `factor`, clip them to the global norm `max_norm` (0: no clipping); the norm before
    clipping.

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
        self.names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
        kinds = model.parameters_by_kind()
        rates = {"matrices": settings.matrix_lr, "embedding": settings.embedding_lr, "head": settings.head_lr}
        groups = [
            {
                "params": kinds[kind],
                "lr": rate,
                "height": rate,
                "weight_decay": settings.weight_decay if kind == "matrices" else 0.0,
            }
            for kind, rate in rates.items()
        ]
        betas = (settings.beta1, settings.beta2)
        self.members: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, betas=betas, eps=EPSILON, fused=True)]

    def set_lr(self, fraction: float) -> None:
        """Set every group's learning rate to this fraction of its height."""
        for member in self.members:
            for group in member.param_groups:
                group["lr"] = group["height"] * fraction

    def step(self) -> None:
        """Move the weights."""
        for member in self.members:
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
                    state = by_name.pop(self.names[parameter], None)
                    if state is not None:
                        member.state[parameter] = {
                            key: value.clone().to(parameter.device) for key, value in state.items()
                        }
        if by_name:
            raise ValueError(f"optimizer state names parameters that the model has not: {', '.join(sorted(by_name))}")
