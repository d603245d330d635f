"""How many conversations a second become batches, beside a plain-Python loop?  `pytest benches/python/bench_chat.py`

Both give the same batches (asserted first), then each is timed in fresh processes that take turns: the first pass of a
process is cold, the later ones warm. Two threads for both; the plain loop is Python and uses one of them. On a busy
machine the clock favours who needs one core alone, so what a second of processor time makes is told as well.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from results import Results, Table, spread

CORPUS = Path(__file__).resolve().parents[3] / "shared" / "data" / "corpus" / "chat"
WORKER = Path(__file__).with_name("chat_worker.py")
CONTENDERS = {"plain": 2, "nanofast one_per_row": 12, "nanofast best_fit": 12}  # passes a process
BATCH_SIZE = 32


def run(contender: str, path: Path, batch_size: int, passes: int) -> dict[str, Any]:
    command = [sys.executable, str(WORKER), contender, str(path), str(batch_size), str(passes)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def made_corpus(folder: Path) -> Path:
    said = ("What does it do?", "It opens a file and reads it line by line, " * 5, "And then?", "Then it is closed.")
    roles = ("user", "assistant", "user", "assistant")
    rows = [
        [{"role": role, "content": f"{index} {text}"} for role, text in zip(roles, said, strict=True)]
        for index in range(400)
    ]
    kind = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    pq.write_table(pa.table({"messages": pa.array(rows, kind)}), folder / "chat.parquet", row_group_size=100)
    return folder


@pytest.mark.timeout(3600)
def test_conversations_a_second(smoke: bool, num_rounds: int, results: Results, tmp_path: Path) -> None:
    path = made_corpus(tmp_path) if smoke or not CORPUS.exists() else CORPUS
    same = ["plain", "nanofast one_per_row"]
    digests = {run(contender, path, BATCH_SIZE, 0)["digest"] for contender in same}
    assert len(digests) == 1, "the contenders' batches differ"
    cold: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    warm: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    busy: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    for number in range(1 if smoke else num_rounds):
        for name in list(CONTENDERS)[:: 1 if number % 2 == 0 else -1]:
            rates = run(name, path, BATCH_SIZE, CONTENDERS[name])["rates"]
            cold[name].append(rates["clock"][0])
            warm[name] += rates["clock"][1:]
            busy[name] += rates["processor"][1:]
    rows = []
    for name in CONTENDERS:
        times = [statistics.median(rates[name]) / statistics.median(rates["plain"]) for rates in (warm, busy)]
        rows.append((name, spread(cold[name]), spread(warm[name]), statistics.median(busy[name]), *times))
    results.add(
        Table(
            "Conversations a second",
            ("contender", "cold", "warm", "a CPU second, warm", "× warm", "× a CPU second"),
            rows,
            (
                f"{path.name}, batches of {BATCH_SIZE}, 2 threads; rounds: {num_rounds}",
                "×: by the plain-Python loop, which renders with tiktoken and collates with torch, on one thread",
            ),
            {"cold": cold, "warm": warm, "busy": busy},
        )
    )
