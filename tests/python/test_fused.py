"""The functions with gradients of their own against their plain twins."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nanofast import fused
from nanofast.fused import capped_loss, rms_norm


def plain_norm(x: Tensor) -> Tensor:
    return x / (x.square().mean(dim=-1, keepdim=True).sqrt() + fused.SMALLEST)


def plain_loss(x: Tensor, weight: Tensor, targets: Tensor, cap: float) -> Tensor:
    logits = x @ weight.to(x.dtype).mT
    if cap > 0:
        logits = cap * torch.tanh(logits.float() / cap)
    return F.cross_entropy(logits.float(), targets, ignore_index=-1, reduction="none")


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_norm_has_the_gradient_that_finite_differences_give() -> None:
    x = drawn(3, 2, 8, dtype=torch.float32).requires_grad_()
    y = plain_norm(x)
    gradient = drawn(3, 2, 8, seed=1, dtype=torch.float32)
    (expected,) = torch.autograd.grad(y, x, gradient)
    (found,) = torch.autograd.grad(rms_norm(x), x, gradient)
    torch.testing.assert_close(rms_norm(x), y)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_norm_leaves_zeros_and_keeps_the_type() -> None:
    assert torch.equal(rms_norm(torch.zeros(2, 4)), torch.zeros(2, 4))
    assert rms_norm(drawn(2, 4, dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize("cap", [0.0, 2.0, 15.0])
@pytest.mark.parametrize("piece_rows", [1, 3, 100])
def test_loss_and_gradients_equal_the_plain_ones(cap: float, piece_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fused.PIECE_BYTES, "cpu", 4 * 11 * piece_rows)
    x = drawn(10, 6, dtype=torch.float32).requires_grad_()
    weight = (2 * drawn(11, 6, seed=1, dtype=torch.float32)).requires_grad_()
    targets = torch.tensor([0, 10, -1, 3, 3, -1, 7, 1, 2, 9])
    expected = plain_loss(x, weight, targets, cap)
    total, losses = capped_loss(x, weight, targets, cap)
    torch.testing.assert_close(losses, expected.detach(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(total, expected.sum(), atol=1e-4, rtol=1e-5)
    assert (losses[targets < 0] == 0).all()
    plain = torch.autograd.grad(0.7 * expected.sum(), (x, weight))
    ours = torch.autograd.grad(0.7 * total, (x, weight))
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_bfloat16_stays_near_float32() -> None:
    x, weight = drawn(64, 32, dtype=torch.float32), 0.2 * drawn(50, 32, seed=1, dtype=torch.float32)
    targets = torch.randint(0, 50, (64,), generator=torch.Generator().manual_seed(2))
    coarse = x.bfloat16().requires_grad_()
    fine = x.clone().requires_grad_()
    found, expected = capped_loss(coarse, weight, targets, 15.0)[0], capped_loss(fine, weight, targets, 15.0)[0]
    assert found.item() == pytest.approx(expected.item(), rel=0.01)
    a, b = torch.autograd.grad(found, coarse)[0].float(), torch.autograd.grad(expected, fine)[0]
    assert ((a - b).norm() / b.norm()).item() < 0.02


def test_without_gradients_only_losses_are_made() -> None:
    with torch.no_grad():
        total, losses = capped_loss(drawn(4, 3), drawn(5, 3), torch.tensor([0, 1, 2, -1]), 15.0)
    assert not total.requires_grad
    assert losses.shape == (4,)
