"""What does a server far away cost, beside the same files on local disk?  `pytest benches/python/bench_remote.py -s`

    local      the files
    server     a web server on loopback that waits 20 ms before each answer
    cached     that server, with a cache folder that an epoch before has filled

Batches are asserted to be the same. Each is then timed in fresh processes that take turns: seconds until the loader is
there (with a plan of an earlier run), and tokens a second of a whole epoch from then on, with the wait for the first
blocks. The server runs on the same cores and takes from them what sending costs: the last column.

Then the plan of 10,000 objects of 100 row groups each (bench_plan.py): with none kept, and with the one kept then.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import bench_plan
from corpus import SHARED, find_corpus
from range_server import RangeServer
from results import Results, Table, spread
from rounds import processor_seconds

WORKER = Path(__file__).with_name("remote_worker.py")
LATENCY_SECONDS = 0.02
SHARDS = 8
# The corpus so many times, so that an epoch takes seconds. Its words are known soon: the tokenizer is at its fastest.
TIMES = 24
NUM_THREADS = 2
OBJECTS = 10_000


def run(url: str, cache_folder: Path | None, units: str, wants_digest: bool = False) -> dict[str, Any]:
    words = [url, str(cache_folder or ""), units, str(NUM_THREADS), "yes" if wants_digest else ""]
    command = [sys.executable, str(WORKER), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def made_shards(folder: Path, smoke: bool) -> Path:
    """The corpus as shards with row groups of a thousand documents, as published data sets have them."""
    data = folder / "shards"
    data.mkdir()
    texts: list[str] = []
    for path in find_corpus(smoke, folder).paths:
        texts += pq.read_table(path, columns=["text"])["text"].to_pylist()
    texts *= 1 if smoke else TIMES
    size = -(-len(texts) // SHARDS)
    for number in range(SHARDS):
        part = pa.table({"text": texts[number * size : (number + 1) * size]})
        pq.write_table(part, data / f"shard_{number:05d}.parquet", compression="zstd", row_group_size=1000)
    return data


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("units", ["whole row groups", "auto"])
def test_a_server_far_away(
    units: str,
    smoke: bool,
    num_rounds: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    results: Results,
) -> None:
    data, kept = made_shards(tmp_path, smoke), tmp_path / "kept"
    monkeypatch.setenv("NANOFAST_HOME", str(tmp_path / "home"))
    with RangeServer(tmp_path, latency_seconds=LATENCY_SECONDS) as server:
        url = f"{server.url}/shards/"
        contenders = {"local": (str(data), None), "server": (url, None), "cached": (url, kept)}
        digests = {run(*contender, units, wants_digest=True)["digest"] for contender in contenders.values()}
        assert len(digests) == 1, "the contenders' batches differ"
        found: dict[str, list[dict[str, float]]] = {name: [] for name in contenders}
        for number in range(num_rounds):
            for name in list(contenders)[:: 1 if number % 2 == 0 else -1]:
                server.seen()
                before = processor_seconds(server.process.pid)
                report = run(*contenders[name], units)
                report["serving"] = processor_seconds(server.process.pid) - before
                report["requests"] = len(server.seen())
                found[name].append(report)
    size = sum(file.stat().st_size for file in data.iterdir()) / 1e6
    source = "web_en" if (SHARED / "corpus" / "web_en").is_dir() else "sample corpus"
    middle = {name: statistics.median(each["rate"] for each in reports) for name, reports in found.items()}
    told = ("opened", "first", "requests", "processor", "serving")
    results.add(
        Table(
            f"A server far away, units: {units}",
            (
                *("data", "Mtok/s", "of local", "opened, s", "first batch, s", "requests", "CPU s"),
                "the server's CPU s",
            ),
            [
                (
                    name,
                    spread([each["rate"] / 1e6 for each in reports]),
                    middle[name] / middle["local"],
                    *(statistics.median(each[one] for each in reports) for one in told),
                )
                for name, reports in found.items()
            ],
            (
                f"{source}, {size:.1f} MB in {SHARDS} shards, {NUM_THREADS} threads; rounds: {num_rounds}",
                f"server: a process of this machine, on the same cores, that waits {1e3 * LATENCY_SECONDS:.0f} ms "
                "before each answer; cached: the same with a cache folder that an epoch has filled",
            ),
            found,
        )
    )
    shutil.rmtree(kept, ignore_errors=True)


@pytest.mark.timeout(3600)
def test_a_plan_of_many_objects(smoke: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, results: Results) -> None:
    num_objects, num_row_groups = (40, 5) if smoke else (OBJECTS, bench_plan.ROW_GROUPS)
    (tmp_path / "shards").mkdir()
    bench_plan.write_links(tmp_path / "shards", num_objects, num_row_groups)
    monkeypatch.setenv("NANOFAST_HOME", str(tmp_path / "home"))
    found: dict[str, dict[str, float]] = {}
    with RangeServer(tmp_path) as server:
        for plan in ("none kept", "kept"):
            command = [sys.executable, bench_plan.__file__, f"{server.url}/shards/", "0"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
            assert done.returncode == 0, done.stderr
            found[plan] = {"requests": len(server.seen()), **json.loads(done.stdout)}
    results.add(
        Table(
            f"A plan over {num_objects:,} objects of {num_row_groups} row groups behind a server",
            ("plan", *found["kept"]),
            [(plan, *figures.values()) for plan, figures in found.items()],
        )
    )
