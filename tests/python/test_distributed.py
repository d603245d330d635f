"""Several real processes on this machine, talking through gloo: the same weights on all, the losses of one process."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from nanofast.distributed import Threads, available_cores, rank_and_world_size, share_cores
from trainer_parts import losses, tiny_trainer

HERE = Path(__file__).parent


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def run_ranks(script: str, world_size: int, *words: str) -> None:
    """Start `script` once for each rank, with the environment that torchrun gives."""
    port = str(free_port())
    processes = []
    for rank in range(world_size):
        place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size)}
        place |= {"LOCAL_WORLD_SIZE": str(world_size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        environment = {**os.environ, **place, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
        processes.append(subprocess.Popen([sys.executable, str(HERE / script), *words], env=environment))
    try:
        assert [process.wait(timeout=180) for process in processes] == [0] * world_size
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.wait()


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_stay_identical_and_train_as_one_process_does(tmp_path: Path, world_size: int) -> None:
    run_ranks("rank_parts.py", world_size, str(tmp_path))
    sums = [json.loads((tmp_path / f"weights_{rank}.json").read_text()) for rank in range(world_size)]
    assert all(found == sums[0] for found in sums)
    alone = tiny_trainer(tmp_path / "alone", device_batch_size=4 // world_size, masked_every=3)
    alone.fit()
    alone.validate()
    alone.close()
    assert losses(tmp_path / "run") == pytest.approx(losses(tmp_path / "alone"), rel=1e-5)
    assert alone.last_validation is not None
    assert sums[0]["validation"] == pytest.approx(alone.last_validation.bpb, rel=1e-5)


def test_alone_without_an_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert rank_and_world_size() == (0, 1)


def test_reads_torchruns_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert rank_and_world_size() == (2, 4)


@pytest.mark.parametrize(("rank", "world_size"), [("4", "4"), ("x", "4"), ("-1", "4")])
def test_an_environment_that_cannot_be_is_refused(monkeypatch: pytest.MonkeyPatch, rank: str, world_size: str) -> None:
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", world_size)
    with pytest.raises(ValueError, match="environment variable RANK"):
        rank_and_world_size()


def test_cores_are_shared_and_the_users_number_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nanofast.distributed.available_cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert share_cores("cpu", 1) == Threads(8, 1, "8 cores for this process")
    assert share_cores("cpu", 4).torch == 2
    assert share_cores("cuda", 2) == Threads(1, 3, "4 cores for this process, 2 processes here")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert share_cores("cpu", 4).torch == 3
    assert "OMP_NUM_THREADS=3" in share_cores("cpu", 4).reason


def test_cores_are_those_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3, 5}, raising=False)
    assert available_cores() == 2
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert available_cores() == 1
