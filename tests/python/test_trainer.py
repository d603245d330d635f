"""The loop: accumulation, normalisation, resume, signals, golden losses."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from nanofast import checkpoint
from nanofast.journal import is_spike
from nanofast.memory import is_out_of_memory
from nanofast.model import IGNORED
from nanofast.runlog import RunLog, read_log
from nanofast.trainer import DivergedError, Trainer
from trainer_parts import losses, tiny_trainer

HERE = Path(__file__).parent
GOLDEN = HERE / "golden" / "tiny_losses.txt"


def weights(trainer: Trainer) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


def stepped(run_dir: Path, steps: int = 1, **settings: Any) -> Trainer:
    trainer = tiny_trainer(run_dir, **settings)
    for _ in range(steps):
        trainer.train_step()
    trainer.flush()
    trainer.close()
    return trainer


@pytest.mark.parametrize("masked_every", [0, 3])
def test_accumulated_micro_batches_equal_one_big_batch(tmp_path: Path, masked_every: int) -> None:
    """With masked rows too, where means of micro-batches would weigh them wrongly."""
    one = stepped(tmp_path / "one", steps=3, device_batch_size=8, masked_every=masked_every)
    many = stepped(tmp_path / "many", steps=3, device_batch_size=1, masked_every=masked_every)
    assert (one.accumulation_steps, many.accumulation_steps) == (1, 8)
    assert losses(tmp_path / "one") == pytest.approx(losses(tmp_path / "many"), rel=1e-5)
    torch.testing.assert_close(weights(one), weights(many), atol=2e-4, rtol=1e-3)


def test_the_gradient_is_that_of_the_mean_over_valid_targets(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, device_batch_size=2, masked_every=3)
    twin = tiny_trainer(tmp_path / "twin", device_batch_size=8, masked_every=3)
    inputs, targets = next(twin.loader)
    (twin.model.loss(inputs, targets)[0] / (targets != IGNORED).sum()).backward()
    expected = torch.linalg.vector_norm(
        torch.stack([p.grad.norm() for p in twin.model.parameters() if p.grad is not None])
    )
    trainer.train_step()
    assert trainer.journal._pending[0].grad_norm.item() == pytest.approx(expected.item(), rel=1e-4)
    trainer.close()
    twin.close()


def test_logged_loss_is_the_mean_over_the_whole_step(tmp_path: Path) -> None:
    trainer, twin = tiny_trainer(tmp_path / "a", device_batch_size=1), tiny_trainer(tmp_path / "b", device_batch_size=8)
    inputs, targets = next(twin.loader)
    expected = twin.model.loss(inputs, targets)[1].mean().item()
    trainer.train_step()
    trainer.flush()
    assert losses(tmp_path / "a") == pytest.approx([expected], rel=1e-6)
    trainer.close()
    twin.close()


def test_what_was_left_out_is_told_when_there_is_more_of_it(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path)
    page = {"file": "a.parquet", "row_group": 0, "rows": (5, 8), "reason": "checksum"}
    parts = [[], [page], [page], [page, {"file": "b.parquet", "reason": "no footer"}]]
    metrics = iter([{"ledger": {}, "quarantine": found} for found in parts])
    trainer.loader.metrics = lambda: next(metrics)
    for _ in parts:
        trainer._write_ledger()
    trainer.close()
    log = read_log(tmp_path)
    assert [len(entry["parts"]) for entry in log if entry["kind"] == "quarantine"] == [1, 2]
    told = [entry["message"] for entry in log if entry["kind"] == "event"]
    assert told == [f"left out as bad data so far: 3 rows and {files} whole files" for files in (0, 1)]
    assert all("quarantine" not in entry["loader"] for entry in log if entry["kind"] == "ledger")


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, num_iterations=40)
    assert trainer.fit() == "finished"
    trainer.close()
    found = losses(tmp_path)
    assert len(found) == 40
    assert found[0] == pytest.approx(math.log(257), abs=0.05)
    assert sum(found[-5:]) / 5 < 3.2


def test_golden_losses_of_a_seeded_run(tmp_path: Path) -> None:
    """A change here is a change of what is trained: look at the diff. Tolerance: other CPUs sum in another order."""
    trainer = tiny_trainer(tmp_path, num_iterations=12)
    trainer.fit()
    trainer.close()
    found = losses(tmp_path)
    if os.environ.get("NANOFAST_WRITE_GOLDEN"):
        GOLDEN.write_text("".join(f"{loss:.6f}\n" for loss in found))
    assert found == pytest.approx([float(line) for line in GOLDEN.read_text().split()], rel=1e-3)


def run_process(*words: str) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, str(HERE / "trainer_parts.py"), *words], check=True, env=environment, timeout=120)


def test_k_steps_then_resume_equals_one_run_bit_for_bit_in_new_processes(tmp_path: Path) -> None:
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    run_process(str(straight), "6")
    shutil.copytree(straight, broken)
    (later,) = (broken / "checkpoints").glob("step_00000006")
    for file in later.iterdir():  # as if the process had died after step 3
        file.unlink()
    run_process(str(broken), "6", "resume")
    assert [loss.hex() for loss in losses(straight)] == [loss.hex() for loss in losses(broken)]
    a, b = (checkpoint.load(run / "checkpoints" / "step_00000006") for run in (straight, broken))
    for file in ("model", "optimizer"):
        assert a.tensors[file].keys() == b.tensors[file].keys()
        assert all(torch.equal(a.tensors[file][name], b.tensors[file][name]) for name in a.tensors[file])
    assert a.values["loader"] == b.values["loader"]
    for values in (a.values, b.values):
        values["state"]["counters"].pop("total_seconds")
    assert a.values["state"]["counters"] == b.values["state"]["counters"]


def test_looking_at_the_model_does_not_change_its_training(tmp_path: Path) -> None:
    plain, looked_at = (
        tiny_trainer(tmp_path / "plain", num_iterations=4),
        tiny_trainer(tmp_path / "looked", num_iterations=4),
    )
    for _ in range(4):
        plain.train_step()
        looked_at.train_step()
        looked_at.validate()
        looked_at.sample()
        looked_at.save()
    assert torch.equal(weights(plain), weights(looked_at))
    plain.close()
    looked_at.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_finishes_the_step_saves_and_stops(tmp_path: Path, number: signal.Signals) -> None:
    trainer = tiny_trainer(tmp_path, num_iterations=1000)
    fetch = trainer.loader.__next__
    sent = []

    def signalled() -> Any:
        if trainer.counters.step == 2 and not sent:
            sent.append(number)
            os.kill(os.getpid(), number)
        return fetch()

    trainer.loader = SignallingLoader(trainer.loader, signalled)
    assert trainer.fit() == "interrupted"
    trainer.close()
    assert trainer.stop.signal_number == number
    assert checkpoint.newest_complete(tmp_path / "checkpoints")[0] == tmp_path / "checkpoints" / "step_00000003"
    assert [e["step"] for e in read_log(tmp_path) if e["kind"] == "step"] == [1, 2, 3]
    assert read_log(tmp_path)[-1]["reason"] == "interrupted"
    assert signal.getsignal(number) != trainer.stop._handle


class SignallingLoader:
    """The stand-in with another `next`."""

    def __init__(self, loader: Any, fetch: Any) -> None:
        self._loader, self._fetch = loader, fetch

    def __next__(self) -> Any:
        return self._fetch()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)


def test_saves_before_it_evaluates_and_survives_a_failing_evaluation(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, num_iterations=2, save_every=0)

    def broken() -> Any:
        raise RuntimeError("out of memory")

    trainer.open_validation = broken
    trainer._due = lambda every: trainer.counters.step == 2  # type: ignore[method-assign]
    assert trainer.fit() == "finished"
    trainer.close()
    kinds = [(e["kind"], e.get("message", "")) for e in read_log(tmp_path)]
    assert ("event", "validation at step 2 failed: out of memory; training goes on") in kinds
    names = [kind for kind, _ in kinds]
    assert names.index("checkpoint") < names.index("event")


def test_a_disk_that_refuses_is_told_and_training_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = tiny_trainer(tmp_path, num_iterations=4, save_every=2)
    save, calls = checkpoint.save, []

    def refuse_first(*arguments: Any) -> Path:
        calls.append(arguments)
        if len(calls) == 1:
            raise OSError(28, "No space left on device")
        return save(*arguments)

    monkeypatch.setattr(checkpoint, "save", refuse_first)
    assert trainer.fit() == "finished"
    trainer.close()
    assert [e for e in read_log(tmp_path) if e["kind"] == "event" and "No space left" in e["message"]]
    assert checkpoint.newest_complete(tmp_path / "checkpoints")[0] == tmp_path / "checkpoints" / "step_00000004"


def test_a_step_without_a_finite_gradient_is_skipped_in_words(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, num_iterations=4)
    trainer.train_step()
    before = weights(trainer)
    hook = trainer.model.head.weight.register_hook(lambda gradient: gradient * math.nan)
    trainer.train_step()
    trainer.flush()
    hook.remove()
    assert torch.equal(weights(trainer), before)
    trainer.train_step()
    trainer.flush()
    trainer.close()
    assert not torch.equal(weights(trainer), before)
    skipped = [e.get("skipped") for e in read_log(tmp_path) if e["kind"] == "step"]
    assert skipped == [None, "its gradient norm is nan", None]
    (event,) = [e["message"] for e in read_log(tmp_path) if e["kind"] == "event"]
    path = tmp_path / "skipped" / "step_00000002_rank_0.jsonl"
    assert event.startswith("step 2 was skipped: its gradient norm is nan; the 8 documents that process 0 had in it")
    assert str(path) in event
    kept = [json.loads(line) for line in path.read_text().splitlines()]
    rows = [trainer.loader.row(number) for number in range(8, 16)]  # two micro-batches of four rows
    assert [entry["text"] for entry in kept] == [bytes(row[1:-1]).decode() for row in rows]
    assert [(entry["batch"], entry["row"]) for entry in kept] == [(i // 4, i % 4) for i in range(8)]
    assert trainer.counters.skipped == 1


def test_a_step_with_nothing_to_learn_is_skipped_and_no_nan(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, num_iterations=4)
    fetch = trainer.loader.__next__
    trainer.loader = SignallingLoader(trainer.loader, lambda: (fetch()[0], torch.full((4, 32), IGNORED)))
    before = weights(trainer)
    trainer.train_step()
    trainer.flush()
    trainer.close()
    assert torch.equal(weights(trainer), before)
    assert [e["skipped"] for e in read_log(tmp_path) if e["kind"] == "step"] == ["no target was to be learned in it"]


def test_stops_after_several_lost_steps_and_names_the_last_good_checkpoint(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, num_iterations=30, save_every=2)
    trainer.model.head.weight.register_hook(lambda g: g * math.nan if trainer.counters.step >= 3 else g)
    with pytest.raises(
        DivergedError, match=r"5 steps in a row .* up to step 8; the last good checkpoint is `.*step_00000002`"
    ):
        trainer.fit()
    trainer.close()


def test_a_loss_far_above_the_last_ones_is_a_spike() -> None:
    usual = [2.0 + 0.01 * (i % 5) for i in range(40)]
    assert is_spike(2.5, usual)
    assert not is_spike(2.05, usual)
    assert not is_spike(9.0, usual[:5])


class Narrow(torch.nn.Module):
    """A model that runs out of memory with more than `most` rows, in the backward pass."""

    is_cut = False

    def __init__(self, model: Any, most: int) -> None:
        super().__init__()
        self.model, self.most = model, most

    def loss(self, inputs: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        loss, losses = self.model.loss(inputs, targets)
        if inputs.size(0) > self.most:
            if not loss.requires_grad:
                raise torch.OutOfMemoryError("out of memory: tried to allocate 2 GiB")
            loss.register_hook(self.fail)
        return loss, losses

    def fail(self, gradient: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("out of memory: tried to allocate 2 GiB")


def test_out_of_memory_splits_the_batch_and_changes_nothing_else(tmp_path: Path) -> None:
    wide = stepped(tmp_path / "wide", steps=3, masked_every=3)
    narrow = tiny_trainer(tmp_path / "narrow", masked_every=3)
    whole, narrow.model = narrow.model, Narrow(narrow.model, 1)  # type: ignore[assignment]
    for _ in range(3):
        narrow.train_step()
    narrow.flush()
    narrow.validate()
    narrow.model = whole
    narrow.close()
    assert narrow.parts.count == 4
    assert losses(tmp_path / "narrow") == pytest.approx(losses(tmp_path / "wide"), rel=1e-5)
    assert narrow.loader.position == wide.loader.position
    told = [e["message"] for e in read_log(tmp_path / "narrow") if e["kind"] == "event"]
    assert len(told) == 2
    assert "in 2 parts: same batches, same order, same loss" in told[0]


def test_out_of_memory_with_a_single_row_is_the_end(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path)
    trainer.model = Narrow(trainer.model, 0)  # type: ignore[assignment]
    with pytest.raises(torch.OutOfMemoryError):
        trainer.train_step()
    trainer.close()


def test_the_cpus_words_for_no_memory_are_known() -> None:
    with pytest.raises(RuntimeError) as error:
        torch.empty(1 << 60)
    assert is_out_of_memory(error.value)
    assert not is_out_of_memory(RuntimeError("shape mismatch"))


def test_a_checkpoint_holds_what_was_there_when_it_was_taken(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path)
    trainer.train_step()
    expected = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    trainer.save()
    trainer.train_step()  # moves the weights while the disk is being written
    trainer.close()
    found = checkpoint.load(tmp_path / "checkpoints" / "step_00000001")
    assert all(torch.equal(found.tensors["model"][name], tensor) for name, tensor in expected.items())


def test_an_error_is_logged_as_the_end(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path)

    def broken() -> Any:
        raise OSError("shard `a.parquet` is gone")

    trainer.loader = SignallingLoader(trainer.loader, broken)
    with pytest.raises(OSError, match="is gone"):
        trainer.fit()
    trainer.close()
    end = read_log(tmp_path)[-1]
    assert (end["kind"], end["reason"]) == ("end", "error")
    assert "shard `a.parquet` is gone" in end["message"]


def test_every_step_has_a_line_with_all_its_fields(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, num_iterations=3)
    trainer.fit()
    trainer.close()
    lines = [e for e in read_log(tmp_path) if e["kind"] == "step"]
    fields = {"loss", "loss_smooth", "bpb", "lr", "grad_norm", "tokens", "targets", "seconds", "phase_seconds"}
    fields |= {"tokens_per_second", "wait_fraction", "memory_bytes", "lr_fraction"}
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert all(fields <= line.keys() for line in lines)
    assert [line["tokens"] for line in lines] == [256, 512, 768]


def test_a_resumed_log_reads_as_one_run(tmp_path: Path) -> None:
    log = RunLog(tmp_path)
    log.write("run", step=0, resumed_from=None)
    for step in (1, 2, 3):
        log.write("step", step=step, loss=float(step))
    log.write("end", step=3)
    log.close()
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"kind": "step", "step": 4, "lo')  # killed while writing
    log = RunLog(tmp_path)
    log.write("run", step=2, resumed_from="step_2")
    log.write("step", step=3, loss=math.nan)
    log.close()
    found = [(e["kind"], e["step"], e.get("loss")) for e in read_log(tmp_path)]
    assert found == [("run", 0, None), ("step", 1, 1.0), ("step", 2, 2.0), ("run", 2, None), ("step", 3, None)]
