"""A loader killed with SIGKILL at random moments goes on as if it never was: 5 kills, 100 in the long profile."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import nanofast
from conftest import IS_LONG
from killed import SETTINGS
from resumed import following
from shards import random_texts, write_shards

KILLS = 100 if IS_LONG else 5
BATCHES_A_LIFE = 40
HERE = Path(__file__).parent


def live(folder: Path, data: str, count: int, kill: tuple[str, int, float] | None) -> bool:
    """One life; whether it ended by itself. `kill`: what to wait for in its output, how often, how long then."""
    words = [sys.executable, str(HERE / "killed.py"), str(folder), data, str(count)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        said = 0
        for line in process.stdout:
            if kill and line.strip() == kill[0]:
                said += 1
                if said == kill[1]:
                    time.sleep(kill[2])
                    process.kill()
                    break
        return process.wait(timeout=60) == 0


@pytest.mark.timeout(1800)
def test_the_stream_of_a_loader_that_is_killed_again_and_again_is_that_of_one_that_was_not(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    record_property("kills", KILLS)
    [data] = write_shards(tmp_path, random_texts(1, [[100, 60]]))
    count = KILLS * BATCHES_A_LIFE // 2
    with nanofast.TokenLoader(data, nanofast.Tokenizer.from_name("r50k_base"), **SETTINGS) as loader:
        expected = following(loader, count)
    moments = random.Random(3)
    killed_while_writing = 0
    for number in range(KILLS):
        while_writing = number % 5 == 0
        kill = ("writing" if while_writing else "written", moments.randrange(1, BATCHES_A_LIFE), 0.0005)
        if not while_writing:
            kill = (*kill[:2], moments.random() * 0.01)
        live(tmp_path, data, count, kill)
        killed_while_writing += (tmp_path / "state.partial").exists()
    assert live(tmp_path, data, count, None)
    assert killed_while_writing >= KILLS // 10
    seen = [line.split() for line in (tmp_path / "seen").read_text().splitlines() if line.count(" ") == 1]
    whole = {int(number): name for number, name in seen if len(name) == len(expected[0])}
    assert all(name == expected[int(number)] for number, name in seen if len(name) == len(expected[0]))
    assert whole == dict(enumerate(expected))
