"""Nothing that a run reads is executed: an audit hook watches a run and its resume."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import nanofast
from shards import random_texts, write_shards

HOOK = """
import os, sys
_file = os.open(os.environ["NANOFAST_AUDIT"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
def _hook(event, arguments):
    if event == "pickle.find_class" or event == "os.system":
        os.write(_file, f"{event} {arguments}\\n".encode())
sys.addaudithook(_hook)
"""


def watched(folder: Path, *words: str) -> str:
    """What the hook saw of a command."""
    (folder / "hook").mkdir(exist_ok=True)
    (folder / "hook" / "sitecustomize.py").write_text(HOOK, encoding="utf-8")
    seen = folder / "seen.txt"
    seen.unlink(missing_ok=True)
    environment = {**os.environ, "NANOFAST_AUDIT": str(seen), "PYTHONPATH": str(folder / "hook")}
    done = subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return seen.read_text(encoding="utf-8")


def test_the_hook_sees_a_pickle(tmp_path: Path) -> None:
    code = "import pickle, collections; pickle.loads(pickle.dumps(collections.Counter()))"
    assert "pickle.find_class ('collections', 'Counter')" in watched(tmp_path, "-c", code)


def test_a_run_and_its_resume_unpickle_nothing(tmp_path: Path) -> None:
    (data := tmp_path / "data").mkdir()
    texts = random_texts(8, [[80], [70], [30]])
    write_shards(data, texts)
    flat = itertools.chain.from_iterable(itertools.chain.from_iterable(texts))
    nanofast.Tokenizer.train(flat, 300).save(tmp_path / "tokenizer.json")
    train = ["-m", "nanofast.train", "--home", str(tmp_path), "--run", "watched"]
    words = ["--depth", "1", "--sequence-length", "32", "--total-batch-size", "256", "--device-batch-size", "4"]
    words += ["--eval-tokens", "64", "--sample-tokens", "4", "--num-iterations", "2", "--save-every", "1"]
    named = ["--data", str(data), "--tokenizer", str(tmp_path / "tokenizer.json")]
    assert watched(tmp_path, *train, *words, *named) == ""
    run = str(tmp_path / "runs" / "watched")
    assert (
        watched(tmp_path, "-m", "nanofast.train", "--home", str(tmp_path), "--resume", run, "--num-iterations", "3")
        == ""
    )
