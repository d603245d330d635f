"""`python -m nanofast.doctor`: what it finds is true, and what it advises follows from it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nanofast.doctor import advice, examine


def doctor(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nanofast.doctor", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return examine(tmp_path_factory.mktemp("home"))


def test_facts_are_those_of_this_machine(facts: dict[str, Any], tmp_path: Path) -> None:
    assert facts["cores"]["usable"] == len(os.sched_getaffinity(0))
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    assert all(flag in flags for flag in facts["simd"])
    needed = {"avx512": "avx512_vbmi2", "avx2": "avx2", "neon": "asimd"}
    assert facts["splitter"] == "scalar" or needed[facts["splitter"]] in facts["simd"]
    assert facts["disk"]["read_mb_per_second"] > 0
    assert list(Path(facts["disk"]["folder"]).iterdir()) == []


def test_json_and_text_say_the_same(tmp_path: Path) -> None:
    found = json.loads(doctor("--json", "--home", str(tmp_path)).stdout)
    text = doctor("--home", str(tmp_path / "not" / "there")).stdout
    assert found["cpu"] in text
    assert f"torch {found['versions']['torch']}" in text
    assert str(tmp_path) in text
    assert not (tmp_path / "not").exists()
    mistake = doctor("--hom", "x")
    assert (mistake.returncode, mistake.stderr.count("\n")) == (2, 1)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({}, None),
        ({"debug_build": True}, "maturin develop --release"),
        (
            {"cores": {"all": 64, "usable": 64, "quota": 3.5}, "omp_num_threads": "3"},
            "OMP_NUM_THREADS=3 and num_threads=3",
        ),
        ({"omp_num_threads": "1"}, "unset it"),
        ({"splitter": "scalar"}, "no AVX2"),
        ({"splitter": "neon"}, None),
        ({"gpus": [{"name": "X", "memory_bytes": 1}], "pinned_memory": False}, "ulimit -l"),
        ({"disk": {"folder": "/x", "error": "read-only file system", "free_bytes": None}}, "set NANOFAST_HOME"),
        ({"disk": {"folder": "/x", "error": None, "free_bytes": 1 << 40, "read_mb_per_second": 9.0}}, "reads 9 MB/s"),
        ({"disk": {"folder": "/x", "error": None, "free_bytes": 1, "read_mb_per_second": 900.0}}, "GB left"),
    ],
)
def test_advice_follows_from_the_facts(changed: dict[str, Any], words: str | None) -> None:
    healthy = {
        "debug_build": False,
        "cores": {"all": 8, "usable": 8, "quota": None},
        "omp_num_threads": None,
        "splitter": "avx2",
        "gpus": [],
        "pinned_memory": None,
        "disk": {"folder": "/x", "error": None, "free_bytes": 1 << 40, "read_mb_per_second": 900.0},
    }
    found = advice({**healthy, **changed})
    assert ([] if words is None else [words]) == [words for line in found if words and words in line]
    assert len(found) == (0 if words is None else 1)


def test_a_folder_that_cannot_be_written_is_told() -> None:
    found = examine(Path("/proc"))
    assert found["disk"]["error"]
    assert any("set NANOFAST_HOME" in line for line in advice(found))
