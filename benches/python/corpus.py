"""The text that all contenders are given: `../shared/data/corpus/web_en` where it is, else the sample corpus."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
# Documents of the smoke run: some two batches of 4 x 256 tokens and three row groups, so that borders are crossed.
SMOKE_DOCUMENTS = 240
SMOKE_ROW_GROUP = 96


@dataclass(frozen=True)
class Corpus:
    """Parquet shards with a `text` column."""

    name: str
    paths: tuple[Path, ...]
    num_documents: int
    num_bytes: int  # of text

    def __str__(self) -> str:
        return f"{self.name}, {self.num_documents:,} documents, {self.num_bytes / 1e6:.1f} MB of text"


def find_corpus(smoke: bool, folder: Path) -> Corpus:
    """The corpus of this machine; of `smoke`, the first documents of it, written into `folder`."""
    web = SHARED / "corpus" / "web_en"
    if web.is_dir():
        name, paths = "web_en", sorted(web.glob("*.parquet"))
    else:
        from nanofast.data.sample import ensure_sample

        home = Path(os.environ.get("NANOFAST_HOME") or "~/.cache/nanofast").expanduser()
        data, _ = ensure_sample(home)
        name, paths = data.name, sorted(data.glob("*.parquet"))
    if smoke:
        first = pq.ParquetFile(paths[0]).read_row_group(0, columns=["text"])[:SMOKE_DOCUMENTS]
        name, paths = f"{name} (its first {first.num_rows} documents)", [folder / "shard_00000.parquet"]
        pq.write_table(first, paths[0], compression="zstd", row_group_size=SMOKE_ROW_GROUP)
    sizes = [document_bytes(path) for path in paths]
    return Corpus(name, tuple(paths), sum(map(len, sizes)), sum(map(sum, sizes)))


def document_bytes(path: Path) -> list[int]:
    """Bytes of UTF-8 of each document of a shard."""
    column = pq.read_table(path, columns=["text"])["text"]
    return [size or 0 for size in pc.binary_length(column).to_pylist()]


def row_groups(paths: tuple[Path, ...] | list[Path]) -> list[list[list[str]]]:
    """Texts of each row group of each shard."""
    shards = []
    for path in paths:
        file = pq.ParquetFile(path)
        groups: list[pa.Table] = [file.read_row_group(g, columns=["text"]) for g in range(file.num_row_groups)]
        shards.append([[text or "" for text in group["text"].to_pylist()] for group in groups])
    return shards
