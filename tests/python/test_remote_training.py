"""Training on data behind URLs, by the command: killed and gone on with, it is the run on the same files here."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nanofast.runlog import read_log
from nanofast.train import run as train
from range_server import RangeServer
from test_distributed import free_port

SECRET = "s3cr3tw0rd"
SMALL = [
    *("--depth=1", "--n-embd=32", "--sequence-length=32", "--total-batch-size=256", "--device-batch-size=2"),
    *("--num-iterations=30", "--save-every=5", "--eval-every=-1", "--sample-every=-1", "--dtype=float32"),
    *("--shuffle", "--no-report"),
]


def start(num_ranks: int, *words: str) -> list[subprocess.Popen[str]]:
    """A process for each rank, with the environment that torchrun gives."""
    started, port = [], str(free_port())
    for rank in range(num_ranks):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
        if num_ranks > 1:
            place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            environment |= {**place, "WORLD_SIZE": str(num_ranks), "LOCAL_WORLD_SIZE": str(num_ranks)}
        command = [sys.executable, "-m", "nanofast.train", *words]
        started.append(subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, text=True))
    return started


def losses(run: Path) -> list[str]:
    return [entry["loss"].hex() for entry in read_log(run) if entry["kind"] == "step"]


def kill_at(step: int, run: Path, processes: list[subprocess.Popen[str]]) -> None:
    """SIGKILL for all, once one step is behind them and a checkpoint is there."""
    log = run / "log.jsonl"
    while all(process.poll() is None for process in processes):
        if any((run / "checkpoints").glob("step_*")) and f'"step": {step},' in log.read_text():
            break
        time.sleep(0.005)
    for process in processes:
        process.kill()
    assert [process.wait(60) for process in processes] == [-9] * len(processes)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("num_ranks", [1, pytest.param(2, marks=pytest.mark.long)])
def test_a_killed_run_on_data_of_a_hub_goes_on_as_the_run_on_the_files(
    num_ranks: int, sample_corpus: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, tokenizer = sample_corpus
    here, there = tmp_path / "here", tmp_path / "there"
    words = ["--tokenizer", str(tokenizer), *SMALL]
    monkeypatch.setenv("NANOFAST_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_TOKEN", SECRET)
    (tmp_path / "served" / "owner").mkdir(parents=True)
    (tmp_path / "served" / "owner" / "name").symlink_to(data)
    with RangeServer(tmp_path / "served", token=SECRET) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        url = "hf://datasets/owner/name"
        kill_at(12, there, start(num_ranks, "--data", url, "--run", str(there), *words))
        for process in start(num_ranks, "--resume", str(there)):
            assert process.wait(120) == 0
    words += ["--data", str(data), "--run", str(here)]
    if num_ranks == 1:  # starting a process takes longer than this run
        assert train(words) == 0
    for process in start(num_ranks, *words) if num_ranks > 1 else []:
        assert process.wait(120) == 0
    assert any("resumed_from" in entry for entry in read_log(there))
    assert losses(there) == losses(here)
    assert len(losses(there)) == 30
    kept = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert not [file for file in kept if SECRET.encode() in file.read_bytes()]
