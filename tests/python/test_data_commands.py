"""What all data commands have: help with an example, JSON for scripts, mistakes in one line with exit code 2."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from commands import data_command
from nanofast.data.__main__ import COMMANDS
from shards import write_shards


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example_and_json_is_for_scripts(command: str):
    done = data_command(command, "--help")
    assert done.returncode == 0
    assert f"example: python -m nanofast.data {command} " in " ".join(done.stdout.split())
    assert "--json" in done.stdout
    done = data_command(command, "--no-such-flag")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("module", ["data", "report"])
def test_a_reader_that_goes_away_is_no_mistake(module: str):
    code = (
        "import sys\n"
        "from nanofast.command import exit_code\n"
        "from nanofast.data import __main__, inspect\n"
        "def much(*_): print('a line\\n' * 100_000); return 0\n"
        "inspect.run = much\n"
        "sys.argv = ['data', 'inspect', 'x']\n"
        "sys.exit(__main__.main() if sys.stdin.read() == 'data' else exit_code(much))\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdin is not None
        process.stdin.write(module)
        process.stdin.close()
        assert process.stdout.readline() == "a line\n"
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(60) == 128 + 13


def test_an_unknown_command_is_one_line():
    done = data_command("devour")
    assert done.returncode == 2
    assert "devour" in done.stderr
    assert done.stderr.count("\n") == 1


def test_bench_says_how_fast_and_for_which_model(tmp_path: Path):
    write_shards(tmp_path, [[["some words of a document " * 20] * 50]])
    words = [tmp_path, "--tokenizer", "r50k_base", "--seconds", 0.2, "--batch-size", 2, "--sequence-length", 64]
    done = data_command("bench", *words, "--threads", 1, "--json", "--gpu", "A100", "--mfu", 0.5, "--num-gpus", 2)
    assert done.returncode == 0, done.stderr
    (rate,) = json.loads(done.stdout)
    assert rate["num_threads"] == 1
    assert rate["bottleneck"] in ("read", "decode", "tokenize", "pack")
    assert rate["tokens_per_second"] > 0
    # 2 GPUs at half of 312 TFLOP/s, 6 FLOP for each parameter and token
    assert rate["enough_for_parameters"] == pytest.approx(2 * 0.5 * 312e12 / 6 / rate["tokens_per_second"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--gpu", "H101", "--tokenizer", "r50k_base"], "--gpu H101 is not known; one of: "),
        (["--seconds", 0, "--tokenizer", "r50k_base"], "argument --seconds: expected a number above 0"),
        ([], "text needs a tokenizer"),
    ],
)
def test_mistakes_of_bench_are_one_line(tmp_path: Path, words: list[object], message: str):
    write_shards(tmp_path, [[["text"] * 20]])
    done = data_command("bench", tmp_path, *words)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
