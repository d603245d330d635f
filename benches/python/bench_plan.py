"""What does a plan over very many files cost?  `pytest benches/python/bench_plan.py -s`

100,000 shards of 100 row groups, ten million in all: names of a few real files (hard links, so that the disk holds them
once), each of which the loader opens, checks and takes the footer of. A process of its own makes the loader, reads a
batch, takes a state, and starts again from it in the middle of the epoch; seconds, and the memory it took at most.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from results import Results, Table

SHARDS, ROW_GROUPS, SMOKE_SHARDS, SMOKE_ROW_GROUPS = 100_000, 100, 40, 5
LINKS = 20_000  # of a file: systems allow some ten thousand names
TEXTS = ("The plan is made of names, footers and counts.", "Documents are short, since nothing is read but the first.")


def write_links(folder: Path, num_shards: int, num_row_groups: int) -> None:
    """Names of as few real files as the system allows."""
    schema = pa.schema([("text", pa.string())])
    paths = [folder / f"shard_{number:06d}.parquet" for number in range(num_shards)]
    for begin in range(0, num_shards, LINKS):
        first, *links = paths[begin : begin + LINKS]
        with pq.ParquetWriter(first, schema) as writer:
            for _ in range(num_row_groups):
                writer.write_table(pa.table({"text": list(TEXTS)}, schema))
        for path in links:
            os.link(first, path)


def measure(data: str, shuffle: bool) -> dict[str, float]:
    """In a process of its own: seconds of each step, and MB at the end and at most."""
    import nanofast

    def peak() -> float:
        """Of this program alone: `ru_maxrss` begins with that of the process which started it."""
        return int(re.findall(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[0]) * 1024 / 1e6

    settings = {"rank": 0, "world_size": 1, "epochs": None, "shuffle": shuffle, "packing": "concat"}
    tokenizer = nanofast.Tokenizer.from_name("r50k_base")
    before, found = peak(), {}
    start = time.perf_counter()
    with nanofast.TokenLoader(data, tokenizer, 4, 512, **settings) as loader:
        found["plan, s"] = time.perf_counter() - start
        batches = loader.numpy()
        next(batches)
        found["first batch, s"] = time.perf_counter() - start
        for _ in range(200):
            next(batches)
        start = time.perf_counter()
        state = loader.state_dict()
        found["state_dict(), s"] = time.perf_counter() - start
        expected = next(batches)
    found["state, kB"] = len(json.dumps(state)) / 1e3
    found["memory at most, MB"] = peak() - before
    start = time.perf_counter()
    with nanofast.TokenLoader(data, tokenizer, 4, 512, **settings) as loader:
        loader.load_state_dict(state)
        again = next(loader.numpy())
        found["next batch of a restored loader, s"] = time.perf_counter() - start
    assert all((ours == theirs).all() for ours, theirs in zip(again, expected, strict=True))
    return found


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("shuffle", [False, True])
def test_plan(shuffle: bool, smoke: bool, results: Results, tmp_path: Path) -> None:
    num_shards, num_row_groups = (SMOKE_SHARDS, SMOKE_ROW_GROUPS) if smoke else (SHARDS, ROW_GROUPS)
    write_links(tmp_path, num_shards, num_row_groups)
    words = [sys.executable, __file__, str(tmp_path), str(int(shuffle))]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    order = "shuffled" if shuffle else "in order"
    results.add(
        Table(
            f"A plan over {num_shards:,} shards of {num_row_groups} row groups, {order}",
            ("what", "figure"),
            list(json.loads(done.stdout).items()),
        )
    )


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], sys.argv[2] == "1")))
