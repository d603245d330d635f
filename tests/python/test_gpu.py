"""Batches on a CUDA device. Every test here needs one and says so where there is none."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nanofast
from nanofast.copies import DeviceCopies
from shards import random_texts, write_shards

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device; torch sees none")

SETTINGS: dict[str, Any] = {"batch_size": 16, "sequence_length": 512, "num_slots": 2, "num_threads": 2}
DELAY_CYCLES = 20_000_000  # some 10 ms: Rust writes a slot many times over meanwhile


@pytest.fixture
def data(tmp_path: Path) -> str:
    return write_shards(tmp_path, random_texts(1, [[400, 400]], longest=200))[0]


def differences(data: str, count: int) -> int:
    """Batches that are not those of the CPU, with a copy stream that lags behind."""
    tokenizer = nanofast.Tokenizer.from_name("r50k_base")
    found = []
    with nanofast.TokenLoader(data, tokenizer, device="cuda", **SETTINGS) as loader:
        for _ in range(count):
            stream = loader._device_copies().stream if loader._copies is None else loader._copies.stream
            with torch.cuda.stream(stream):
                torch.cuda._sleep(DELAY_CYCLES)  # type: ignore[no-untyped-call]
            found.append(next(loader))
        found = [(inputs.cpu().numpy(), targets.cpu().numpy()) for inputs, targets in found]
    with nanofast.TokenLoader(data, tokenizer, **SETTINGS) as loader:
        expected = list(itertools.islice(loader.numpy(), count))
    return sum(
        not (np.array_equal(inputs, same_inputs) and np.array_equal(targets, same_targets))
        for (inputs, targets), (same_inputs, same_targets) in zip(found, expected, strict=True)
    )


def test_a_slot_is_written_again_only_after_its_copy(data: str) -> None:
    assert differences(data, 40) == 0


def test_without_the_event_the_delay_would_show(data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def give_back_at_once(copies: DeviceCopies) -> None:
        for sequence in list(copies.copying):
            copies.native.release(sequence)
            del copies.copying[sequence]

    monkeypatch.setattr(DeviceCopies, "_give_back", give_back_at_once)
    assert differences(data, 40) > 0


def test_tensors_stay_right_when_the_loader_is_gone(data: str) -> None:
    tokenizer = nanofast.Tokenizer.from_name("r50k_base")
    with nanofast.TokenLoader(data, tokenizer, device="cuda", **SETTINGS) as loader:
        kept = list(itertools.islice(loader, 20))
    del loader
    with nanofast.TokenLoader(data, tokenizer, **SETTINGS) as loader:
        for (inputs, targets), (same_inputs, same_targets) in zip(kept, loader.numpy(), strict=False):
            assert (inputs.dtype, targets.dtype) == (torch.int32, torch.int64)
            np.testing.assert_array_equal(inputs.cpu(), same_inputs)
            np.testing.assert_array_equal(targets.cpu(), same_targets)
