"""Windows against a written-out mask, with and without a cache, and what is chosen to compute them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from nanofast.attention import attend, attend_behind, blocks, choose_kernels

LENGTHS = [
    (1, 1),
    (7, 3),
    (16, 4),
    (300, 75),
    (257, 256),
    (520, 130),
    (1, None),
    (128, None),
    (300, None),
]  # positions and window


def drawn(length: int, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, 3, length, 8, generator=generator).requires_grad_() for _ in range(3)]


def masked(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, window: int | None) -> torch.Tensor:
    """The slow twin: the whole square, and a mask."""
    length = query.size(2)
    mask = torch.ones(length, length, dtype=torch.bool).tril().triu(1 - (window or length))
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)


@pytest.mark.parametrize(("length", "window"), LENGTHS)
def test_blocks_equal_a_mask_forward_and_backward(length: int, window: int | None) -> None:
    ours, theirs = drawn(length), drawn(length)
    found, expected = blocks(*ours, window), masked(*theirs, window)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    weight = torch.randn(found.shape, generator=torch.Generator().manual_seed(9))
    (found * weight).sum().backward()
    (expected * weight).sum().backward()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.grad, other.grad, atol=1e-4, rtol=1e-3)


def test_a_window_never_makes_a_square_of_the_length() -> None:
    """Four times the positions at the same window may hold four times as much, not sixteen."""
    largest = []

    class Sizes(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            made = function(*args, **(kwargs or {}))
            largest[-1] = max([largest[-1], *(t.numel() for t in [made] if isinstance(t, torch.Tensor))])
            return made

    for length in (2048, 8192):
        largest.append(0)
        with torch.no_grad(), Sizes():
            attend(*(torch.zeros(1, 1, length, 1) for _ in range(3)), window=64)
    assert largest[1] <= 4 * largest[0] < 2048 * 2048


def test_a_window_as_long_as_the_text_is_none() -> None:
    query, key, value = drawn(20)
    torch.testing.assert_close(attend(query, key, value, 20), attend(query, key, value, None))


@pytest.mark.parametrize("window", [None, 5, 64])
@pytest.mark.parametrize("newest", [1, 4])
def test_the_newest_positions_see_what_they_would_have_seen(window: int | None, newest: int) -> None:
    query, key, value = drawn(30)
    whole = attend(query, key, value, window)
    found = attend_behind(query[:, :, -newest:], key, value, window)
    torch.testing.assert_close(found, whole[:, :, -newest:], atol=1e-5, rtol=1e-4)


def test_what_computes_attention_is_named() -> None:
    assert choose_kernels(torch.device("cpu"), torch.float32, 64, windows=True).told == "by blocks"
    meta = choose_kernels(torch.device("meta"), torch.float32, 64, windows=True)
    assert meta.told.endswith("windows by blocks (varlen: it takes CUDA and 16-bit types)")
