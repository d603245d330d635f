"""Commands on URLs: what reads them reads what lies in files, and the others say what to do instead."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import nanofast
from commands import data_command
from nanofast.config import Config, RunSettings
from nanofast.derive import derive
from range_server import RangeServer
from shards import random_texts, write_shards


def test_tokens_of_a_url_are_those_of_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NANOFAST_HOME", str(tmp_path / "home"))
    (tmp_path / "shards").mkdir()
    write_shards(tmp_path / "shards", random_texts(5, [[60] * 2] * 2))
    with RangeServer(tmp_path) as server:
        for data, out in ((tmp_path / "shards", "here.bin"), (f"{server.url}/shards/", "there.bin")):
            done = data_command("tokenize", data, tmp_path / out, "--tokenizer", "r50k_base")
            assert done.returncode == 0, done.stderr
    assert (tmp_path / "there.bin").read_bytes() == (tmp_path / "here.bin").read_bytes()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["data", "inspect", "https://me:word@host/a.jsonl.gz"],
            "`https://host/a.jsonl.gz` is no parquet; fetch it and",
        ),
        (["data", "inspect", "s3://shelf/a.bin"], "token files are read from this machine's disks alone: fetch them"),
        (["data", "tokenize", "s3://shelf/a", "s3://shelf/b.bin", "--tokenizer=r50k_base"], "name a path of this"),
        (["data", "prepare", "https://host/a.txt", "out"], "input `https://host/a.txt` is a URL; fetch it first"),
        (["data", "prepare", "a.txt", "gs://shelf/out"], "OUT: path `gs://shelf/out` is a URL; name a path of"),
        (["data", "prepare", "a.txt", "https://me:word@host/out?sig=word"], "OUT: path `https://host/out` is a URL;"),
        (["data", "train-tokenizer", "az://shelf/a", "--vocab-size=300", "--out=b.json"], "is a URL; fetch it first"),
        (["data", "train-tokenizer", "a.txt", "--vocab-size=300", "--out=s3://shelf/b.json"], "name a path of this"),
        (
            ["data", "inspect", "a.parquet", "--html=s3://shelf/page.html"],
            "--html: path `s3://shelf/page.html` is a URL",
        ),
        (["data", "download", "fineweb-edu", "--to", "gs://shelf/data"], "--to: path `gs://shelf/data` is a URL"),
        (["data", "locate", "run", "--step=1", "--home=az://shelf/home"], "--home: path `az://shelf/home` is a URL"),
        (["bench", "--out=s3://shelf/page"], "--out: path `s3://shelf/page` is a URL"),
        (["report", "s3://shelf/run"], "run: path `s3://shelf/run` is a URL"),
        (["bench", "hf://datasets/owner/name"], "nanofast.data bench measures URLs"),
    ],
)
def test_what_takes_no_url_says_so_in_a_line(words: list[str], message: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", f"nanofast.{words[0]}", *words[1:]]
    environment = {**os.environ, "NANOFAST_HOME": str(tmp_path / "home"), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert "word" not in done.stderr
    assert not [path for path in tmp_path.iterdir() if path.name != "home"]


def test_classes_and_settings_that_take_no_url_say_so() -> None:
    with pytest.raises(nanofast.InvalidError, match=r"token data `s3://shelf/tokens` is a URL; .*fetch them first"):
        nanofast.TokenFileLoader("s3://shelf/tokens", 2, 8)
    with pytest.raises(nanofast.InvalidError, match="cache_folder `s3://shelf/kept` is a URL"):
        nanofast.Remote("s3://shelf/kept")
    for settings in (RunSettings(run="s3://shelf/run"), RunSettings(home="s3://shelf/run")):
        with pytest.raises(nanofast.InvalidError, match="`s3://shelf/run` is a URL; name a path of this machine"):
            derive(Config(run=settings), world_size=1, device_type="cpu")
