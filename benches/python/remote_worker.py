"""One contender of bench_remote.py in a process of its own: reads an epoch and prints what it took, as JSON."""

from __future__ import annotations

import hashlib
import json
import sys
import time

import nanofast


def measure(url: str, cache_folder: str, units: str, num_threads: str, wants_digest: str) -> None:
    """Reads an epoch and prints what it took."""
    tokenizer = nanofast.Tokenizer.from_name("r50k_base")
    tokenizer.encode_batch(["some text to load the vocabulary"] * 100)
    remote = nanofast.Remote(cache_folder=cache_folder or None)
    start = time.perf_counter()
    options = {"epochs": 1, "num_threads": int(num_threads), "unit_documents": None if units == "auto" else 0}
    loader = nanofast.TokenLoader(url, tokenizer, 32, 1024, remote=remote, **options)
    opened = time.perf_counter()
    first, num_tokens, whole = 0.0, 0, hashlib.sha256()
    with loader:
        for inputs, targets in loader.numpy(copy=False):
            first = first or time.perf_counter()
            num_tokens += inputs.size
            if wants_digest:
                whole.update(inputs.tobytes() + targets.tobytes())
        seconds = time.perf_counter() - opened
        metrics = loader.metrics()
    report = {
        "opened": opened - start,
        "first": first - opened,
        "rate": num_tokens / seconds,
        "reading": metrics["stage_seconds"]["read"],
        "processor": time.process_time(),
        "digest": whole.hexdigest(),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    measure(*sys.argv[1:])
