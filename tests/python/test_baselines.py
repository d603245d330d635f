"""What xz and unigrams reach on a text, against the definitions."""

from __future__ import annotations

import lzma
import math

import numpy as np
import pytest
import torch

from nanofast.baselines import baselines, unigram_bits
from stand_in import BOS, ByteTokenizer, RowLoader


def test_a_unigram_code_spends_what_its_frequencies_say() -> None:
    ids = np.array([1] * 4 + [2] * 2 + [3, 4])
    assert unigram_bits(ids) == pytest.approx(4 * 1 + 2 * 2 + 2 * 3)
    assert unigram_bits(np.full(9, 7)) == 0.0


def test_is_measured_on_the_text_that_is_learned_and_no_special_token() -> None:
    loader, tokenizer = RowLoader(2, 64), ByteTokenizer()
    rows = [loader.row(number) for number in range(6)]
    text = b"".join(bytes(row[1:]) for row in rows)  # the first token of a row is no target
    found = baselines(loader, 3, tokenizer, tokenizer.token_bytes())
    assert found is not None
    assert found.bytes == len(text)
    assert found.xz_bpb == 8 * len(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME)) / len(text)
    shares = [text.count(byte) / len(text) for byte in set(text)]
    assert found.unigram_bpb == pytest.approx(-sum(share * math.log2(share) for share in shares))


def test_a_text_that_comes_round_again_counts_once() -> None:
    tokenizer = ByteTokenizer()
    first = [next(loader) for loader in [RowLoader(2, 64)] for _ in range(3)]
    once, twice = (baselines(iter(2 * first), n, tokenizer, tokenizer.token_bytes()) for n in (3, 6))
    assert once == twice


def test_a_text_of_special_tokens_alone_has_none() -> None:
    targets = torch.tensor([[BOS, -1, BOS]])
    assert baselines(iter([(targets, targets)]), 1, ByteTokenizer(), ByteTokenizer().token_bytes()) is None
