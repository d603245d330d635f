"""What do finite epochs over several ranks cost?  `pytest benches/python/bench_epochs.py`

Real gloo ranks whose step takes 10 ms and ends with an all-reduce. Shown is the time in `SharedEnd.allows`, the only
thing that `next()` does more than with `epochs=None`: its mean a batch, its share of a step, and the processor time of
it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from corpus import find_corpus
from results import Results, Table
from rounds import TESTS

STEP_SECONDS = 0.01


def rank(data: str, steps: int) -> dict[str, float]:
    import torch
    import torch.distributed as dist

    import nanofast
    from nanofast.distributed import connect, disconnect
    from nanofast.shared_end import SharedEnd

    connect("cpu")
    spent, cpu, allows = 0.0, 0.0, SharedEnd.allows

    def timed(self: SharedEnd, number: int, wait: bool) -> bool | None:
        nonlocal spent, cpu
        start, start_cpu = time.perf_counter(), time.thread_time()
        try:
            return allows(self, number, wait)
        finally:
            spent += time.perf_counter() - start
            cpu += time.thread_time() - start_cpu

    tokenizer = nanofast.Tokenizer.from_name("r50k_base")
    with nanofast.TokenLoader(data, tokenizer, 4, 256, lanes=4, epochs=1, num_threads=1) as loader:
        next(loader)  # the first exchange waits for the first batches
        SharedEnd.allows = timed  # type: ignore[method-assign]
        start = time.perf_counter()
        count = 0
        for _ in zip(range(steps), loader, strict=False):
            time.sleep(STEP_SECONDS)
            dist.all_reduce(torch.ones(1))
            count += 1
        seconds = time.perf_counter() - start
    disconnect()
    return {
        "batches": count,
        "us_a_batch": spent / count * 1e6,
        "cpu_us_a_batch": cpu / count * 1e6,
        "seconds": seconds,
    }


@pytest.mark.timeout(600)
@pytest.mark.parametrize("world_size", [2, 4])
def test_the_end_is_agreed_on(world_size: int, smoke: bool, results: Results, tmp_path: Path) -> None:
    sys.path.append(str(TESTS))
    from test_distributed import free_port

    corpus = find_corpus(smoke, tmp_path)
    place = {"WORLD_SIZE": str(world_size), "LOCAL_WORLD_SIZE": str(world_size), "MASTER_PORT": str(free_port())}
    place |= {"MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    words = [sys.executable, __file__, str(corpus.paths[0]), "20" if smoke else "1000"]
    ranks = [
        subprocess.Popen(
            words, env={**os.environ, **place, "RANK": str(number), "LOCAL_RANK": str(number)}, stdout=subprocess.PIPE
        )
        for number in range(world_size)
    ]
    found = [json.loads(process.communicate(timeout=300)[0]) for process in ranks]
    assert len({figures["batches"] for figures in found}) == 1
    rows = [
        (
            f"rank {number}",
            figures["us_a_batch"],
            figures["cpu_us_a_batch"],
            figures["us_a_batch"] * 1e-6 / STEP_SECONDS * 100,
        )
        for number, figures in enumerate(found)
    ]
    title = f"Agreeing on the end of finite epochs, {world_size} ranks"
    results.add(Table(title, ("rank", "µs a batch", "CPU µs a batch", "% of a step of 10 ms"), rows))


if __name__ == "__main__":
    print(json.dumps(rank(sys.argv[1], int(sys.argv[2]))))
