"""Where does the loader's time go?  `pytest benches/python/bench_loader.py`

Parquet → batches, one lane of whole row groups, a fresh process each, torch tensors that the caller may keep. Shown:
the time from the constructor's return to the first batch with a loaded tokenizer; MB of text a second of the first pass
(cold) and of later ones (warm: their median); and of the warm passes the share of all threads' time that went into
reading, decoding and tokenizing (what is left is packing, reordering, the ring, the hand-over and waiting), and the
share that packing took of the processor time.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from corpus import document_bytes, find_corpus
from results import Results, Table, spread
from rounds import TESTS

WARM_PASSES = 5


def measure(data: list[str], packing: str, num_threads: int, batch_size: int, sequence_length: int) -> dict[str, Any]:
    import torch  # noqa: F401 (not a part of the first batch)

    import nanofast

    tokenizer = nanofast.Tokenizer.from_name("r50k_base")
    sizes = (batch_size, sequence_length)
    loader = nanofast.TokenLoader(
        data, tokenizer, *sizes, packing=packing, num_threads=num_threads, lanes=1, unit_documents=0
    )
    start = time.perf_counter()
    next(loader)
    first_ms = (time.perf_counter() - start) * 1e3
    num_bytes = sum(size for path in data for size in document_bytes(Path(path)))
    passes = []
    for _ in range(1 + WARM_PASSES):
        before, begun, cpu = loader.metrics(), time.perf_counter(), time.process_time()
        goal = before["ledger"]["bytes"] + num_bytes
        while loader.metrics()["ledger"]["bytes"] < goal:
            for _ in range(8):
                next(loader)
        seconds, cpu_seconds = time.perf_counter() - begun, time.process_time() - cpu
        after = loader.metrics()
        stages = {name: after["stage_seconds"][name] - before["stage_seconds"][name] for name in after["stage_seconds"]}
        megabytes = (after["ledger"]["bytes"] - before["ledger"]["bytes"]) / 1e6
        needed = stages["read"] + stages["decode"] + stages["tokenize"]
        passes.append(
            {
                "rate": megabytes / seconds,
                "cpu_rate": megabytes / cpu_seconds,
                "share": needed / (seconds * num_threads),
                "pack": stages["pack"] / cpu_seconds,
                "copy": stages["copy"] / cpu_seconds,
            }
        )
    return {"first_ms": first_ms, "cold": passes[0], "warm": passes[1:], "hit_rate": loader.metrics()["cache_hit_rate"]}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("packing", ["concat", "best_fit"])
def test_where_the_time_goes(packing: str, smoke: bool, results: Results, tmp_path: Path) -> None:
    corpus = find_corpus(smoke, tmp_path)
    sizes = ("4", "256") if smoke else ("32", "2048")
    rows = []
    for num_threads in (1, 2):
        data = json.dumps([str(path) for path in corpus.paths])
        words = [sys.executable, __file__, data, packing, str(num_threads), *sizes]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])}
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        warm = {name: statistics.median(one[name] for one in found["warm"]) for name in found["cold"]}
        shares = (100 * warm[name] for name in ("share", "pack", "copy"))
        warm_rates = spread([one["rate"] for one in found["warm"]])
        first = (num_threads, found["first_ms"], found["cold"]["rate"], warm_rates, warm["cpu_rate"])
        rows.append((*first, *shares, 100 * found["hit_rate"]))
    results.add(
        Table(
            f"Where the loader's time goes, {packing}",
            (
                *("threads", "first batch, ms", "cold MB/s", "warm MB/s", "warm MB/CPU-s"),
                *("read to tokens, % of threads", "packing, % of CPU", "copies, % of CPU", "cache hits, %"),
            ),
            rows,
            (f"{corpus}; r50k_base, batches of {sizes[0]} x {sizes[1]}; {WARM_PASSES} warm passes",),
        )
    )


if __name__ == "__main__":
    print(json.dumps(measure(json.loads(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:]))))
