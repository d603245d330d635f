"""Several real processes on this machine, talking through gloo: the same weights on all, the losses of one process."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest

from nanofast import checkpoint
from nanofast.distributed import Threads, available_cores, rank_and_world_size, share_cores
from nanofast.runlog import read_log
from nanofast.trainer import Trainer
from trainer_parts import losses, poison, tiny_trainer

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


def alone(folder: Path, world_size: int, shape: Literal["plain", "nanochat"], poisoned: int) -> Trainer:
    """One process that does what `world_size` of them do."""
    trainer = tiny_trainer(folder, device_batch_size=4 // world_size, masked_every=3, shape=shape)
    poison(trainer, poisoned)
    trainer.fit()
    trainer.validate()
    trainer.close()
    return trainer


def check_ranks(
    folder: Path,
    world_size: int,
    *settings: str,
    sums_of_gradients: int,
    shape: Literal["plain", "nanochat"] = "nanochat",
    poisoned: int = 0,
) -> None:
    """Run ranks; they end as each other and as one process that did their work."""
    words = [f"shape={shape}", *([f"poisoned={poisoned}"] if poisoned else []), *settings]
    run_ranks("rank_parts.py", world_size, str(folder), *words)
    found = [json.loads((folder / f"weights_{rank}.json").read_text()) for rank in range(world_size)]
    assert all(each == found[0] for each in found)
    single = alone(folder / "alone", world_size, shape, poisoned)
    assert losses(folder / "run") == pytest.approx(losses(folder / "alone"), rel=1e-5)
    assert single.last_validation is not None
    assert found[0]["validation"] == pytest.approx(single.last_validation.bpb, rel=1e-5)
    assert single.accumulation_steps == 2 * world_size  # micro-batches of a step: each gradient is sent once in it
    assert sum(count for name, count in found[0]["sent"].items() if "reduce_scatter" in name) == sums_of_gradients


def test_four_ranks_stay_identical_and_train_as_one_process_does(tmp_path: Path) -> None:
    """Their micro-batches are single rows, so that every third of them has no learned target at all."""
    check_ranks(tmp_path, 4, sums_of_gradients=9)  # four shapes of matrices, three tables, two sets of scales


def test_two_ranks_do_too_and_a_step_that_one_of_them_spoils_is_skipped_by_both(tmp_path: Path) -> None:
    check_ranks(tmp_path, 2, shape="plain", poisoned=2, sums_of_gradients=5)  # three shapes, embedding, head
    steps = [entry for entry in read_log(tmp_path / "run") if entry["kind"] == "step"]
    assert [entry["skipped"] for entry in steps] == [None, "its gradient norm is nan", None, None, None, None]
    kept = sorted(path.name for path in (tmp_path / "run" / "skipped").iterdir())
    assert kept == ["step_00000002_rank_0.jsonl", "step_00000002_rank_1.jsonl"]


def test_a_model_cut_over_ranks_trains_as_one_process_does_and_goes_on_in_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And so does what every rank wrote for itself."""
    check_ranks(tmp_path, 2, "parallel=fsdp", "checkpoint_format=sharded", sums_of_gradients=3)  # two blocks, the rest
    folder = tmp_path / "run" / "checkpoints" / "step_00000003"
    assert not list(folder.glob("*.safetensors"))
    trainer = tiny_trainer(tmp_path / "resumed", device_batch_size=4, masked_every=3, shape="nanochat")
    monkeypatch.setattr("nanofast.merge_states", lambda states: states[0])  # the stand-in's need no merging
    trainer.restore(checkpoint.load(folder))
    trainer.fit()
    trainer.close()
    assert losses(tmp_path / "resumed") == pytest.approx(losses(tmp_path / "alone")[3:], rel=1e-5)
    part = next((folder / "shards").glob("*.distcp"))
    part.write_bytes(part.read_bytes()[:-1])
    with pytest.raises(checkpoint.CheckpointError, match="its manifest says"):
        checkpoint.check(folder)


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
    monkeypatch.setenv("OMP_NUM_THREADS", "5,2")  # the first is for regions that lie in no other
    assert share_cores("cpu", 4).torch == 5


def test_cores_are_those_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3, 5}, raising=False)
    assert available_cores() == 2
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert available_cores() == 1
