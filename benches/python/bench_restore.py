"""How long does a restored loader take to its next batch?  `pytest benches/python/bench_restore.py`

Over one epoch, at evenly spread batches: the time from `load_state_dict` to the next batch (asserted to be the right
one) in a fresh loader with a loaded tokenizer, a lane; and `state_dict()` itself, its size a lane, and the documents
that are read again.
"""

from __future__ import annotations

import itertools
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nanofast
from corpus import find_corpus
from results import Results, Table, spread

MODES: dict[str, dict[str, Any]] = {
    "concat": {"packing": "concat"},
    "best_fit": {"packing": "best_fit"},
    "crop": {"packing": "best_fit", "overflow": "crop"},
    "pad": {"packing": "best_fit", "overflow": "pad"},
}
POSITIONS = 12


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("lanes", [1, 8])
@pytest.mark.parametrize("shuffle", [False, True])
def test_restore(shuffle: bool, lanes: int, smoke: bool, results: Results, tmp_path: Path) -> None:
    corpus = find_corpus(smoke, tmp_path)
    tokenizer = nanofast.Tokenizer.from_name("r50k_base")
    sizes = (2, 64) if smoke else (8, 2048)
    rows = []
    for name, mode in MODES.items():
        settings = {"lanes": lanes, "shuffle": shuffle, **mode}
        with nanofast.TokenLoader(list(corpus.paths), tokenizer, *sizes, epochs=1, **settings) as loader:
            num_batches = sum(1 for _ in loader.numpy(copy=False))
        wanted = set(np.linspace(1, num_batches, 3 if smoke else POSITIONS, dtype=int).tolist())
        states, taking = [], []
        with nanofast.TokenLoader(list(corpus.paths), tokenizer, *sizes, **settings) as loader:
            for number, _ in enumerate(itertools.islice(loader.numpy(copy=False), num_batches), 1):
                start = time.perf_counter()
                state = loader.state_dict()
                taking.append(time.perf_counter() - start)
                if number in wanted:
                    states.append((state, next(loader.numpy())[0]))
                    loader.load_state_dict(state)
        restoring = []
        for state, expected in states:
            with nanofast.TokenLoader(list(corpus.paths), tokenizer, *sizes, **settings) as loader:
                start = time.perf_counter()
                loader.load_state_dict(state)
                found, _ = next(loader.numpy())
                restoring.append(time.perf_counter() - start)
                assert np.array_equal(found, expected)
        lane_bytes = max(len(json.dumps(entry)) for state, _ in states for entry in state["lanes"].values())
        next_ms = spread([1e3 * seconds for seconds in restoring])
        rows.append((name, next_ms, 1e6 * statistics.median(taking), lane_bytes))
    results.add(
        Table(
            f"A restored loader, {lanes} lanes, {'shuffled' if shuffle else 'in order'}",
            ("packing", "next batch, ms", "state_dict(), µs", "state, bytes a lane at most"),
            rows,
            (f"{corpus}; at {len(wanted)} batches spread over an epoch, batches of {sizes[0]} x {sizes[1]}",),
        )
    )
