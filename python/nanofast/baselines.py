"""What says how hard a text is: the bits per byte that xz and the best unigram model reach on the validation text.

xz has seen nothing but the text itself. The unigram model gives each token the frequency that it has in this very
text, which no other unigram model can beat. A newcomer can judge a model by them: worse than unigram is broken, better
than xz has learned something of language.

    found = baselines(iter(loader), num_batches, tokenizer, token_bytes)
    found.xz_bpb, found.unigram_bpb
"""

from __future__ import annotations

import lzma
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from nanofast.distributed import gather_objects

MOST_TOKENS = 1 << 20  # of each rank: xz takes some seconds for what these stand for
# A validation split that is shorter than what is validated on comes round again, and xz would make nothing of the
# second time. Two texts that begin with this many equal tokens are taken for one; shorter than the least, they say
# nothing.
BEGINNING_TOKENS, LEAST_TOKENS = 128, 16


@dataclass(frozen=True)
class Baselines:
    """Bits per byte, over `bytes` of text."""

    xz_bpb: float
    unigram_bpb: float
    bytes: int


def unigram_bits(ids: npt.NDArray[np.int64]) -> float:
    """Bits that a text of tokens takes, each coded by its own frequency in the text."""
    counts = np.unique(ids, return_counts=True)[1]
    return float((counts * np.log2(counts.sum() / counts)).sum())


def beginnings(targets: npt.NDArray[np.int64], token_bytes: npt.NDArray[Any]) -> set[bytes]:
    """What the pieces of text between special tokens begin with, in the rows [B, T] of a batch."""
    found = set()
    for row in targets:
        borders = np.flatnonzero((row < 0) | (token_bytes[row] == 0))
        pieces = (piece[1:] if i else piece for i, piece in enumerate(np.split(row, borders)))
        found |= {piece[:BEGINNING_TOKENS].tobytes() for piece in pieces if len(piece) >= LEAST_TOKENS}
    return found


def baselines(
    batches: Iterator[tuple[Tensor, Tensor]], num_batches: int, tokenizer: Any, token_bytes: npt.NDArray[Any]
) -> Baselines | None:
    """Measures the text of the next `num_batches` batches of every rank, as long as it does not repeat itself.

    A collective. None where there is no text.
    """
    seen, count, known = [np.empty(0, dtype=np.int64)], 0, set[bytes]()
    for _ in range(num_batches):
        targets_BT = next(batches)[1].cpu().numpy()
        begun = beginnings(targets_BT, token_bytes)
        if count >= MOST_TOKENS or begun & known:
            break
        known |= begun
        ids = targets_BT[targets_BT >= 0]
        seen.append(ids[token_bytes[ids] > 0])  # special tokens are no text
        count += len(seen[-1])
    ids = np.concatenate(gather_objects(np.concatenate(seen)))
    text = tokenizer.decode_bytes(ids.tolist())
    if not text:
        return None
    compressed = lzma.compress(text, preset=9 | lzma.PRESET_EXTREME)
    return Baselines(8 * len(compressed) / len(text), unigram_bits(ids) / len(text), len(text))
