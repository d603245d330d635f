"""Checkpoints: whole or not there, never chosen when broken, no pickle."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from nanofast import checkpoint
from nanofast.checkpoint import CheckpointError, Snapshot


def snapshot(value: float) -> Snapshot:
    return Snapshot(
        tensors={"model": {"w": torch.full((100,), value)}, "optimizer": {"w/step": torch.tensor(value)}},
        values={"state": {"step": value}, "loader": {"ranks": [{"position": 3}]}},
    )


def test_gives_back_what_was_saved(tmp_path: Path) -> None:
    path = checkpoint.save(snapshot(2.5), tmp_path, 7)
    found = checkpoint.load(path)
    assert path.name == "step_00000007"
    assert torch.equal(found.tensors["model"]["w"], torch.full((100,), 2.5))
    assert found.tensors["optimizer"]["w/step"].item() == 2.5
    assert found.values == {"state": {"step": 2.5}, "loader": {"ranks": [{"position": 3}]}}
    assert [p.name for p in tmp_path.iterdir()] == ["step_00000007"]


def test_holds_nothing_that_unpickles(tmp_path: Path) -> None:
    path = checkpoint.save(snapshot(1), tmp_path, 1)
    assert {p.suffix for p in path.iterdir()} == {".json", ".safetensors"}
    assert not any(b"PK\x03\x04" in p.read_bytes() or b"\x80\x02" in p.read_bytes()[:2] for p in path.iterdir())


def test_a_second_save_of_a_step_replaces_the_first(tmp_path: Path) -> None:
    checkpoint.save(snapshot(1), tmp_path, 1)
    found = checkpoint.load(checkpoint.save(snapshot(2), tmp_path, 1))
    assert found.values["state"]["step"] == 2


def tear(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def tamper(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors", "state.json", "loader.json"])
@pytest.mark.parametrize(
    ("damage", "reason"), [(tear, "its manifest says"), (tamper, "SHA-256"), (Path.unlink, "is missing")]
)
def test_a_damaged_checkpoint_is_passed_over_with_the_reason(
    file: str, damage: object, reason: str, tmp_path: Path
) -> None:
    old, new = checkpoint.save(snapshot(1), tmp_path, 9), checkpoint.save(snapshot(2), tmp_path, 10)
    assert checkpoint.newest_complete(tmp_path) == (new, [])
    damage(new / file)  # type: ignore[operator]
    found, skipped = checkpoint.newest_complete(tmp_path)
    assert found == old
    assert len(skipped) == 1
    assert file in skipped[0]
    assert reason in skipped[0]
    with pytest.raises(CheckpointError, match=reason):
        checkpoint.load(new)


def test_one_without_a_manifest_or_with_half_of_one_is_passed_over(tmp_path: Path) -> None:
    new = checkpoint.save(snapshot(1), tmp_path, 5)
    tear(new / "manifest.json")
    assert "does not parse" in checkpoint.newest_complete(tmp_path)[1][0]
    (new / "manifest.json").unlink()
    found, skipped = checkpoint.newest_complete(tmp_path)
    assert found is None
    assert "has no manifest.json" in skipped[0]


def test_another_format_version_is_refused_by_number(tmp_path: Path) -> None:
    path = checkpoint.save(snapshot(1), tmp_path, 5)
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps({**manifest, "format_version": 99}))
    with pytest.raises(CheckpointError, match="format version 99; this nanofast reads version 1"):
        checkpoint.load(path)


def test_a_save_that_was_killed_is_told_and_cleaned_up_by_the_next(tmp_path: Path) -> None:
    old = checkpoint.save(snapshot(1), tmp_path, 1)
    aside = tmp_path / ".writing-step_00000002"
    aside.mkdir()
    (aside / "model.safetensors").write_bytes(b"half")
    found, skipped = checkpoint.newest_complete(tmp_path)
    assert found == old
    assert "was never finished" in skipped[0]
    checkpoint.save(snapshot(3), tmp_path, 3)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step_00000001", "step_00000003"]


def test_a_save_that_fails_leaves_the_old_ones_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = checkpoint.save(snapshot(1), tmp_path, 1)

    def full(*_: object) -> None:
        raise RuntimeError("No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match="No space left on device"):
        checkpoint.save(snapshot(2), tmp_path, 2)
    assert list(tmp_path.iterdir()) == [old]
    assert checkpoint.newest_complete(tmp_path) == (old, [])


@pytest.mark.parametrize(
    ("keep_last", "keep_every", "kept"),
    [(0, 0, [5, 10, 15, 20, 25]), (1, 0, [25]), (2, 0, [20, 25]), (1, 10, [10, 20, 25]), (9, 0, [5, 10, 15, 20, 25])],
)
def test_retention_keeps_the_newest_and_the_multiples(
    tmp_path: Path, keep_last: int, keep_every: int, kept: list[int]
) -> None:
    for step in (5, 10, 15, 20, 25):
        checkpoint.save(snapshot(1), tmp_path, step)
    checkpoint.retain(tmp_path, 25, keep_last, keep_every)
    assert sorted(checkpoint.step_of(p) for p in tmp_path.iterdir()) == kept


def test_retention_never_deletes_what_was_just_written(tmp_path: Path) -> None:
    for step in (200, 300, 400, 100):
        checkpoint.save(snapshot(1), tmp_path, step)
    assert checkpoint.retain(tmp_path, 100, 3, 0) == []
    assert sorted(checkpoint.step_of(p) for p in tmp_path.iterdir()) == [100, 200, 300, 400]


def test_going_back_sets_later_steps_aside_and_keeps_their_content(tmp_path: Path) -> None:
    for attempt in (1.0, 2.0):
        for step in (100, 200, 300):
            checkpoint.save(snapshot(attempt * step), tmp_path, step)
        moved = checkpoint.set_aside_after(tmp_path, 100)
        assert [path.name for path in moved] == ["abandoned-step_00000200", "abandoned-step_00000300"]
        assert checkpoint.load(moved[1]).values["state"]["step"] == attempt * 300
        assert checkpoint.newest_complete(tmp_path) == (tmp_path / "step_00000100", [])


def test_newest_is_by_step_not_by_date(tmp_path: Path) -> None:
    newest = checkpoint.save(snapshot(1), tmp_path, 100)
    checkpoint.save(snapshot(1), tmp_path, 20)
    assert checkpoint.newest_complete(tmp_path)[0] == newest


def test_a_folder_that_is_not_there_holds_none(tmp_path: Path) -> None:
    assert checkpoint.newest_complete(tmp_path / "none") == (None, [])
