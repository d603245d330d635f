"""Muon on stacks: momentum whose matrices are made orthogonal, all matrices of a shape at once.

Jordan et al. 2024: the update of a matrix is the orthogonal factor of its momentum, found by a few steps of a
Newton-Schulz iteration. A GPT has only a handful of matrix shapes, so a step is a handful of batched products instead
of one small product after another. Matrix by matrix it equals `torch.optim.Muon`.

    optimizer = Muon([stack_NRC], lr=0.02, momentum=0.95, weight_decay=0.0)     # N matrices of one shape
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

# Jordan's quintic: its slope at zero is steep, so that five steps bring all singular values close enough to one.
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5
SMALLEST_NORM = 1e-7


def orthogonalize(stack_NRC: Tensor, dtype: torch.dtype) -> Tensor:
    """About U Vᵀ of each matrix U S Vᵀ, in `dtype`; singular values end between about 0.7 and 1.2."""
    a, b, c = NEWTON_SCHULZ
    x_NRC = stack_NRC.to(dtype)
    is_tall = x_NRC.size(-2) > x_NRC.size(-1)
    if is_tall:  # the products are of the short side
        x_NRC = x_NRC.mT
    x_NRC = x_NRC / x_NRC.norm(dim=(-2, -1), keepdim=True).clamp(min=SMALLEST_NORM)
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram_NRR = x_NRC @ x_NRC.mT
        gram_NRR = torch.baddbmm(gram_NRR, gram_NRR, gram_NRR, beta=b, alpha=c)
        x_NRC = torch.baddbmm(x_NRC, gram_NRR, x_NRC, beta=a)
    return x_NRC.mT if is_tall else x_NRC


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum and decoupled weight decay; each parameter is a stack [N, R, C] of matrices.

    `found_inf`, when set to a tensor, is 1 on the device when this step's gradients are not finite; weights and
    momentum then stay as they are, without the host knowing.
    """

    found_inf: Tensor | None = None

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        *,
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        dtype: torch.dtype = torch.bfloat16,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.dtype = dtype
        for group in self.param_groups:
            for stack in group["params"]:
                self._check(stack)

    def _check(self, stack: Tensor) -> None:
        if stack.ndim != 3:
            raise ValueError(f"Muon takes stacks of matrices; found a parameter of shape {tuple(stack.shape)}")

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move every stack that has a gradient."""
        for group in self.param_groups:
            for stack_NRC in group["params"]:
                if stack_NRC.grad is not None:
                    update_NRC = self._orthogonal(self._direction(stack_NRC, stack_NRC.grad, group))
                    self._apply(stack_NRC, update_NRC, update_NRC.shape, group)

    def _unless_skipped(self, value: Tensor | float) -> Tensor | float:
        """The value, or 0 on the device in a step that moves nothing."""
        return value if self.found_inf is None else torch.where(self.found_inf > 0, 0.0, value)

    def _direction(self, weights: Tensor, gradient: Tensor, group: dict[str, Any]) -> Tensor:
        """The gradient, carried on by its momentum, which it joins."""
        state = self.state[weights]
        if not state:
            state["momentum"] = torch.zeros_like(weights)
        gradient = self._unless_skipped(gradient)  # type: ignore[assignment]  # a tensor stays one
        momentum: Tensor = state["momentum"].lerp_(gradient, self._unless_skipped(1.0 - group["momentum"]))
        return gradient.lerp(momentum, group["momentum"])

    def _orthogonal(self, stack_NRC: Tensor) -> Tensor:
        return orthogonalize(stack_NRC, self.dtype).float()

    def _apply(self, weights: Tensor, update: Tensor, shape: torch.Size, group: dict[str, Any]) -> None:
        """Move weights by an update of matrices of `shape`; tall ones move further (Jordan et al. 2024)."""
        rows, columns = shape[-2:]
        lr = self._unless_skipped(group["lr"])
        weights.mul_(1.0 - lr * group["weight_decay"])
        weights.sub_(update * (lr * max(1.0, rows / columns) ** 0.5))
