"""Published data sets: listed by a hub that may misbehave, chosen from, and named so that nothing leaves the folder."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import httpx2
import huggingface_hub
import pytest

from download_parts import HASTY, small_shards
from misbehaving import Server
from nanofast.data.fetch import FetchError
from nanofast.data.names import checked_name, flat_name
from nanofast.data.published import _guard_session, chosen, list_template


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return small_shards(tmp_path_factory.mktemp("shards"))


def test_a_hub_repository_is_listed_and_its_token_stays_at_home(shards: dict[str, bytes], tmp_path: Path):
    """The listing's sizes and hashes are used; files are redirected to another host, which must not see the token."""
    cdn_files = {f"/cdn{path}": content for path, content in shards.items()}
    with Server({}) as hub, Server(cdn_files) as cdn:
        listing = [
            {
                "type": "file",
                "path": f"sample/10BT{path}",
                "size": len(content),
                "oid": "0" * 40,
                "lfs": {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130},
            }
            for path, content in shards.items()
        ]
        asked = []

        def tree(handler) -> None:
            asked.append(handler.headers.get("Authorization"))
            handler.answer(503) if len(asked) == 1 else handler.answer_json(listing)

        hub.answers["/api/datasets/owner/name/tree/main/sample%2F10BT"] = tree
        hub.answers["/api/datasets/owner/name/tree/main/sample/10BT"] = tree
        for path in shards:
            location = f"{cdn.url}/cdn{path}"
            hub.answers[f"/datasets/owner/name/resolve/main/sample/10BT{path}"] = lambda handler, to=location: (
                handler.answer(302, Location=to)
            )
        environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_secret", "NANOFAST_HOME": str(tmp_path)}
        words = ["download", "--repo", "owner/name", "--prefix", "sample/10BT/", "-n", "3"]
        found = subprocess.run(
            [sys.executable, "-m", "nanofast.data", *words],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert found.returncode == 0, found.stdout + found.stderr
        folder = tmp_path / "data" / "owner--name"
        names = sorted(path.name for path in folder.glob("*.parquet"))
        assert names == ["shard_00000.parquet", "shard_00001.parquet", "shard_00002.parquet", "shard_00007.parquet"]
        assert all((folder / name).read_bytes() == shards["/" + name] for name in names)
        assert asked[-1] == "Bearer hf_secret"
        assert all("Authorization" not in headers for headers in cdn.seen_headers.values())
        assert all(
            headers["Authorization"] == "Bearer hf_secret"
            for path, headers in hub.seen_headers.items()
            if "resolve" in path
        )


def list_from(hub: str, *words: str) -> subprocess.CompletedProcess[str]:
    """The command for a repository of a hub that does not behave, with less patience than its default."""
    code = (
        "import runpy, sys\n"
        "from nanofast.data import fetch\n"
        "class Hasty(fetch.Patience):\n"
        "    read_seconds = 0.3\n"
        "    total_seconds = 2.0\n"
        "    def __init__(self, total_seconds): pass\n"
        "fetch.Patience = Hasty\n"
        "runpy.run_module('nanofast.data', run_name='__main__')\n"
    )
    line = [sys.executable, "-c", code, "download", "--repo", "owner/name", *words]
    environment = {**os.environ, "HF_ENDPOINT": hub, "HF_TOKEN": "hf_secret"}
    return subprocess.run(line, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("silence", "no answer within 2 s"),
        ("asks for a year", "no answer within 2 s"),
        ("404", "no data set `owner/name` at revision `main`"),
        ("no list", "cannot list `owner/name`"),
        ("paths that climb", "refused"),
        ("an absolute path", "refused"),
        ("names that are one", "two shards are called"),
    ],
)
def test_a_hub_that_lists_badly_is_told_in_a_line(tmp_path: Path, fault: str, reason: str):
    def entry(path: str) -> dict[str, object]:
        return {"type": "file", "path": path, "size": 1, "oid": "0" * 40}

    listings = {
        "paths that climb": [entry("../../../shard.parquet")],
        "an absolute path": [entry("/etc/shard.parquet")],
        "names that are one": [entry("a/b.parquet"), entry("a-b.parquet")],
    }

    asked = []

    def answer(handler) -> None:
        asked.append(handler.path)
        if fault == "silence":
            hub.ended.wait(5)
        elif fault == "asks for a year":
            handler.answer(429, Retry_After="31536000")
        elif fault == "404":
            handler.answer(404, X_Error_Code="RepoNotFound")
        elif fault == "no list":
            handler.answer(200)
        else:
            handler.answer_json(listings[fault])

    with Server({}) as hub:
        hub.answers["/api/datasets/owner/name/tree/main"] = answer
        found = list_from(hub.url, "--to", str(tmp_path / "data"))
    assert found.returncode == 2
    assert reason in found.stderr
    assert found.stderr.count("\n") == 1, found.stderr
    assert not (tmp_path / "data").exists()
    assert len(asked) > 1 or fault != "silence", "a silent hub is asked again"


def test_a_listing_stays_with_https(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "https://hub.invalid")
    _guard_session(HASTY)
    for url, refused in (("https://elsewhere.invalid/", False), ("http://elsewhere.invalid/", True)):
        request = httpx2.Request("GET", url)
        with pytest.raises(FetchError, match="refused") if refused else contextlib.nullcontext():
            for hook in huggingface_hub.get_session().event_hooks["request"]:
                hook(request)


def test_the_validation_shard_is_always_among_the_chosen():
    sources = list_template("http://h/shard_{index:05d}.parquet", 10)
    assert [source.name[6:11] for source in chosen(sources, 3)] == ["00000", "00001", "00002", "00009"]
    assert [source.name[6:11] for source in chosen(sources, 0)] == ["00009"]
    assert chosen(sources, -1) == chosen(sources, 9) == chosen(sources, 100) == sources


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../a",
        "/a",
        "a/b",
        "a\\b",
        "C:a",
        "a\0b",
        "a\nb",
        ".a",
        "a.",
        "a ",
        "NUL",
        "con.parquet",
        "COM1.x",
        "a" * 300,
        "\ud800",
    ],
)
def test_names_that_could_leave_the_folder_are_refused(name: str):
    with pytest.raises(ValueError, match="refused"):
        checked_name(name)


@pytest.mark.parametrize("path", ["../a.parquet", "/etc/a.parquet", "a/../../b.parquet", "a//b.parquet", "a/NUL/../x"])
def test_paths_of_a_listing_that_climb_are_refused(path: str):
    with pytest.raises(ValueError, match="refused"):
        flat_name(path)


def test_paths_of_a_listing_become_flat_names():
    assert flat_name("data/2013/000.parquet", "data/") == "2013-000.parquet"
    assert flat_name("shard_00000.parquet") == "shard_00000.parquet"
