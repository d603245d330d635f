"""What tests of remote data share: batches of a loader, an S3 server as a process; a reader as a program.

python remote_parts.py URL CACHE_FOLDER LIMIT_BYTES     reads an epoch and prints a hash of its batches
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nanofast

Batches = list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]

# Ways to name what lies in a bucket that holds three shards under `a/`, one more below that, and what is no shard.
IN_A_BUCKET = ("a", "a/", "a/shard_*.parquet", "a/shard_0000[02].parquet", "**/*.parquet", "a/shard_00001.parquet")


def loader(data: Any, **options: Any) -> nanofast.TokenLoader:
    tokenizer = nanofast.Tokenizer.from_name("r50k_base")
    return nanofast.TokenLoader(data, tokenizer, 2, 64, **{"num_threads": 2, **options})


def batches(data: Any, count: int | None = None, **options: Any) -> Batches:
    """The first `count` batches, or all of an epoch."""
    with loader(data, **{"epochs": 1 if count is None else None, **options}) as made:
        return list(islice(made.numpy(), count))


def same(one: Batches, other: Batches) -> bool:
    pairs = zip(one, other, strict=True)
    return all(np.array_equal(a, b) for pair in pairs for a, b in zip(*pair, strict=True))


def digest(read: Batches) -> str:
    """A hash of batches."""
    return hashlib.sha256(b"".join(array.tobytes() for batch in read for array in batch)).hexdigest()


@contextmanager
def s3_server(folder: str | Path) -> Iterator[str]:
    """The address of an S3 server whose bucket `shelf` holds the files of `folder` under `a/`."""
    boto3 = pytest.importorskip("boto3", reason="the S3 server comes with the extra `test`")
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        lines = (re.search(r"http://127\.0\.0\.1:\d+", line) for line in process.stderr)
        url = next(found[0] for found in lines if found)
        keys = {"aws_access_key_id": "k", "aws_secret_access_key": "s", "region_name": "us-east-1"}
        client = boto3.client("s3", endpoint_url=url, **keys)
        client.create_bucket(Bucket="shelf")
        for file in Path(folder).rglob("*"):
            if file.is_file():
                key = f"a/{file.relative_to(folder).as_posix()}"
                client.put_object(Bucket="shelf", Key=key, Body=file.read_bytes())
        yield url
    finally:
        process.terminate()
        process.communicate()


def main() -> None:
    url, folder, limit = sys.argv[1:]
    print(digest(batches(url, remote=nanofast.Remote(Path(folder), int(limit)))))


if __name__ == "__main__":
    main()
