"""A server whose certificate an authority of one's own signed: read with SSL_CERT_FILE, refused at once without."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

import nanofast
from range_server import RangeServer
from remote_parts import batches, same
from shards import random_texts, write_shards

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="certificates are made with openssl")


def made_certificate(name: str, *words: str) -> None:
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]
    files = ["-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem"]
    subprocess.run([*command, *files, *words], check=True, capture_output=True)


def test_an_authority_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NANOFAST_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.chdir(tmp_path)
    made_certificate("authority")
    made_certificate(
        *("server", "-CA", "authority.pem", "-CAkey", "authority.key"),
        *("-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"),
    )
    Path("both.pem").write_text(Path("server.pem").read_text() + Path("server.key").read_text())
    Path("shards").mkdir()
    write_shards(tmp_path / "shards", random_texts(7, [[60] * 2]))
    with RangeServer(tmp_path, certificate="both.pem") as server:
        url = f"{server.url}/shards/shard_00000.parquet"
        assert url.startswith("https://")
        with pytest.raises(nanofast.ReadError, match=r"certificate is not trusted \(.*SSL_CERT_FILE"):
            batches(url)  # it gets the whole time-out, and is not made again
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
        assert same(batches(url), batches("shards"))
        with pytest.raises(nanofast.ReadError, match="not valid for name"):
            batches(url.replace("127.0.0.1", "localhost"))
