"""Does writing token files go at the tokenizer's own speed?  `pytest benches/python/bench_tokenize.py`

`nanofast.data tokenize` reads parquet, tokenizes, writes, waits for the disk and reads everything back; beside it
`TokenLoader`, which reads and tokenizes the same and keeps nothing, and `Tokenizer.encode_batch` over the same texts,
which lie in memory. Same tokenizer, same threads, rounds alternate; shown are MB of text a second, medians with the
least and the most, and ratios to the loader of the same round.
"""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median

import numpy as np
import pytest

import nanofast
from corpus import find_corpus, row_groups
from nanofast.data.tokenize import tokenize
from nanofast.distributed import available_cores
from results import Results, Table, spread


@pytest.mark.timeout(600)
def test_beside_the_tokenizer_alone(smoke: bool, num_rounds: int, results: Results, tmp_path: Path) -> None:
    corpus = find_corpus(smoke, tmp_path)
    texts = [text for shard in row_groups(corpus.paths) for group in shard for text in group]
    data = tmp_path / "data"
    data.mkdir()
    for number, path in enumerate(corpus.paths):
        (data / f"shard_{number:05}.parquet").symlink_to(path.resolve())
    tokenizer, threads = nanofast.Tokenizer.from_name("r50k_base"), available_cores()
    ids, _ = tokenizer.encode_batch(texts, num_threads=threads)  # also warms the caches that both use
    rates: dict[str, list[float]] = {"encode_batch": [], "TokenLoader": [], "flat": [], "llm.c": [], "npy": []}
    for number in range(num_rounds):
        for name in rates if number % 2 == 0 else reversed(rates):
            out = tmp_path / f"{number}-{name}.{'npy' if name == 'npy' else 'bin'}"
            start = time.perf_counter()
            if name == "encode_batch":
                tokenizer.encode_batch(texts, num_threads=threads)
            elif name == "TokenLoader":
                with nanofast.TokenLoader(
                    str(data), tokenizer, 16, 1 << 16, packing="concat", epochs=1, lanes=1, num_threads=threads
                ) as loader:
                    num_inputs = sum(inputs.size for inputs, _ in loader.numpy(copy=False))
                assert num_inputs >= len(ids) + len(texts) - 1
            else:
                written = tokenize(data, out, tokenizer, format=name, num_threads=threads)
            rates[name].append(corpus.num_bytes / 1e6 / (time.perf_counter() - start))
            if name not in ("encode_batch", "TokenLoader"):
                assert written.num_tokens == len(ids) + len(texts), "every document's ids, and a BOS for each"
            if name == "flat":
                found = np.fromfile(out, np.uint16)
                assert np.array_equal(found[found != tokenizer.bos_id], ids)
            out.unlink(missing_ok=True)
    rows = [
        (name, spread(found), median(mine / its for mine, its in zip(found, rates["TokenLoader"], strict=True)))
        for name, found in rates.items()
    ]
    note = f"{corpus}; {threads} threads, rounds: {num_rounds}; ×: by TokenLoader, which keeps nothing"
    results.add(Table("`data tokenize`: parquet to token files", ("what", "MB/s", "×"), rows, (note,), rates))
