"""Trackers: what is sent, and that none of them can stop a run."""

from __future__ import annotations

import csv
import logging
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from nanofast.runlog import RunLog
from nanofast.tracking import Tracker


class FakeRun:
    """Takes what W&B would; fails at step 3."""

    def __init__(self) -> None:
        self.logged: list[tuple[dict[str, float], int]] = []
        self.is_finished = False

    def log(self, figures: dict[str, float], step: int) -> None:
        if step == 3:
            raise ConnectionError("no network")
        self.logged.append((figures, step))

    def finish(self) -> None:
        self.is_finished = True


@pytest.fixture
def fake_wandb(monkeypatch: pytest.MonkeyPatch) -> FakeRun:
    run, module = FakeRun(), types.ModuleType("wandb")
    module.init = lambda **_: run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", module)
    return run


def test_numbers_of_steps_and_validations_are_sent(fake_wandb: FakeRun, tmp_path: Path) -> None:
    tracker = Tracker("wandb", tmp_path, {})
    tracker.write("step", {"step": 1, "loss": 8.5, "skipped": None, "spike": False, "phase_seconds": {"data": 1.0}})
    tracker.write("validation", {"step": 1, "bpb": 2.5})
    tracker.write("ledger", {"step": 1, "read": 3})
    tracker.close()
    assert fake_wandb.logged == [({"train/loss": 8.5}, 1), ({"validation/bpb": 2.5}, 1)]
    assert fake_wandb.is_finished


def test_a_tracker_that_fails_is_told_once_and_left_alone(
    fake_wandb: FakeRun, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = Tracker("wandb", tmp_path, {})
    with caplog.at_level(logging.WARNING, "nanofast"):
        for step in (3, 4):
            tracker.write("step", {"step": step, "loss": 1.0})
    assert fake_wandb.logged == []
    assert [record.getMessage() for record in caplog.records] == [
        "tracking by wandb ends here: ConnectionError: no network"
    ]
    tracker.close()


def test_one_that_is_not_installed_does_not_stop_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    missing: Any = None
    monkeypatch.setitem(sys.modules, "wandb", missing)
    tracker = Tracker("wandb", tmp_path, {})
    tracker.write("step", {"step": 1, "loss": 1.0})
    tracker.close()
    assert "tracking by wandb ends here" in caplog.text


def test_steps_are_a_table_too(tmp_path: Path) -> None:
    for first in (1, 3):  # a resumed run goes on with the same table
        log = RunLog(tmp_path)
        for step in (first, first + 1):
            log.write("step", step=step, loss=2.5, phase_seconds={"data": 0.1})
        log.write("validation", step=first, bpb=1.0)
        log.close()
    with (tmp_path / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["step"], row["loss"]) for row in rows] == [(str(step), "2.5") for step in (1, 2, 3, 4)]
