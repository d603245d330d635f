"""A container of Azure's protocol, from a stand-in that answers as the published interface says; signatures unread."""

from __future__ import annotations

import base64
import shutil
from pathlib import Path

import pytest

import nanofast
from range_server import RangeServer
from remote_parts import IN_A_BUCKET, batches, loader, same
from shards import random_texts, write_shards

SECRET = base64.b64encode(b"s3cr3tw0rd").decode()


def test_a_container_of_azures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "served" / "shelf"
    (folder / "a" / "below").mkdir(parents=True)
    write_shards(folder / "a", random_texts(7, [[60] * 8] * 3, longest=400))
    shutil.copy(folder / "a" / "shard_00000.parquet", folder / "a" / "below" / "other.parquet")
    (folder / "a" / "README.md").write_bytes(b"none")
    with RangeServer(tmp_path / "served") as server:
        monkeypatch.setenv("NANOFAST_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", server.url)
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "someone")
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", SECRET)
        for path in IN_A_BUCKET:
            assert same(batches(f"az://shelf/{path}"), batches(f"{folder}/{path}"))
        assert all(authorized for *_, authorized in server.seen())
        with pytest.raises(nanofast.NotFoundError, match="no such file or folder: `az://shelf/none`"):
            batches("az://shelf/none")
        with loader("az://shelf/a", unit_documents=0, lanes=1) as made:
            assert SECRET not in str(made.state_dict())
            file = folder / "a" / "shard_00000.parquet"
            file.with_suffix(".new").write_bytes(file.read_bytes())
            file.with_suffix(".new").rename(file)
            with pytest.raises(nanofast.InvalidError, match=r"az://shelf/a/shard_00000.parquet` changed .*version: ex"):
                list(made.numpy())
