"""Every Python block of README and of the guides runs as it stands, those of one page one after the other."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nanofast
from nanofast.batch_loader import BatchLoader
from shards import random_texts, write_shards

ROOT = Path(__file__).parents[2]
FOLDERS = ("python", "examples", "tests", "benches", "scripts")
FILES = {path.name for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")}
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the pages name: folders of shards, conversations, token files."""
    folder = tmp_path_factory.mktemp("pages")
    for seed, name in enumerate(("shards", "web", "code")):
        (folder / name).mkdir()
        write_shards(folder / name, random_texts(seed, [[100] * 8] * 3, longest=200))
    said = [{"role": "user", "content": "What is two and two?"}, {"role": "assistant", "content": "Four."}]
    for name in ("chats.jsonl", "identity.jsonl"):
        lines = "".join(json.dumps({"messages": said}) + "\n" for _ in range(50))
        (folder / name).write_text(lines, encoding="utf-8")
    nanofast.Tokenizer.from_name("r50k_base").save(folder / "tokenizer.json")
    (folder / "fineweb10B").mkdir()
    for index in range(2):
        np.arange(1 << 17, dtype=np.uint16).tofile(folder / "fineweb10B" / f"part_{index}.bin")
    return folder


def model(inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return (inputs.float().sum() + targets.sum()) * torch.ones(1, requires_grad=True).sum()


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: page.name)
def test_blocks_run(page: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(data)
    names: dict[str, Any] = {"model": model}
    for number, block in enumerate(blocks(page)):
        source = block if torch.cuda.is_available() else block.replace('device="cuda"', 'device="cpu"')
        exec(compile(source.replace("range(1000)", "range(20)"), f"{page.name}, block {number}", "exec"), names)
    for value in names.values():
        if isinstance(value, BatchLoader):
            value.close()


def test_pages_name_files_and_commands_that_are_there() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
            assert (page.parent / target).exists(), f"{page.name} links {target}"
        for module in re.findall(r"-m (nanofast(?:\.\w+)+)", text):
            path = ROOT / "python" / Path(*module.split("."))
            assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), f"{page.name} runs {module}"
        for name in re.findall(r"`(\w+\.py)`", text):
            assert name in FILES, f"{page.name} names {name}"


def test_figures_of_readme_are_in_the_results_that_it_names() -> None:
    section = PAGES[0].read_text(encoding="utf-8").split("## How fast\n")[1].split("\n## ")[0]
    named = re.findall(r"\]\((benches/results/[^)]+)\)", section)
    assert named
    measured = "".join((ROOT / name).read_text(encoding="utf-8") for name in named)
    figures = set(re.findall(r"(?<![\w.,+/-])\d[\d.,]*\d(?![\w/-])", section))
    assert len(figures) > 10
    found = set(re.findall(r"(?<![\d.,])\d[\d.,]*\d", measured))
    assert figures <= found, f"measured nowhere: {sorted(figures - found)}"
