"""A bucket of Google's protocol, from fake-gcs-server on the PATH: https://github.com/fsouza/fake-gcs-server."""

from __future__ import annotations

import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

import nanofast
from remote_parts import IN_A_BUCKET, batches, loader, same
from shards import random_texts, write_shards
from test_distributed import free_port

PROGRAM = shutil.which("fake-gcs-server")
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="needs the program fake-gcs-server")


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The server's address; its bucket `shelf` holds what lies in `tmp_path/buckets/shelf`."""
    folder = tmp_path / "buckets" / "shelf" / "a"
    (folder / "below").mkdir(parents=True)
    write_shards(folder, random_texts(7, [[60] * 8] * 3, longest=400))
    shutil.copy(folder / "shard_00000.parquet", folder / "below" / "other.parquet")
    (folder / "README.md").write_bytes(b"none")
    port = free_port()
    words = ["-backend", "memory", "-data", str(tmp_path / "buckets"), "-scheme", "http", "-host", "127.0.0.1"]
    command = [str(PROGRAM), *words, "-port", str(port), "-public-host", f"127.0.0.1:{port}", "-log-level", "error"]
    url = f"http://127.0.0.1:{port}"
    monkeypatch.setenv("NANOFAST_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GOOGLE_BASE_URL", url)
    monkeypatch.setenv("GOOGLE_SKIP_SIGNATURE", "true")
    process = subprocess.Popen(command)
    try:
        while process.poll() is None:
            try:
                urllib.request.urlopen(f"{url}/storage/v1/b").close()
                break
            except urllib.error.URLError:
                time.sleep(0.02)
        yield url
    finally:
        process.terminate()
        process.wait()


def test_a_bucket_of_googles(bucket: str, tmp_path: Path) -> None:
    folder = tmp_path / "buckets" / "shelf"
    for path in IN_A_BUCKET:
        assert same(batches(f"gs://shelf/{path}"), batches(f"{folder}/{path}"))
    with pytest.raises(nanofast.NotFoundError, match="no such file or folder: `gs://shelf/none`"):
        batches("gs://shelf/none")
    with loader("gs://shelf/a", unit_documents=0, lanes=1) as made:
        changed = bytearray((folder / "a" / "shard_00000.parquet").read_bytes())
        changed[100] ^= 1
        place = f"{bucket}/upload/storage/v1/b/shelf/o?uploadType=media&name=a/shard_00000.parquet"
        urllib.request.urlopen(urllib.request.Request(place, data=bytes(changed), method="POST")).close()
        with pytest.raises(
            nanofast.InvalidError, match=r"gs://shelf/a/shard_00000.parquet` changed .*version: expected"
        ):
            list(made.numpy())
