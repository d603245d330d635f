"""`data locate`: the documents of a step, found again by reading the data from the checkpoint before it."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

import nanofast
from shards import random_texts, write_shards

torch = pytest.importorskip("torch")

from nanofast import checkpoint, documents_log  # noqa: E402
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


def train(folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    words = ["--depth", "1", "--sequence-length", "32", "--total-batch-size", "256", "--device-batch-size", "4"]
    words += ["--lanes", "2", "--eval-every", "-1", "--eval-tokens", "64", "--sample-every", "-1", "--save-every", "3"]
    words += ["--home", str(folder), "--run", "logged", *flags]
    command = [sys.executable, "-m", "nanofast.train", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_log_of_a_run_and_reading_again_tell_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (data := tmp_path / "data").mkdir()
    texts = random_texts(8, [[80], [70], [5]])
    write_shards(data, texts)
    flat = itertools.chain.from_iterable(itertools.chain.from_iterable(texts))
    nanofast.Tokenizer.train(flat, 300, special_tokens=["<|bos|>"]).save(tmp_path / "tokenizer.json")
    named = ["--data", str(data), "--tokenizer", str(tmp_path / "tokenizer.json")]
    done = train(tmp_path, *named, "--log-documents", "--num-iterations", "7")
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "logged"
    log = run / documents_log.LOG
    assert [path.name for path in sorted(log.iterdir())] == [
        f"{first:08d}-{last:08d}.rank0.parquet" for first, last in ((0, 3), (3, 6), (6, 7))
    ]
    logged = [documents_log.read_step(log, step) for step in range(1, 8)]
    assert documents_log.read_step(log, 8) == []
    log.rename(run / "put away")
    for step, pieces in enumerate(logged, start=1):
        assert located([str(run), "--step", str(step), "--json"], monkeypatch) == 0
        assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == pieces
        assert {piece["batch"] for piece in pieces} == {0, 1}
    # Steps behind the checkpoint that is gone on from are trained again, and are in the log once.
    (run / "put away").rename(log)
    for late in ("step_00000006", "step_00000007"):
        shutil.rmtree(run / "checkpoints" / late)
    done = train(tmp_path, "--resume", str(run))
    assert done.returncode == 0, done.stderr
    assert [documents_log.read_step(log, step) for step in range(1, 8)] == logged


def test_a_log_that_cannot_be_written_waits_for_the_next_time(
    run: tuple[Path, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = run[0] / "data"
    tokenizer = nanofast.Tokenizer.from_name("r50k_base")
    (tmp_path / "log").write_text("in the way")
    with nanofast.TokenLoader(str(data), tokenizer, 2, 16, return_documents=True) as loader:
        log = documents_log.DocumentsLog(loader, tmp_path / "log", rank=0, batches_a_step=2)
        for _ in range(4):
            next(log)
        log.state_dict()
        assert "could not be written" in caplog.text
        (tmp_path / "log").unlink()
        next(log), next(log)
        log.state_dict()
    assert [bool(documents_log.read_step(tmp_path / "log", step)) for step in range(5)] == [
        False,
        True,
        True,
        True,
        False,
    ]


def test_a_piece_takes_some_bytes(run: tuple[Path, Any], tmp_path: Path) -> None:
    data = run[0] / "data"
    tokenizer = nanofast.Tokenizer.from_name("r50k_base")
    with nanofast.TokenLoader(str(data), tokenizer, 16, 64, return_documents=True, shuffle=True) as loader:
        log = documents_log.DocumentsLog(loader, tmp_path, rank=0, batches_a_step=1)
        for _ in range(300):
            next(log)
        num_pieces = sum(map(len, log.pieces))
        log.state_dict()
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 12 * num_pieces
