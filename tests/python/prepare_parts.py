"""What the tests of prepared shards share: texts, files of them, and what came out."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import pyarrow.parquet as pq

from nanofast.data.compressed import zstd_module
from nanofast.data.documents import Reading
from nanofast.data.inputs import find_inputs
from nanofast.data.prepare import Shape, prepare
from shards import random_text


def texts_of(count: int, seed: int = 0) -> list[str]:
    generator = random.Random(seed)
    return [f"{index} {random_text(generator, 30)}" for index in range(count)]


def shards_of(out: Path) -> list[list[str]]:
    return [pq.read_table(path)["text"].to_pylist() for path in sorted(out.glob("*.parquet"))]


def all_of(out: Path) -> list[str]:
    return [text for shard in shards_of(out) for text in shard]


def write_jsonl(path: Path, texts: list[str | None], column: str = "text") -> Path:
    lines = "".join(json.dumps({"id": index, column: text}) + "\n" for index, text in enumerate(texts))
    opened = {".gz": gzip.open, ".zst": zstd_module("").open}.get(path.suffix, open)
    with opened(path, "wt", encoding="utf-8") as file:
        file.write(lines)
    return path


def make(inputs: list[Path], out: Path, *, reading: Reading | None = None, memory_bytes: int = 1 << 20, **shape):
    found = find_inputs([str(path) for path in inputs])
    return prepare(found, out, reading or Reading(), Shape(**shape), memory_bytes=memory_bytes)
