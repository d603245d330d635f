"""Checkpoints written on another thread: nothing that goes wrong there ends training or is lost in silence."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nanofast import checkpoint
from nanofast.background import BackgroundWriter
from nanofast.checkpoint import Snapshot


def snapshot(value: float) -> Snapshot:
    return Snapshot(tensors={"model": {"w": torch.ones(3)}}, values={"state": {"loss": value}})


def test_whatever_fails_is_told_and_the_next_checkpoint_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = BackgroundWriter(tmp_path, keep_last=3, keep_every=0)
    try:
        writer.submit(snapshot(float("inf")), 1)  # JSON has no infinity
        (failed,) = writer.wait()
        assert failed.step == 1
        assert failed.error is not None
        assert failed.error.startswith("ValueError: ")
        writer.submit(snapshot(2.0), 2)
        (written,) = writer.wait()
        assert written.error is None
        assert checkpoint.newest_complete(tmp_path) == (written.path, [])
    finally:
        writer.close()


def test_a_checkpoint_counts_as_written_where_older_ones_cannot_be_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(30, "Read-only file system", "step_1")

    monkeypatch.setattr(checkpoint, "retain", refuse)
    writer = BackgroundWriter(tmp_path, keep_last=1, keep_every=0)
    try:
        writer.submit(snapshot(1.0), 1)
        (written,) = writer.wait()
        assert written.error is None
        assert written.bytes > 0
        assert written.kept is not None
        assert "Read-only" in written.kept
    finally:
        writer.close()


def test_tensors_may_change_once_submitted(tmp_path: Path) -> None:
    writer = BackgroundWriter(tmp_path, keep_last=3, keep_every=0)
    try:
        given = snapshot(1.0)
        writer.submit(given, 1)
        given.tensors["model"]["w"].zero_()
        (written,) = writer.wait()
        assert torch.equal(checkpoint.load(written.path).tensors["model"]["w"], torch.ones(3))
    finally:
        writer.close()
