"""Two functions with gradients of their own, where torch's automatic ones pass over memory too often.

`rms_norm`: three passes forward and backward instead of a dozen. `capped_loss`: head, soft cap and cross-entropy in
one, a piece of rows at a time, the gradient made while the logits of the piece are still in the cache; the logits of a
whole batch, the largest tensor of a small model by far, never exist. (The idea of fusing head and loss is Liger's, Hsu
et al. 2024.)

Measured on one core of a Zen 4 server VM, bfloat16, forward and backward: norm of [8, 256, 4, 64] 8.3 ms → 3.6 ms; head
and loss of 2,048 rows, width 256, vocabulary 4,096: 344 ms → 170 ms. The plain twins are in tests/python/test_fused.py.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

SMALLEST = 1e-6  # added to the root mean square: a row of zeros stays zero
# Float32 logits of a piece: 4 MB stays in the last-level cache of a CPU, and is still a large product for a GPU.
PIECE_BYTES = {"cpu": 4 << 20, "other": 256 << 20}


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        factor = (1.0 / (norm * x.size(-1) ** -0.5 + SMALLEST)).to(x.dtype)
        y: Tensor = x * factor
        ctx.save_for_backward(y, factor)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        y, factor = ctx.saved_tensors
        along = (gradient * y).mean(dim=-1, keepdim=True)
        return torch.addcmul(gradient, y, along, value=-1).mul_(factor)


def rms_norm(x: Tensor) -> Tensor:
    """Scale the last dimension to a root mean square of one; no learned gain (Zhang and Sennrich 2019)."""
    y: Tensor = _RmsNorm.apply(x)
    return y


class _CappedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_NC: Tensor, weight_VC: Tensor, targets_N: Tensor, cap: float, with_gradient: bool
    ) -> tuple[Tensor, Tensor]:
        cast_VC = weight_VC.to(x_NC.dtype)
        losses_N = torch.empty(x_NC.size(0), device=x_NC.device)
        x_gradient_NC = torch.empty_like(x_NC) if with_gradient else None
        weight_gradient_VC = torch.zeros_like(weight_VC) if with_gradient else None
        limit = PIECE_BYTES["cpu" if x_NC.device.type == "cpu" else "other"]
        rows = max(1, limit // (4 * weight_VC.size(0)))
        for start in range(0, x_NC.size(0), rows):
            piece = slice(start, start + rows)
            logits = F.linear(x_NC[piece], cast_VC).float()
            if cap > 0:  # tanh(x) = 2 · sigmoid(2x) - 1, four times faster on a CPU; a constant changes no loss
                bent = logits.mul_(2.0 / cap).sigmoid_()
                logits = bent * (2.0 * cap)
            is_learned = targets_N[piece] >= 0
            target = targets_N[piece].clamp(min=0)[:, None]
            log_p = logits.log_softmax(dim=-1)
            losses_N[piece] = -log_p.gather(1, target)[:, 0] * is_learned
            if x_gradient_NC is None or weight_gradient_VC is None:
                continue
            # the loss by its logits: p, less one at the target; through the cap: times 1 - tanh², 4 · bent · (1 - bent)
            gradient = log_p.exp_()
            gradient.scatter_add_(1, target, torch.full_like(target, -1.0, dtype=gradient.dtype))
            gradient.mul_(is_learned[:, None])
            if cap > 0:
                gradient.mul_(bent.addcmul_(bent, bent, value=-1)).mul_(4.0)
            cast = gradient.to(x_NC.dtype)
            torch.mm(cast, cast_VC, out=x_gradient_NC[piece])
            weight_gradient_VC += cast.mT @ x_NC[piece]
        if with_gradient:
            ctx.save_for_backward(x_gradient_NC, weight_gradient_VC)
        ctx.mark_non_differentiable(losses_N)
        return losses_N.sum(), losses_N

    @staticmethod
    def backward(ctx: Any, of_sum: Tensor, of_losses: Tensor) -> tuple[Tensor | None, ...]:
        x_gradient_NC, weight_gradient_VC = ctx.saved_tensors
        return x_gradient_NC * of_sum.to(x_gradient_NC.dtype), weight_gradient_VC * of_sum, None, None, None


def capped_loss(x_NC: Tensor, weight_VC: Tensor, targets_N: Tensor, cap: float) -> tuple[Tensor, Tensor]:
    """Cross-entropy of logits `cap · tanh(x Wᵀ / cap)` (cap 0: not capped): their sum, and each row's.

    The sum has gradients for `x_NC` and `weight_VC`; the rows' losses, float32 and 0 where a target is -1, have none.
    """
    found: tuple[Tensor, Tensor] = _CappedLoss.apply(x_NC, weight_VC, targets_N, cap, torch.is_grad_enabled())
    return found
