"""Causal attention, over everything before a position or over a sliding window of it, and which kernel computes it.

Queries are taken in blocks, and a block meets only the keys that some query of it may see: half of the square, or a
window's band of it, is never computed. Nothing of the size T × T exists at any moment but the probabilities that a
backward pass needs, of what is seen.

    keys     ├───────── seen by the block's first query ─────────┤
             ├───────────── met by the block ────────────────────┼── the block ──┤
    queries                                                      ├── the block ──┤

Shapes: B batch, H heads, T positions, D channels of a head; N = B·H, R queries of a block, K keys that a block meets.
Scores are divided by the square root of D.

    y_BHTD = attend(query_BHTD, key_BHTD, value_BHTD, window=512)
    kernels = choose_kernels(torch.device("cuda"), torch.bfloat16, head_size=128)     # kernels.told: for the user
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# Queries of a block: fewer meet fewer keys that they do not need, more fill the products better. Of 64, 128 and 256 the
# best in bfloat16 for 256 to 2,048 positions on a 2-core Zen 4 server VM (docs/LOG.md).
BLOCK_ROWS = 128
PROBE_TOLERANCE = 0.05  # bfloat16 keeps 8 bits; a wrong window is off by far more


def _spans(length: int, window: int | None) -> Iterator[tuple[slice, slice]]:
    """Queries of each block, and the keys that it meets."""
    for start in range(0, length, BLOCK_ROWS):
        end = min(start + BLOCK_ROWS, length)
        yield slice(start, end), slice(0 if window is None else max(0, start - window + 1), end)


def _probabilities(query_NRD: Tensor, key_NKD: Tensor, window: int | None) -> Tensor:
    """What each query of a block gives to each key that the block meets; float32 inside, in the queries' type."""
    scores_NRK = (query_NRD @ key_NKD.mT).float().mul_(query_NRD.size(-1) ** -0.5)
    rows, keys = scores_NRK.shape[-2:]
    later_RR = torch.ones(rows, rows, dtype=torch.bool, device=scores_NRK.device).triu_(1)
    scores_NRK[..., keys - rows :].masked_fill_(later_RR, -torch.inf)
    if window is not None and keys > window:  # only the last query sees none of the first keys, and so on
        gone_RK = torch.ones(rows, keys, dtype=torch.bool, device=scores_NRK.device).tril_(keys - rows - window)
        scores_NRK.masked_fill_(gone_RK, -torch.inf)
    return scores_NRK.softmax(dim=-1).to(query_NRD.dtype)


class _Blocks(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query_NTD: Tensor, key_NTD: Tensor, value_NTD: Tensor, window: int | None, with_gradient: bool
    ) -> Tensor:
        y_NTD = torch.empty_like(query_NTD)
        kept = []
        for block, met in _spans(query_NTD.size(1), window):
            p_NRK = _probabilities(query_NTD[:, block], key_NTD[:, met], window)
            y_NTD[:, block] = p_NRK @ value_NTD[:, met]
            kept.append(p_NRK)
        if with_gradient:
            ctx.window = window
            ctx.save_for_backward(query_NTD, key_NTD, value_NTD, y_NTD, *kept)
        return y_NTD

    @staticmethod
    def backward(ctx: Any, gradient_NTD: Tensor) -> tuple[Tensor | None, ...]:
        query_NTD, key_NTD, value_NTD, y_NTD, *kept = ctx.saved_tensors
        query_gradient_NTD = torch.empty_like(query_NTD)
        # sums over blocks, in float32
        key_gradient_NTD, value_gradient_NTD = (torch.zeros_like(x, dtype=torch.float32) for x in (key_NTD, value_NTD))
        along_NT1 = (gradient_NTD * y_NTD).sum(dim=-1, keepdim=True)
        scale = query_NTD.size(-1) ** -0.5
        for p_NRK, (block, met) in zip(kept, _spans(query_NTD.size(1), ctx.window), strict=True):
            g_NRD = gradient_NTD[:, block]
            scores_gradient_NRK = (g_NRD @ value_NTD[:, met].mT).sub_(along_NT1[:, block]).mul_(p_NRK).mul_(scale)
            query_gradient_NTD[:, block] = scores_gradient_NRK @ key_NTD[:, met]
            key_gradient_NTD[:, met] += scores_gradient_NRK.mT @ query_NTD[:, block]
            value_gradient_NTD[:, met] += p_NRK.mT @ g_NRD
        dtype = query_NTD.dtype
        return query_gradient_NTD, key_gradient_NTD.to(dtype), value_gradient_NTD.to(dtype), None, None


def blocks(query_BHTD: Tensor, key_BHTD: Tensor, value_BHTD: Tensor, window: int | None) -> Tensor:
    """Each position sees itself and the `window - 1` before it, or all before it; any device, any length."""
    flat = (x.flatten(0, 1).contiguous() for x in (query_BHTD, key_BHTD, value_BHTD))
    y_NTD: Tensor = _Blocks.apply(*flat, window, torch.is_grad_enabled())
    return y_NTD.view_as(query_BHTD)


def varlen(query_BHTD: Tensor, key_BHTD: Tensor, value_BHTD: Tensor, window: int) -> Tensor:
    """The same by FlashAttention, which skips what lies outside of the window; CUDA, 16-bit types, torch 2.11."""
    from torch.nn.attention.varlen import varlen_attn

    B, H, T, D = query_BHTD.shape
    query, key, value = (x.transpose(1, 2).reshape(B * T, H, D) for x in (query_BHTD, key_BHTD, value_BHTD))
    borders = torch.arange(0, B * T + 1, T, dtype=torch.int32, device=query_BHTD.device)
    y = varlen_attn(query, key, value, borders, borders, T, T, window_size=(window - 1, 0))
    assert isinstance(y, Tensor)
    return y.view(B, T, H, D).transpose(1, 2)


WINDOW_KERNELS = {"blocks": blocks, "varlen": varlen}


def attend(
    query_BHTD: Tensor, key_BHTD: Tensor, value_BHTD: Tensor, window: int | None, kernel: str = "blocks"
) -> Tensor:
    """What each position reads from itself and those before it; `window` None, or T and more: from all of them.

    Without a window torch's own attention is used, except on CPUs, where the blocks are faster.
    """
    T = query_BHTD.size(2)
    if window is not None and window < T:
        return WINDOW_KERNELS[kernel](query_BHTD, key_BHTD, value_BHTD, window)
    if query_BHTD.device.type == "cpu":
        return blocks(query_BHTD, key_BHTD, value_BHTD, None)
    return F.scaled_dot_product_attention(query_BHTD, key_BHTD, value_BHTD, is_causal=T > 1)


def attend_behind(query_BHTD: Tensor, key_BHTD: Tensor, value_BHTD: Tensor, window: int | None) -> Tensor:
    """The same for the newest T of more positions, whose keys and values are all there: sampling with a cache."""
    T, seen = query_BHTD.size(2), key_BHTD.size(2)
    if window is not None and seen > window - 1 + T:  # nobody looks further back
        key_BHTD, value_BHTD = (x[:, :, -(window - 1 + T) :] for x in (key_BHTD, value_BHTD))
        seen = window - 1 + T
    if T == 1:  # the newest position sees all that is left
        return F.scaled_dot_product_attention(query_BHTD, key_BHTD, value_BHTD)
    mask_TK = torch.ones(T, seen, dtype=torch.bool, device=query_BHTD.device).tril(seen - T)
    if window is not None:
        mask_TK = mask_TK.triu(seen - T - window + 1)
    return F.scaled_dot_product_attention(query_BHTD, key_BHTD, value_BHTD, attn_mask=mask_TK)


@dataclass(frozen=True)
class Kernels:
    """What computes attention here: `full` is what torch chose, `window` a name in WINDOW_KERNELS; `told` for users."""

    full: str
    window: str
    told: str


def _examples(device: torch.device, dtype: torch.dtype, head_size: int, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """A query, key and value to try things with."""
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, 2, length, head_size, generator=generator).to(device, dtype) for _ in range(3))
    return query, key, value


def _torchs_choice(device: torch.device, dtype: torch.dtype, head_size: int) -> str:
    """The name of the backend that torch takes for causal attention of this type."""
    query, key, value = (x.requires_grad_() for x in _examples(device, dtype, head_size, 256))
    try:
        chosen = torch._fused_sdp_choice(query, key, value, None, 0.0, True)
        return torch.nn.attention.SDPBackend(chosen).name.removesuffix("_ATTENTION").lower()
    except (AttributeError, RuntimeError, ValueError):  # the question is not part of torch's public interface
        return "as torch chooses"


def _activate_flash(device: torch.device, dtype: torch.dtype, head_size: int) -> str | None:
    """FlashAttention 4 or 3 behind torch's own attention where it is installed and gives the same answers."""
    if device.type != "cuda" or dtype not in (torch.bfloat16, torch.float16):
        return None
    from torch.nn import attention

    packages = {"FA4": "flash_attn.cute", "FA3": "flash_attn_interface"}
    before = F.scaled_dot_product_attention(*_examples(device, dtype, head_size, 256), is_causal=True)
    for name, package in packages.items():
        try:
            if importlib.util.find_spec(package) is None:
                continue
            attention.activate_flash_attention_impl(name)
            found = F.scaled_dot_product_attention(*_examples(device, dtype, head_size, 256), is_causal=True)
            if (found - before).abs().max() < PROBE_TOLERANCE:
                return name
        except Exception:  # a broken installation is as good as none
            pass
        getattr(attention, "restore_flash_attention_impl", lambda: None)()
    return None


def _obstacle_to_varlen(device: torch.device, dtype: torch.dtype, head_size: int) -> str | None:
    """Why `varlen` cannot be used here, in a line; None where it gives what `blocks` gives."""
    if device.type != "cuda" or dtype not in (torch.bfloat16, torch.float16):
        return "it takes CUDA and 16-bit types"
    examples = _examples(device, dtype, head_size, 512)
    try:
        difference = float((varlen(*examples, 100) - blocks(*examples, 100)).abs().max())
    except Exception as error:  # whatever a torch that is too old, or a GPU that it does not know, raises
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
    return None if difference < PROBE_TOLERANCE else f"it was off by {difference:.2g} in a trial"


def choose_kernels(device: torch.device, dtype: torch.dtype, head_size: int, windows: bool) -> Kernels:
    """Find out, by trying, what computes attention on this device; `windows`: whether any layer has one."""
    if device.type == "cpu":
        return Kernels("blocks", "blocks", "by blocks")
    full = _activate_flash(device, dtype, head_size) or _torchs_choice(device, dtype, head_size)
    if not windows:
        return Kernels(full, "blocks", f"{full}, no windows")
    obstacle = _obstacle_to_varlen(device, dtype, head_size)
    if obstacle is None:
        return Kernels(full, "varlen", f"{full}; windows by varlen")
    return Kernels(full, "blocks", f"{full}; windows by blocks (varlen: {obstacle})")
