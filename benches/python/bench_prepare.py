"""How fast, and in how much memory, do a million documents become shards?  `pytest benches/python/bench_prepare.py`

A million JSON lines (about 1.4 GB of text, one in ten a copy) are shuffled, de-duplicated and written with 256 MB of
memory, in a process of its own, so that its peak is its own. Every document comes out once; the peak stays under the
stated memory and what Python, numpy and the extension take by themselves.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from results import Results, Table

MEMORY_MB = 256
# Interpreter, extension, writer; measured 90 MB on Linux x86-64.
SLACK_MB = 200


def write_lines(path: Path, count: int) -> int:
    """JSON lines of `count` documents, a tenth of them copies; returns bytes of text."""
    generator = random.Random(0)
    words = [generator.randbytes(generator.randrange(1, 6)).hex() for _ in range(20_000)]
    earlier: list[str] = []
    num_bytes = 0
    with path.open("w") as file:
        for index in range(count):
            if index % 10 == 9:
                text = generator.choice(earlier)
            else:
                text = f"{index} " + " ".join(
                    generator.choices(words, k=min(2000, int(generator.expovariate(1 / 200))))
                )
                earlier = [*earlier[-99:], text]
            num_bytes += len(text)
            file.write(json.dumps({"text": text}) + "\n")
    return num_bytes


@pytest.mark.timeout(1800)
def test_a_million_documents(smoke: bool, results: Results, tmp_path: Path) -> None:
    count = 5_000 if smoke else 1_000_000
    num_bytes = write_lines(tmp_path / "lines.jsonl", count)
    # The peak of this program alone: `ru_maxrss` begins with that of the process which started it.
    code = (
        "import pathlib, re, runpy, sys\n"
        "try:\n"
        "    runpy.run_module('nanofast.data', run_name='__main__')\n"
        "finally:\n"
        "    status = pathlib.Path('/proc/self/status').read_text()\n"
        "    print(re.search(r'VmHWM:\\s+(\\d+)', status)[1], file=sys.stderr)\n"
    )
    words = ["prepare", tmp_path / "lines.jsonl", tmp_path / "out", "--deduplicate", "--memory-mb", MEMORY_MB, "--json"]
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - start
    made = json.loads(done.stdout)
    peak_mb = int(done.stderr.split()[-1]) / 1024
    assert made["counts"]["read"] == count
    assert made["counts"]["duplicates"] == count // 10
    seen: set[int] = set()
    for path in sorted((tmp_path / "out").glob("*.parquet")):
        for text in pq.read_table(path)["text"].to_pylist():
            seen.add(int(text.split(" ", 1)[0]))
    assert len(seen) == made["num_documents"] == count - count // 10
    assert peak_mb < MEMORY_MB + SLACK_MB
    figures = {
        "seconds": seconds,
        "documents/s": count / seconds,
        "MB/s": num_bytes / 1e6 / seconds,
        "shards": len(made["files"]),
        "memory at most, MB": peak_mb,
    }
    title = f"`data prepare --deduplicate`, {count:,} documents, {num_bytes / 1e6:,.0f} MB of text"
    results.add(Table(title, ("what", "figure"), list(figures.items())))
