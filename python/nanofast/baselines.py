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


def baselines(
    batches: Iterator[tuple[Tensor, Tensor]], num_batches: int, tokenizer: Any, token_bytes: npt.NDArray[Any]
) -> Baselines | None:
    """Measures the text of the next `num_batches` batches of every rank; a collective. None where there is no text."""
    seen, count = [np.empty(0, dtype=np.int64)], 0
    for _ in range(num_batches):
        if count >= MOST_TOKENS:
            break
        ids = next(batches)[1].flatten().cpu().numpy()
        ids = ids[ids >= 0]
        seen.append(ids[token_bytes[ids] > 0])  # special tokens are no text
        count += len(seen[-1])
    ids = np.concatenate(gather_objects(np.concatenate(seen)))
    text = tokenizer.decode_bytes(ids.tolist())
    if not text:
        return None
    compressed = lzma.compress(text, preset=9 | lzma.PRESET_EXTREME)
    return Baselines(8 * len(compressed) / len(text), unigram_bits(ids) / len(text), len(text))
