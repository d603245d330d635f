"""Runs that are killed, and runs that move to another number of processes, go on as if nothing had happened.

Real processes, the real loader, a very small model. 3 kills by default, 25 in the long profile.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import IS_LONG
from nanofast.runlog import read_log
from test_distributed import free_port
from test_train_cli import SMALL, run, step_losses

STEPS = 30
KILLS = 25 if IS_LONG else 3


def start(corpus: tuple[Path, Path], *words: str, **environment: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "nanofast.train", "--data", str(corpus[0]), "--tokenizer", str(corpus[1])]
    whole = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1", **environment}
    return subprocess.Popen([*command, *SMALL, *words], env=whole, stdout=subprocess.DEVNULL)


def log_length(run_dir: Path) -> int:
    log = run_dir / "log.jsonl"
    return len(log.read_bytes().splitlines()) if log.exists() else 0


@pytest.mark.timeout(1800)
def test_a_run_killed_at_random_moments_ends_bit_for_bit_as_one_that_was_not(
    sample_corpus: tuple[Path, Path], tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """A checkpoint each step, so that many of the kills fall into the writing of one."""
    record_property("kills", KILLS)
    words = [f"--num-iterations={STEPS}", "--save-every=1", "--sample-every=-1", "--eval-every=-1", "--no-report"]
    words += ["--torch-threads=1"]
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    assert run(sample_corpus, "--run", str(straight), *words).returncode == 0
    moments = random.Random(0)
    for _ in range(KILLS):
        before = log_length(killed)
        process = start(sample_corpus, "--run", str(killed), "--resume", "auto", *words)
        wanted = before + moments.randrange(1, 2 * STEPS // KILLS + 4)
        try:
            while process.poll() is None and log_length(killed) < wanted:
                time.sleep(0.01)
            time.sleep(moments.random() * 0.02)
            process.send_signal(signal.SIGKILL)
        finally:
            process.kill()
            process.wait()
    assert run(sample_corpus, "--run", str(killed), "--resume", "auto", *words).returncode == 0
    assert step_losses(killed) == step_losses(straight)
    last = [folder / "checkpoints" / f"step_{STEPS:08d}" / "model.safetensors" for folder in (straight, killed)]
    assert last[0].read_bytes() == last[1].read_bytes()
    assert len(list((killed / "checkpoints").iterdir())) == 3


def start_ranks(corpus: tuple[Path, Path], world_size: int, *words: str) -> list[int]:
    """Exit codes of `world_size` processes with torchrun's environment; a single one is this process."""
    if world_size == 1:
        return [run(corpus, *words).returncode]
    place = {"WORLD_SIZE": str(world_size), "LOCAL_WORLD_SIZE": str(world_size), "MASTER_PORT": str(free_port())}
    ranks = [
        start(corpus, *words, MASTER_ADDR="127.0.0.1", RANK=str(rank), LOCAL_RANK=str(rank), **place)
        for rank in range(world_size)
    ]
    try:
        return [rank.wait(timeout=240) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()


# A run at 4 goes on at 1, 2 and 8; the default profile takes the way down, and one up.
MOVES = [(4, 1), (1, 2), *([(4, 2), (4, 8), (2, 1)] if IS_LONG else [])]


@pytest.mark.parametrize(("first", "then"), MOVES)
def test_a_run_moves_between_world_sizes_with_the_same_batches(
    sample_corpus: tuple[Path, Path], tmp_path: Path, first: int, then: int
) -> None:
    words = [
        "--sample-every=-1",
        "--eval-every=0",
        "--no-report",
        "--lanes=8",
        "--device-batch-size=1",
        "--warmdown-ratio=0",
        "--warmup-ratio=0",
    ]
    straight, moved = tmp_path / "straight", tmp_path / "moved"
    assert start_ranks(sample_corpus, 1, "--run", str(straight), "--num-iterations=6", *words) == [0]
    begin = ["--run", str(moved), "--num-iterations=6", "--save-every=3", *words]
    assert start_ranks(sample_corpus, first, *begin) == [0] * first
    (moved / "checkpoints" / "step_00000006" / "manifest.json").unlink()
    assert start_ranks(sample_corpus, then, "--run", str(moved), "--resume", "auto", *words) == [0] * then
    losses = [[entry["loss"] for entry in read_log(folder) if entry["kind"] == "step"] for folder in (straight, moved)]
    assert len(losses[1]) == 6
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    found = [[entry for entry in read_log(folder) if entry["kind"] == "validation"][-1] for folder in (straight, moved)]
    assert found[0]["tokens"] == found[1]["tokens"]
    assert found[1]["bpb"] == pytest.approx(found[0]["bpb"], rel=1e-4)
