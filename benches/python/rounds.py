"""Runs contenders in processes of their own, in turns, so that a machine that drifts drifts for all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from contenders import Task
from entries import ENTRIES

HERE = Path(__file__).resolve().parent
TESTS = HERE.parents[1] / "tests" / "python"
# Guards against a hang only: some twenty times what the slowest contender takes.
TIMEOUT_SECONDS = 900


@dataclass
class Samples:
    """What the rounds of one contender at one number of threads gave, in order of rounds."""

    task: Task
    setup_seconds: list[float] = field(default_factory=list)
    cold: list[dict[str, float]] = field(default_factory=list)
    warm: list[dict[str, float]] = field(default_factory=list)
    stages: list[dict[str, float]] = field(default_factory=list)

    def add(self, report: dict[str, Any]) -> None:
        first, *later = report["passes"]
        self.setup_seconds.append(report["setup_seconds"])
        self.cold.append(first)
        self.warm.extend(later)
        self.stages.append(report["stages"])


def environment_of(task: Task) -> dict[str, str]:
    """What a contender's process finds: the tests' modules, and as many threads as it is given."""
    threads = str(task.num_threads)
    paths = [str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "RAYON_NUM_THREADS": threads,
        "OMP_NUM_THREADS": threads,
        "TOKENIZERS_PARALLELISM": "true" if task.num_threads > 1 else "false",
        # datasets keeps what it makes of a builder; nothing is asked of the network.
        "HF_HOME": str(task.folder),
        "HF_HUB_OFFLINE": "1",
    }


def run_process(task: Task, actions: Sequence[str]) -> dict[str, Any]:
    """One fresh process.

    Raises:
        RuntimeError: it failed; with what it said.
    """
    fields = asdict(task)
    fields.update(paths=[str(path) for path in task.paths], folder=str(task.folder))
    command = [sys.executable, str(HERE / "worker.py"), json.dumps(fields), *actions]
    done = subprocess.run(command, env=environment_of(task), capture_output=True, text=True, timeout=TIMEOUT_SECONDS)
    if done.returncode != 0:
        raise RuntimeError(f"{task.contender} ({task.vocabulary}, {task.num_threads} threads) failed:\n{done.stderr}")
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def timed(tasks: Sequence[Task], num_rounds: int, say: Callable[[str], None]) -> list[Samples]:
    """Every task in every round, each time in a fresh process; every other round goes backwards."""
    samples = [Samples(task) for task in tasks]
    for number in range(num_rounds):
        for sample in samples if number % 2 == 0 else reversed(samples):
            task = sample.task
            say(f"round {number + 1} of {num_rounds}: {ENTRIES[task.contender].name}, {task.num_threads} threads")
            sample.add(run_process(task, ["pass", "pass"]))
    return samples


def processor_seconds(process: int) -> float:
    """Of a running process."""
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
