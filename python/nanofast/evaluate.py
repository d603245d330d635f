"""How good is the model: bits per byte, exact in bytes.

A loss in nats per token depends on how the tokenizer cuts text; bits per byte does not. Special tokens stand for no
byte of text, so neither their losses nor their lengths count. Sums are kept in float64 on the device and read once at
the end.

    found = bits_per_byte(model, loader, token_bytes, num_batches=8)
    found.bpb, found.tokens, found.bytes
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from nanofast.distributed import sum_over_ranks
from nanofast.model import GPT

# Places in the tensor that `batch_sums` gives.
LOSS, TARGETS, TEXT_LOSS, BYTES, NUM_SUMS = 0, 1, 2, 3, 4


@dataclass(frozen=True)
class Validation:
    """Means over a set of targets: `loss` in nats per target, `bpb` in bits per byte; and how much was counted."""

    loss: float
    bpb: float
    tokens: int
    bytes: int

    @staticmethod
    def from_sums(sums: list[float]) -> Validation:
        """Means from the sums of `batch_sums`; NaN where nothing was counted."""
        targets, num_bytes = int(sums[TARGETS]), int(sums[BYTES])
        loss = sums[LOSS] / targets if targets else math.nan
        bpb = sums[TEXT_LOSS] / math.log(2) / num_bytes if num_bytes else math.nan
        return Validation(loss, bpb, targets, num_bytes)


def sum_dtype(device: torch.device) -> torch.dtype:
    """float64, except on MPS, which has none."""
    return torch.float32 if device.type == "mps" else torch.float64


def batch_sums(loss_BT: Tensor, targets_BT: Tensor, token_bytes_V: Tensor) -> Tensor:
    """[loss, targets, loss of targets that are text, bytes of those] of one batch; stays on the device."""
    learned = targets_BT >= 0
    bytes_BT = token_bytes_V[targets_BT.clamp(min=0)] * learned
    loss_BT = loss_BT.detach().to(sum_dtype(loss_BT.device))
    text_loss = (loss_BT * (bytes_BT > 0)).sum()
    return torch.stack([loss_BT.sum(), learned.sum().to(loss_BT), text_loss, bytes_BT.sum().to(loss_BT)])


@torch.no_grad()
def bits_per_byte(
    model: GPT, batches: Iterator[tuple[Tensor, Tensor]], token_bytes_V: Tensor, num_batches: int, parts: int = 1
) -> Validation:
    """Mean loss and bits per byte over the next `num_batches` batches of every rank; the same answer on all ranks.

    Each batch passes through the model in `parts` parts.
    """
    device = token_bytes_V.device
    sums = torch.zeros(NUM_SUMS, dtype=sum_dtype(device), device=device)
    for _ in range(num_batches):
        inputs_BT, targets_BT = next(batches)
        for inputs, targets in zip(inputs_BT.chunk(parts), targets_BT.chunk(parts), strict=True):
            sums += batch_sums(model(inputs, targets), targets, token_bytes_V)
    return Validation.from_sums(sum_over_ranks(sums).tolist())
