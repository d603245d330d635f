"""Causal attention, over everything before a position or over a sliding window of it, and which kernel computes it.

A window costs what it sees, never T × T: queries are cut into blocks, and each block meets only the keys that some
query of it may see.

    keys     ├─────── window - 1 ───────┼── block ──┤      all keys that one block of queries meets
    queries                             ├── block ──┤      query r sees the keys r … r + window - 1 of them

Shapes: B batch, H heads, T positions, D channels of a head; N blocks, R queries of a block, K keys that a block meets.
Attention is scaled by the square root of D.

    y_BHTD = attend(query_BHTD, key_BHTD, value_BHTD, window=512)
    kernels = choose_kernels(torch.device("cuda"), torch.bfloat16, head_size=128)     # kernels.told: for the user
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

# Queries of a block, at most: smaller blocks meet fewer keys that they do not need, larger ones fill the kernels better.
# Of 32 to 256, at 2,048 positions and windows of 512 on a 2-core Zen 4 server VM, see docs/LOG.md.
BLOCK_ROWS = 128
PROBE_TOLERANCE = 0.05  # bfloat16 keeps 8 bits; a wrong window is off by far more


def blocks(query_BHTD: Tensor, key_BHTD: Tensor, value_BHTD: Tensor, window: int) -> Tensor:
    """Each position sees itself and the `window - 1` before it; any device, any length."""
    B, H, T, D = query_BHTD.shape
    rows = min(BLOCK_ROWS, T)
    count = -(-T // rows)
    behind, keys = window - 1, window - 1 + rows
    end = count * rows - T  # the last block is filled up

    def met(x_BHTD: Tensor) -> Tensor:
        padded = F.pad(x_BHTD.flatten(0, 1), (0, 0, behind, end))
        return padded.unfold(1, keys, rows).transpose(-1, -2)  # [B·H, N, K, D]

    query = F.pad(query_BHTD.flatten(0, 1), (0, 0, 0, end)).unflatten(1, (count, rows))
    device = query.device
    row_R1, key_K = torch.arange(rows, device=device)[:, None], torch.arange(keys, device=device)
    in_window_RK = (key_K >= row_R1) & (key_K <= row_R1 + behind)
    begins_N11 = torch.arange(count, device=device)[:, None, None] * rows  # of a block, in keys with those put in front
    exists_N1K = begins_N11 + key_K >= behind
    y = F.scaled_dot_product_attention(query, met(key_BHTD), met(value_BHTD), attn_mask=in_window_RK & exists_N1K)
    return y.flatten(1, 2)[:, :T].unflatten(0, (B, H))


def varlen(query_BHTD: Tensor, key_BHTD: Tensor, value_BHTD: Tensor, window: int) -> Tensor:
    """The same by FlashAttention, which skips what lies outside of the window; CUDA, 16-bit types, torch 2.11."""
    from torch.nn.attention.varlen import varlen_attn

    B, H, T, D = query_BHTD.shape
    packed = (x.transpose(1, 2).reshape(B * T, H, D) for x in (query_BHTD, key_BHTD, value_BHTD))
    borders = torch.arange(0, B * T + 1, T, dtype=torch.int32, device=query_BHTD.device)
    y: Tensor = varlen_attn(*packed, borders, borders, T, T, window_size=(window - 1, 0))
    return y.view(B, T, H, D).transpose(1, 2)


WINDOW_KERNELS = {"blocks": blocks, "varlen": varlen}


def attend(
    query_BHTD: Tensor, key_BHTD: Tensor, value_BHTD: Tensor, window: int | None, kernel: str = "blocks"
) -> Tensor:
    """What each position reads from itself and those before it; `window` None, or T and more: from all of them."""
    T = query_BHTD.size(2)
    if window is None or window >= T:
        return F.scaled_dot_product_attention(query_BHTD, key_BHTD, value_BHTD, is_causal=T > 1)
    return WINDOW_KERNELS[kernel](query_BHTD, key_BHTD, value_BHTD, window)


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


def _examples(device: torch.device, dtype: torch.dtype, head_size: int, length: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(1, 2, length, head_size, generator=generator).to(device, dtype) for _ in range(3)]


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
        except Exception:  # noqa: S110  # a broken installation is as good as none
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
    flash = _activate_flash(device, dtype, head_size)
    full = flash or _torchs_choice(device, dtype, head_size)
    if not windows:
        return Kernels(full, "blocks", f"{full}, no windows")
    obstacle = _obstacle_to_varlen(device, dtype, head_size)
    if obstacle is None:
        return Kernels(full, "varlen", f"{full}; windows by varlen")
    return Kernels(full, "blocks", f"{full}; windows by blocks (varlen: {obstacle})")
