"""The loader at home in other people's loops: each example runs with the real library, and goes on where it stopped."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import nanofast
from shards import random_texts, write_shards

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("shards")
    write_shards(folder, random_texts(0, [[50] * 8] * 2))
    return str(folder)


def example(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module(name)


@pytest.mark.filterwarnings("default")  # theirs are not ours to mend
def test_lightning(data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lightning", reason="pip install lightning")
    main = example("lightning_loop", monkeypatch).main
    whole = main(data, str(tmp_path / "whole"), 6)
    assert main(data, str(tmp_path / "parts"), 2) + main(data, str(tmp_path / "parts"), 4) == whole


@pytest.mark.filterwarnings("default")
def test_huggingface_trainer(data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("accelerate", reason="pip install accelerate")
    main = example("huggingface_trainer", monkeypatch).main
    whole = main(data, str(tmp_path / "whole"), 4)
    main(data, str(tmp_path / "parts"), 2)
    resumed = main(data, str(tmp_path / "parts"), 2)
    # The Trainer's schedule knows the number of steps, so only what the first of them sees is comparable.
    assert len(resumed) == len(whole) == 4
    assert resumed[2] == pytest.approx(whole[2], rel=1e-3)


def test_jax(data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("jax", reason="pip install jax")
    main = example("jax_loop", monkeypatch).main
    losses, whole = main(data, 6)
    first, state = main(data, 2)
    _, state = main(data, 4, state)
    assert first == losses[:2]
    assert losses[-1] < losses[0]
    assert state == whole


def test_torchrun(data: str, tmp_path: Path) -> None:
    import torch

    def run(num_ranks: int, checkpoint: Path, steps: int) -> list[str]:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_ranks}"]
        words = [*command, str(EXAMPLES / "ddp.py"), data, str(checkpoint), str(steps)]
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=200)
        assert done.returncode == 0, done.stderr
        return re.findall(r"batches seen \d+", done.stdout)

    checkpoint = tmp_path / "checkpoint.pt"
    assert run(2, checkpoint, 1) + run(1, checkpoint, 1) == ["batches seen 8", "batches seen 16"]
    tokenizer = nanofast.Tokenizer.from_name("r50k_base")
    with nanofast.TokenLoader(data, tokenizer, 4, 64, lanes=8) as alone:
        for _ in range(16):
            next(alone)
        assert torch.load(checkpoint, weights_only=True)["loader"]["lanes"] == alone.state_dict()["lanes"]


@pytest.mark.filterwarnings("default")
@pytest.mark.timeout(600)
def test_ray_train(data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two workers, then one worker that goes on: the batches and the loader's state are those of one loader."""
    import torch

    pytest.importorskip("ray.train", reason="pip install 'ray[train]'")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(EXAMPLES), *sys.path]))  # of Ray's workers

    def run(num_workers: int, steps: int) -> int:
        command = [sys.executable, str(EXAMPLES / "ray_train.py"), data, str(tmp_path), str(steps), str(num_workers)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
        assert done.returncode == 0, done.stderr
        return int(re.findall(r"'batches_seen': (\d+)", done.stdout)[-1])

    assert (run(2, 1), run(1, 2)) == (8, 24)
    [*_, newest] = sorted(tmp_path.rglob("checkpoint.pt"), key=lambda path: path.stat().st_mtime)
    tokenizer = nanofast.Tokenizer.from_name("r50k_base")
    with nanofast.TokenLoader(data, tokenizer, 4, 64, lanes=8) as alone:
        for _ in range(24):
            next(alone)
        assert torch.load(newest, weights_only=True)["loader"]["lanes"] == alone.state_dict()["lanes"]
