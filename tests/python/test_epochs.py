"""Finite epochs over real ranks: all yield the same number of batches, those of the reference, and nobody hangs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import nanofast
from resumed import following
from shards import random_texts, write_shards
from test_distributed import run_ranks

UNEVEN = [["word " * 40] * 7, ["x"], ["word " * 5] * 9, ["long " * 300], []]


def run(folder: Path, world_size: int, job: dict[str, Any]) -> list[dict[str, Any]]:
    """What each rank saw."""
    (folder / "job.json").write_text(json.dumps(job))
    run_ranks("epoch_parts.py", world_size, str(folder), str(folder / "job.json"))
    return [json.loads((folder / f"rank_{rank}.json").read_text()) for rank in range(world_size)]


def alone(data: list[str], world_size: int, settings: dict[str, Any]) -> list[list[str]]:
    """The batches of each rank, from one process that has all lanes."""
    with nanofast.TokenLoader(data, nanofast.Tokenizer.from_name("r50k_base"), **settings) as loader:
        names = following(loader, 100_000)
        lanes = loader.lanes
    return [
        [name for number, name in enumerate(names) if number % lanes % world_size == rank] for rank in range(world_size)
    ]


@pytest.mark.parametrize("world_size", [2, 4])
@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"packing": "concat", "num_slots": 2},
        {"packing": "one_per_row", "drop_last": True},
        {"packing": "concat", "drop_last": True, "epochs": 2},
    ],
)
def test_all_ranks_end_together(tmp_path: Path, world_size: int, changed: dict[str, Any]) -> None:
    data = write_shards(tmp_path, [UNEVEN, *random_texts(2, [[13, 5]])])
    settings = {"batch_size": 2, "sequence_length": 16, "lanes": 4, "epochs": 1, "unit_documents": 3, **changed}
    found = run(tmp_path, world_size, {"data": data, "settings": settings})
    assert [rank["names"] for rank in found] == alone(data, world_size, settings)
    if not settings.get("drop_last"):
        documents = sum(map(len, UNEVEN)) + 18
        assert sum(rank["ledger"]["documents"] for rank in found) == settings["epochs"] * documents


def test_a_rank_that_comes_late_and_a_restored_run(tmp_path: Path) -> None:
    data = write_shards(tmp_path, [UNEVEN, *random_texts(2, [[13, 5]])])
    settings = {"batch_size": 2, "sequence_length": 16, "lanes": 2, "epochs": 1}
    found = run(tmp_path, 2, {"data": data, "settings": settings, "late_rank": 1, "restore_after": 5})
    assert [rank["names"] for rank in found] == alone(data, 2, settings)
