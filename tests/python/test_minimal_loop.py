"""The example runs as it stands, and learns."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "minimal_loop.py"


def test_minimal_loop_learns_and_stays_short(
    sample_corpus: tuple[Path, Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) < 60
    specification = importlib.util.spec_from_file_location("minimal_loop", EXAMPLE)
    assert specification is not None
    assert specification.loader is not None
    example = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(example)
    homes: list[Path] = []

    def made(home: Path) -> tuple[Path, Path]:
        homes.append(home)
        return sample_corpus

    monkeypatch.setattr(example, "ensure_sample", made)
    monkeypatch.setenv("NANOFAST_HOME", str(tmp_path))
    losses = example.main(steps=12)
    assert homes == [tmp_path]
    assert len(losses) == 12
    assert losses[-1] < losses[0] - 0.5
    assert "step 12: loss" in capsys.readouterr().out
