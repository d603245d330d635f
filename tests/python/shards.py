"""Real parquet files for tests, written by pyarrow, and the token lists that are in them."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

WORDS = [
    "the",
    "a",
    "of",
    "to",
    "and",
    "in",
    "is",
    "it",
    "you",
    "that",
    "he",
    "was",
    "for",
    "on",
    "are",
    "with",
    "as",
    "his",
    "they",
    "at",
    "be",
    "this",
    "from",
    "I",
    "have",
    "or",
    "by",
]


def random_text(generator: random.Random, longest: int) -> str:
    """A text of 0 to `longest` words, some of them rare, some not ASCII."""
    length = generator.choice([0, 1, 2, longest // 4, longest // 2, generator.randrange(longest + 1), longest])
    rare = ("naïve", "日本語", "🙂", "\n\n", "supercalifragilistic", f"{generator.random()}")
    return " ".join(generator.choice(rare if generator.random() < 0.1 else WORDS) for _ in range(length))


def write_shards(folder: Path, texts: list[list[list[str]]], column: str = "text") -> list[str]:
    """One file a shard, `texts[shard][row_group]`; returns the paths. An empty row group stays empty."""
    paths = []
    for number, row_groups in enumerate(texts):
        path = folder / f"shard_{number:05d}.parquet"
        schema = pa.schema([("id", pa.int64()), (column, pa.string())])
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            for rows in row_groups:
                table = pa.table({"id": pa.array(range(len(rows)), pa.int64()), column: pa.array(rows, pa.string())})
                writer.write_table(table, row_group_size=max(1, len(rows)))
        paths.append(str(path))
    return paths


def random_texts(seed: int, layout: list[list[int]], longest: int = 40) -> list[list[list[str]]]:
    """Random documents, `layout[shard][row_group]` of them."""
    generator = random.Random(seed)
    return [[[random_text(generator, longest) for _ in range(count)] for count in shard] for shard in layout]
