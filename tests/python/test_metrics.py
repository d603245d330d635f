"""What `metrics()` tells: which stage was the bottleneck, what the caches knew, what lies in the queues."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

import nanofast
from nanofast.loader_metrics import bottleneck
from shards import random_texts, write_shards

BUSY = {"read": 1.0, "decode": 2.0, "tokenize": 3.0, "pack": 0.5, "ring_full": 1.0, "idle": 9.0, "copy": 0.5}


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, "tokenize"),
        ({"read": 9.0}, "read"),
        ({"decode": 9.0}, "decode"),
        ({"pack": 9.0}, "pack"),
        ({"ring_full": 7.0}, "ring_full"),
        ({"copy": 6.0, "ring_full": 7.0}, "copy"),
    ],
)
def test_the_bottleneck_is_what_kept_batches_from_coming_faster(changed: dict[str, float], expected: str) -> None:
    assert bottleneck(BUSY | changed, seconds_running=10.0) == expected


@pytest.fixture
def data(tmp_path: Path) -> str:
    return write_shards(tmp_path, random_texts(1, [[200, 100]]))[0]


def test_stages_queues_and_rates_are_told(data: str) -> None:
    with nanofast.TokenLoader(data, nanofast.Tokenizer.from_name("r50k_base"), 2, 32, lanes=2, num_slots=3) as loader:
        before = loader.metrics()
        assert (before["tokens_per_second"], before["cache_hit_rate"], before["ready_batches"]) == (0.0, 1.0, 0)
        for number, _ in enumerate(itertools.islice(loader.numpy(), 50), 1):
            metrics = loader.metrics()
            assert (metrics["round"], metrics["turn"]) == divmod(number, 2)
            assert 0 <= metrics["ready_batches"] <= 3
        seconds = metrics["stage_seconds"]
        assert set(seconds) == set(BUSY)
        assert all(seconds[stage] > 0 for stage in ("read", "decode", "tokenize", "pack", "copy"))
        assert metrics["bottleneck"] in BUSY
        assert metrics["tokens"] >= metrics["ledger"]["read"] > 0
        assert metrics["tokens_per_second"] > 0
        waits = [metrics[f"wait_{name}_seconds"] for name in ("p50", "p99", "max")]
        assert waits == sorted(waits)


def test_a_second_loader_finds_the_caches_of_the_first(data: str) -> None:
    tokenizer = nanofast.Tokenizer.from_name("r50k_base")
    rates = []
    for _ in range(2):
        with nanofast.TokenLoader(data, tokenizer, 2, 32, lanes=1, epochs=1, num_threads=1) as loader:
            assert sum(1 for _ in loader.numpy(copy=False)) > 10
            rates.append(loader.metrics()["cache_hit_rate"])
    assert rates[0] < rates[1] == 1.0
