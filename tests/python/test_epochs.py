"""Finite epochs over real ranks: all yield the same number of batches, those of the reference, and nobody hangs."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import nanofast
from conftest import IS_LONG
from resumed import following
from shards import random_texts, write_shards
from test_distributed import run_ranks

UNEVEN = [["word " * 40] * 7, ["x"], ["word " * 5] * 9, ["long " * 300], []]


def run_all(folder: Path, world_size: int, jobs: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """What each rank saw in each of `jobs`."""
    (folder / "jobs.json").write_text(json.dumps(jobs))
    run_ranks("epoch_parts.py", world_size, str(folder), str(folder / "jobs.json"))
    ranks = [json.loads((folder / f"rank_{rank}.json").read_text()) for rank in range(world_size)]
    return [list(found) for found in zip(*ranks, strict=True)]


def run(folder: Path, world_size: int, job: dict[str, Any]) -> list[dict[str, Any]]:
    """What each rank saw in `job`."""
    [found] = run_all(folder, world_size, [job])
    return found


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


def random_job(generator: random.Random, folder: Path, world_size: int) -> dict[str, Any]:
    """Shards, row groups, lanes and rules as they come, as long as each lane has data."""
    layout = [
        [generator.choice([0, 1, 3, 10, 30]) for _ in range(generator.randrange(1, 5))]
        for _ in range(generator.randrange(1, 4))
    ]
    settings = {
        "batch_size": generator.randrange(1, 4),
        "sequence_length": generator.choice([8, 16, 64]),
        "lanes": world_size * generator.randrange(1, 4),
        "epochs": generator.choice([1, 1, 2]),
        "shuffle": generator.choice([False, True]),
        "unit_documents": generator.choice([1, 4, 0]),
        "packing": generator.choice(["concat", "best_fit", "one_per_row"]),
        "drop_last": generator.choice([False, False, True]),
    }
    data = write_shards(folder, random_texts(generator.randrange(1000), layout))
    try:
        nanofast.TokenLoader(data, nanofast.Tokenizer.from_name("r50k_base"), **settings).close()
    except nanofast.InvalidError:
        return random_job(generator, folder, world_size)
    return {"data": data, "settings": settings}


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("world_size", [2, 3, 4] if IS_LONG else [3])
def test_random_layouts_end_together(
    tmp_path: Path, world_size: int, record_property: Callable[[str, object], None]
) -> None:
    count = 334 if IS_LONG else 8
    record_property("layouts", count)
    generator, jobs = random.Random(world_size), []
    for number in range(count):
        (tmp_path / str(number)).mkdir()
        jobs.append(random_job(generator, tmp_path / str(number), world_size))
    for job, found in zip(jobs, run_all(tmp_path, world_size, jobs), strict=True):
        names = [rank["names"] for rank in found]
        assert len({len(rank) for rank in names}) == 1, job
        assert names == alone(job["data"], world_size, job["settings"]), job
