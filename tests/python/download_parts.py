"""What the tests of downloads share: shards that a server has, little patience, and what a folder holds afterwards."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from misbehaving import Server
from nanofast.data.download import Summary, download
from nanofast.data.fetch import Fetcher, Patience, Source, new_client

HASTY = Patience(
    read_seconds=0.4,
    window_seconds=0.3,
    window_bytes=2000,
    total_seconds=60,
    attempts=10,
    wrong_attempts=6,
    first_wait_seconds=0.01,
    max_wait_seconds=0.05,
)


def small_shards(folder: Path) -> dict[str, bytes]:
    """A few small parquet files, by path."""
    files = {}
    for index in range(8):
        texts = [f"document {index} {row} " + "word " * (row % 50) for row in range(400)]
        pq.write_table(pa.table({"text": texts}), folder / "shard.parquet", compression="none", use_dictionary=False)
        files[f"/shard_{index:05d}.parquet"] = (folder / "shard.parquet").read_bytes()
    return files


def sources_of(server: Server, *, hashed: bool = True) -> list[Source]:
    return [
        Source(
            path.strip("/"), server.url + path, len(content), hashlib.sha256(content).hexdigest() if hashed else None
        )
        for path, content in sorted(server.files.items())
    ]


def fetch_all(sources: list[Source], folder: Path, *, patience: Patience = HASTY, **options: object) -> Summary:
    stop = threading.Event()
    with new_client(patience) as client:
        return download(sources, folder, Fetcher(client, patience, stop), stop=stop, **options)  # type: ignore[arg-type]


def is_right(folder: Path, server: Server) -> bool:
    return all((folder / path.strip("/")).read_bytes() == content for path, content in server.files.items())


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))
