"""ARCHITECTURE.md names every module there is, and none that is not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from layers import LEVELS

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "ARCHITECTURE.md").read_text("utf-8")


def named(section: str) -> set[str]:
    """The modules in the first column of a section's table."""
    text = PAGE.split(f"## {section}")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    return {name.rstrip("/") for row in rows for name in re.findall(r"`([\w/]+)`", row)}


def test_rust_modules_are_those_of_the_page():
    files = (ROOT / "rust" / "src").iterdir()
    there = {path.stem for path in files if path.is_dir() or path.suffix == ".rs"} - {"lib"}
    assert named("Rust") == there
    assert there <= LEVELS.keys()


def test_python_modules_are_those_of_the_page():
    folder = ROOT / "python" / "nanofast"
    there = {path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.py")}
    assert named("Python") == {name for name in there if not name.endswith(("__init__", "__main__"))}


@pytest.mark.parametrize("module", sorted(set(re.findall(r"`([\w/]+\.(?:py|md))`", PAGE))))
def test_files_that_the_page_names_exist(module: str):
    assert (ROOT / module).exists()
