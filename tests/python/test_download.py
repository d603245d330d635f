"""Downloads: whole, verified and named, or not there; against a server on loopback that misbehaves."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest

from download_parts import HASTY, fetch_all, is_right, leftovers, small_shards, sources_of
from misbehaving import FAULTS, Server
from nanofast import _nanofast
from nanofast.data.download import MANIFEST, Manifest
from nanofast.data.fetch import Fetcher, FetchError, Patience, Source, new_client
from nanofast.data.inputs import find_inputs


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return small_shards(tmp_path_factory.mktemp("shards"))


@pytest.fixture
def server(shards: dict[str, bytes]) -> Iterator[Server]:
    with Server(dict(shards)) as running:
        yield running


def test_fetches_everything_once(server: Server, tmp_path: Path):
    sources = sources_of(server)
    first = fetch_all(sources, tmp_path)
    assert sorted(first.fetched) == [source.name for source in sources]
    assert first.missing == {}
    assert is_right(tmp_path, server)
    assert leftovers(tmp_path) == []
    requests = len(server.served)
    second = fetch_all(sources, tmp_path)
    assert sorted(second.present) == [source.name for source in sources]
    assert len(server.served) == requests


def test_the_manifest_is_not_taken_for_data(server: Server, tmp_path: Path):
    fetch_all(sources_of(server), tmp_path)
    names = [path.strip("/") for path in sorted(server.files)]
    assert [Path(source.path).name for source in find_inputs([str(tmp_path)])] == names
    assert [Path(path).name for path in _nanofast.find_conversations(tmp_path)] == names
    assert [Path(path).name for path in _nanofast.find_shards(tmp_path)] == names


@pytest.mark.parametrize("hashed", [True, False])
@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_outlasted(shards: dict[str, bytes], tmp_path: Path, fault: str, hashed: bool):
    path = "/shard_00000.parquet"
    with Server({path: shards[path]}, share=1.0) as server:
        server.faults = (fault,)
        sources = sources_of(server, hashed=hashed)
        patience = Patience(**{**vars(HASTY), "read_seconds": 0.25})
        assert fetch_all(sources, tmp_path, patience=patience).missing == {}
        assert [served for _, served, _ in server.served] == [fault] * 4 + ["ok"] or fault in ("no range",)
        assert is_right(tmp_path, server)
        assert leftovers(tmp_path) == []


def test_a_thousand_downloads_with_many_faults_are_all_right(
    shards: dict[str, bytes], tmp_path: Path, record_property: Callable[[str, object], None]
):
    record_property("files with faults in 30 % of the answers", 1000)
    contents = list(shards.values())
    files = {f"/shard_{index:05d}.parquet": contents[index % len(contents)] for index in range(1000)}
    with Server(files, share=0.3, seed=7, stall_seconds=1.0) as server:
        summary = fetch_all(sources_of(server), tmp_path, num_workers=16)
        assert summary.missing == {}
        assert len(summary.fetched) == len(files)
        assert is_right(tmp_path, server)
        assert leftovers(tmp_path) == []
        assert {served for _, served, _ in server.served} == {"ok", *FAULTS}


def test_goes_on_where_it_was_cut(shards: dict[str, bytes], tmp_path: Path):
    path = "/shard_00000.parquet"
    with Server({path: shards[path]}, share=1.0) as server:
        server.faults = ("short body",)
        fetch_all(sources_of(server), tmp_path)
        assert is_right(tmp_path, server)
        asked = int(server.seen_headers[path]["Range"].removeprefix("bytes=").removesuffix("-"))
        assert asked > 0.9 * len(shards[path]), "four times half of the rest were there already"
        assert server.seen_headers[path]["If-Range"].startswith('"')


def test_a_part_of_another_version_is_not_kept(shards: dict[str, bytes], tmp_path: Path):
    path = "/shard_00000.parquet"
    with Server({path: shards[path]}) as server:
        source = sources_of(server, hashed=False)[0]
        (tmp_path / f".{source.name}.partial").write_bytes(b"PAR1 something else")
        (tmp_path / f".{source.name}.partial.json").write_text('{"tag": "\\"an older one\\""}')
        server.always[path] = "no range"  # what a server does that minds If-Range
        assert fetch_all([source], tmp_path).missing == {}
        assert is_right(tmp_path, server)


def test_parts_that_nobody_vouches_for_are_not_kept(server: Server, tmp_path: Path):
    source = sources_of(server, hashed=False)[0]
    (tmp_path / f".{source.name}.partial").write_bytes(b"PAR1 something else")
    assert fetch_all([source], tmp_path).missing == {}
    assert (tmp_path / source.name).read_bytes() == server.files["/" + source.name]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("zeros at the end", "SHA-256"),
        ("half with a length to match", "the publisher states"),
        ("503", "503 Service Unavailable"),
        ("short body", "gave up"),
        ("stall before the head", "ReadTimeout"),
    ],
)
def test_what_stays_wrong_is_missing_with_its_reason(server: Server, tmp_path: Path, fault: str, reason: str):
    path = "/shard_00003.parquet"
    server.always[path] = fault
    patience = Patience(**{**vars(HASTY), "attempts": 3, "wrong_attempts": 2, "total_seconds": 3.0})
    summary = fetch_all(sources_of(server), tmp_path, patience=patience)
    assert list(summary.missing) == ["shard_00003.parquet"]
    assert reason in summary.missing["shard_00003.parquet"]
    assert not (tmp_path / "shard_00003.parquet").exists()
    assert len(summary.fetched) == 7


def test_without_a_hash_the_footer_decides(server: Server, tmp_path: Path):
    server.always["/shard_00003.parquet"] = "zeros at the end"
    summary = fetch_all(sources_of(server, hashed=False), tmp_path)
    assert "bad parquet data" in summary.missing["shard_00003.parquet"]


def test_what_is_not_there_is_not_asked_for_again(server: Server, tmp_path: Path):
    asked = []
    server.answers["/gone.parquet"] = lambda handler: asked.append(1) or handler.answer(404)
    server.answers["/mine.parquet"] = lambda handler: asked.append(2) or handler.answer(401)
    sources = [
        Source("gone.parquet", server.url + "/gone.parquet"),
        Source("mine.parquet", server.url + "/mine.parquet"),
    ]
    summary = fetch_all(sources, tmp_path)
    assert "404 Not Found" in summary.missing["gone.parquet"]
    assert "HF_TOKEN" in summary.missing["mine.parquet"]
    assert sorted(asked) == [1, 2]
    assert [name for name in leftovers(tmp_path) if not name.endswith((".partial", ".json"))] == []


def test_redirects_are_followed_but_not_in_circles(server: Server, tmp_path: Path):
    server.answers["/round"] = lambda handler: handler.answer(302, Location="/round")
    server.answers["/moved"] = lambda handler: handler.answer(302, Location="/shard_00000.parquet")
    sources = [Source("round.parquet", server.url + "/round"), Source("moved.parquet", server.url + "/moved")]
    summary = fetch_all(sources, tmp_path)
    assert summary.fetched == ["moved.parquet"]
    assert "redirects in a circle" in summary.missing["round.parquet"]


def test_a_redirect_from_https_to_http_is_refused(tmp_path: Path):
    def answer(request: httpx2.Request) -> httpx2.Response:
        assert request.url.scheme == "https", "the plain address must not even be asked"
        return httpx2.Response(302, headers={"Location": "http://example.org/a.parquet"})

    stop = threading.Event()
    with new_client(HASTY, httpx2.MockTransport(answer)) as client:
        fetcher = Fetcher(client, HASTY, stop)
        with pytest.raises(FetchError, match="redirect from https to http refused"):
            fetcher.fetch(Source("a.parquet", "https://example.org/a.parquet"), tmp_path / "a.parquet")
    assert not (tmp_path / "a.parquet").exists()


def test_retry_after_is_honoured(server: Server, tmp_path: Path):
    path, times = "/shard_00000.parquet", []

    def answer(handler) -> None:
        times.append(time.monotonic())
        if len(times) == 1:
            handler.answer(429, Retry_After="1")
        else:
            handler.serve(server.files[path])

    server.answers[path] = answer
    patience = Patience(**{**vars(HASTY), "max_wait_seconds": 5.0})
    fetch_all(sources_of(server)[:1], tmp_path, patience=patience)
    assert times[1] - times[0] >= 1.0


def test_a_server_that_asks_for_time_again_and_again_gets_it(server: Server, tmp_path: Path):
    path, asked = "/shard_00000.parquet", []

    def answer(handler) -> None:
        asked.append(1)
        if len(asked) <= 5:
            handler.answer(429, Retry_After="1")
        else:
            handler.serve(server.files[path])

    server.answers[path] = answer
    patience = Patience(**{**vars(HASTY), "attempts": 2})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "nanofast.data.fetch._retry_after", lambda response: 0.01 if response.status_code == 429 else None
        )
        assert fetch_all(sources_of(server)[:1], tmp_path, patience=patience).missing == {}
    assert len(asked) == 6


def test_a_server_may_ask_for_more_patience_than_our_own_but_not_than_the_users(server: Server, tmp_path: Path):
    path, times = "/shard_00000.parquet", []
    wanted = ["2", "1000000000"]

    def answer(handler) -> None:
        times.append(time.monotonic())
        handler.answer(503, Retry_After=wanted[len(times) - 1])

    server.answers[path] = answer
    patience = Patience(**{**vars(HASTY), "max_wait_seconds": 0.1})
    missing = fetch_all(sources_of(server)[:1], tmp_path, patience=patience).missing
    assert times[1] - times[0] >= 2.0
    assert len(times) == 2, "a wait that ends after --timeout is not begun"
    assert "503 Service Unavailable and asks to wait 1000000000 s" in missing["shard_00000.parquet"]


def test_the_time_for_a_file_ends_whatever_comes_a_byte_at_a_time(server: Server, tmp_path: Path):
    def drip_head(handler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while not server.ended.wait(0.05):
            handler.wfile.write(b"a")

    server.answers["/shard_00000.parquet"] = drip_head
    server.always["/shard_00001.parquet"] = "drip"
    patience = Patience(**{**vars(HASTY), "total_seconds": 0.6, "window_seconds": 50.0})
    summary = fetch_all(sources_of(server)[:3], tmp_path, patience=patience)
    assert "no answer within" in summary.missing["shard_00000.parquet"]
    assert "out of time" in summary.missing["shard_00001.parquet"]
    assert summary.fetched == ["shard_00002.parquet"]


def test_a_full_disk_ends_everything_with_one_reason(server: Server, tmp_path: Path):
    code = (
        "import resource, signal, sys, threading, pathlib\n"
        "from nanofast.data.download import download\n"
        "from nanofast.data.fetch import *\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10000, 10000))\n"
        "url, folder = sys.argv[1:]\n"
        "stop = threading.Event()\n"
        "sources = [Source(f'shard_{i:05d}.parquet', f'{url}/shard_{i:05d}.parquet') for i in range(8)]\n"
        "fetcher = Fetcher(new_client(Patience()), Patience(), stop)\n"
        "summary = download(sources, pathlib.Path(folder), fetcher, num_workers=1, stop=stop)\n"
        "assert len(summary.missing) == 8\n"
        "print(summary.missing['shard_00000.parquet'])\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, server.url, tmp_path], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    assert "cannot write" in found.stdout
    assert "File too large" in found.stdout
    assert len(server.served) == 1, "the others were not even tried"
    assert list(tmp_path.glob("shard*")) == []


def test_verify_finds_what_changed_on_disk(server: Server, tmp_path: Path):
    sources = sources_of(server)
    fetch_all(sources, tmp_path)
    victim = tmp_path / sources[2].name
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    assert fetch_all(sources, tmp_path).fetched == [], "same length, and in the manifest"
    assert fetch_all(sources, tmp_path, verify=True).fetched == [sources[2].name]
    assert is_right(tmp_path, server)


def test_a_file_cut_on_disk_is_fetched_again(server: Server, tmp_path: Path):
    sources = sources_of(server, hashed=False)
    fetch_all(sources, tmp_path)
    victim = tmp_path / sources[2].name
    victim.write_bytes(victim.read_bytes()[:-100])
    assert fetch_all(sources, tmp_path).fetched == [sources[2].name]
    assert is_right(tmp_path, server)


def test_a_torn_manifest_costs_no_download(server: Server, tmp_path: Path):
    sources = sources_of(server)
    fetch_all(sources, tmp_path)
    manifest = tmp_path / MANIFEST
    manifest.write_bytes(manifest.read_bytes()[:-20])
    requests = len(server.served)
    assert fetch_all(sources, tmp_path).fetched == []
    assert len(server.served) == requests
    assert len(Manifest(tmp_path).read()) == len(sources)


def test_links_that_lie_there_are_not_written_through(server: Server, tmp_path: Path):
    sources, precious = sources_of(server), tmp_path / "precious"
    precious.write_text("untouched")
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / sources[0].name).symlink_to(precious)
    (folder / f".{sources[1].name}.partial").symlink_to(precious)
    (folder / f".{sources[2].name}.partial.json").symlink_to(precious)
    summary = fetch_all(sources, folder)
    assert precious.read_text() == "untouched"
    assert sources[0].name in summary.fetched
    assert set(summary.missing) == {sources[1].name, sources[2].name}
