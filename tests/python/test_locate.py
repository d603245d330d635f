"""`data locate`: the documents of a step, found again by reading the data from the checkpoint before it."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

import nanofast
from shards import random_texts, write_shards

torch = pytest.importorskip("torch")

from nanofast import checkpoint  # noqa: E402
from nanofast.config import Config, DataSettings, ModelSettings, ScheduleSettings, to_dict  # noqa: E402
from nanofast.data.__main__ import main  # noqa: E402
from nanofast.derive import derive  # noqa: E402

ROWS, LENGTH, RANKS, LANES, STEPS = 2, 32, 2, 4, 6
BATCHES = 2  # of each rank in a step


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[list[list[str]]]]:
    """A run of two ranks with checkpoints at steps 3 and 6, and the documents of each step and rank."""
    folder = tmp_path_factory.mktemp("run")
    (data := folder / "data").mkdir()
    paths = write_shards(data, random_texts(8, [[80], [70], [5]]))
    tokenizer = nanofast.Tokenizer.from_name("r50k_base")
    tokenizer.save(folder / "tokenizer.json")
    config = derive(
        Config(
            model=ModelSettings(depth=2, sequence_length=LENGTH),
            data=DataSettings(data=str(data), tokenizer=str(folder / "tokenizer.json"), lanes=LANES, shuffle=True),
            schedule=ScheduleSettings(
                num_iterations=STEPS, total_batch_size=ROWS * LENGTH * RANKS * BATCHES, device_batch_size=ROWS
            ),
        ),
        world_size=RANKS,
        device_type="cpu",
    )
    loaders = [
        nanofast.TokenLoader(
            paths,
            tokenizer,
            ROWS,
            LENGTH,
            split="train",
            rank=rank,
            world_size=RANKS,
            lanes=LANES,
            shuffle=True,
            seed=config.run.seed,
            return_documents=True,
        )
        for rank in range(RANKS)
    ]
    steps: list[list[list[str]]] = []
    for step in range(1, STEPS + 1):
        batches = [[batch[2] for batch in islice(loader.numpy(), BATCHES)] for loader in loaders]
        steps.append([[found.name(n) for found in rank for n in range(len(found.pieces))] for rank in batches])
        if step % 3 == 0:
            states = [loader.state_dict() for loader in loaders]
            values = {"state": {"config": to_dict(config)}, "loader": {"ranks": states}}
            checkpoint.save(checkpoint.Snapshot(values=values), folder / "checkpoints", step)
    for loader in loaders:
        loader.close()
    return folder, steps


def located(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("sys.argv", ["data", "locate", *arguments])
    return main()


@pytest.mark.parametrize("step", [1, 3, 4, 6])
def test_a_step_is_told_as_it_was(
    run: tuple[Path, Any], step: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, steps = run
    assert located([str(folder), "--step", str(step), "--json"], monkeypatch) == 0
    pieces = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for rank in range(RANKS):
        assert [piece["document"] for piece in pieces if piece["rank"] == rank] == steps[step - 1][rank]
    assert located([str(folder), "--step", str(step)], monkeypatch) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [piece["document"] for piece in pieces]


def test_a_step_that_is_not_there_is_one_line(
    run: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert located([str(run[0]), "--step", "7"], monkeypatch) == 2
    assert capsys.readouterr().err == "error: step = 7: the run has checkpoints up to step 6\n"
    assert located([str(run[0] / "nothing"), "--step", "7"], monkeypatch) == 2
    assert capsys.readouterr().err.startswith("error: nothing to resume in")
