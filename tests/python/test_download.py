"""Downloads: whole, verified and named, or not there; against a server on loopback that misbehaves."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conftest import IS_LONG
from misbehaving import FAULTS, Server
from nanofast import _nanofast
from nanofast.data.download import MANIFEST, Manifest, Summary, download
from nanofast.data.fetch import Fetcher, FetchError, Patience, Source, new_client
from nanofast.data.inputs import find_inputs
from nanofast.data.names import checked_name, flat_name
from nanofast.data.published import _guard_session, chosen, list_template

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


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A few small parquet files, by path."""
    folder = tmp_path_factory.mktemp("shards")
    files = {}
    for index in range(8):
        texts = [f"document {index} {row} " + "word " * (row % 50) for row in range(400)]
        pq.write_table(pa.table({"text": texts}), folder / "shard.parquet", compression="none", use_dictionary=False)
        files[f"/shard_{index:05d}.parquet"] = (folder / "shard.parquet").read_bytes()
    return files


@pytest.fixture
def server(shards: dict[str, bytes]) -> Iterator[Server]:
    with Server(dict(shards)) as running:
        yield running


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


def missing_in(folder: Path, server: Server) -> subprocess.CompletedProcess[str]:
    """The command, where it cannot write: a line a shard, nothing under a final name, exit code 1."""
    found = subprocess.run(command(server, folder), capture_output=True, text=True, check=False)
    assert found.returncode == 1, found.stdout + found.stderr
    assert found.stderr == ""
    lines = [line for line in found.stdout.splitlines() if line.startswith("missing: ")]
    assert len(lines) == len(server.files)
    assert list(folder.glob("shard*")) == []
    return found


def test_a_disk_that_is_full_is_told_in_a_line(server: Server, tmp_path: Path):
    mount = ["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(tmp_path)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this user cannot mount a small file system")
    try:
        assert "No space left on device" in missing_in(tmp_path, server).stdout
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_read_only_folder_is_told_in_a_line(server: Server, tmp_path: Path):
    if os.geteuid() == 0:
        mount = ["mount", "-t", "tmpfs", "-o", "ro,size=8k", "tmpfs", str(tmp_path)]
        try:
            subprocess.run(mount, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("root writes everywhere, and cannot mount a read-only file system here")
    else:
        tmp_path.chmod(0o500)
    try:
        found = missing_in(tmp_path, server)
        assert "Read-only file system" in found.stdout or "Permission denied" in found.stdout
        assert server.served == []
    finally:
        if os.geteuid() == 0:
            subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_proxy_of_the_environment_is_used(server: Server, tmp_path: Path):
    content = server.files["/shard_00000.parquet"]
    server.files["http://shards.invalid/shard_00000.parquet"] = content  # what a proxy is asked for
    words = ["download", "--url-template", "http://shards.invalid/shard_{index:05d}.parquet", "--num-shards", "1"]
    environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    found = subprocess.run(
        [sys.executable, "-m", "nanofast.data", *words, "--to", str(tmp_path)],
        env={**environment, "HTTP_PROXY": server.url, "http_proxy": server.url},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    assert (tmp_path / "shard_00000.parquet").read_bytes() == content


def test_progress_is_bars_in_a_terminal_and_lines_elsewhere(server: Server, tmp_path: Path):
    server.bytes_per_second = 100_000
    lines = subprocess.run(command(server, tmp_path / "a"), capture_output=True, text=True, check=True).stdout
    for path in server.files:
        assert re.search(rf"^\[\d/8\] {path.strip('/')}: \d+\.\d MB in \d+\.\d s$", lines, re.MULTILINE)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 160, 0, 0))
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "160"}
    process = subprocess.Popen(command(server, tmp_path / "b"), stdout=theirs, env=environment)
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # how a terminal says that the other end is gone
        while chunk := os.read(ours, 65536):
            shown += chunk
    os.close(ours)
    assert process.wait(60) == 0
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode())
    assert re.search(r"all .*bytes|all .*[kM]B", text), "a bar for all"
    assert re.search(r"shard_00003.parquet .*[kM]?B/s .*\d:\d\d:\d\d", text), "a bar a file, with rate and time left"
    assert "8 fetched" in text


def test_presets_are_listed_with_licence_and_size():
    words = [sys.executable, "-m", "nanofast.data", "download", "--list"]
    text = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    presets = json.loads(subprocess.run([*words, "--json"], capture_output=True, text=True, check=True).stdout)
    assert set(presets) == {"fineweb-edu", "climbmix", "fineweb", "smoltalk"}
    for preset in presets.values():
        assert preset["license"] in text
        assert preset["size"] in text
        assert "GB" in preset["size"]


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


def command(server: Server, folder: Path, *more: str) -> list[str]:
    template = server.url + "/shard_{index:05d}.parquet"
    words = [
        "download",
        "--url-template",
        template,
        "--num-shards",
        str(len(server.files)),
        "-n",
        "-1",
        "--to",
        str(folder),
    ]
    return [sys.executable, "-m", "nanofast.data", *words, *more]


def test_two_processes_share_a_folder(server: Server, tmp_path: Path):
    server.bytes_per_second = 100_000
    both = [subprocess.Popen(command(server, tmp_path), stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait(120) for process in both] == [0, 0]
    assert is_right(tmp_path, server)
    assert leftovers(tmp_path) == []
    assert sum(served == "ok" for _, served, _ in server.served) == len(server.files), "each was fetched once"


def test_kills_during_many_downloads_are_healed(
    shards: dict[str, bytes], tmp_path: Path, record_property: Callable[[str, object], None]
):
    wanted = 50 if IS_LONG else 8
    record_property("kills", wanted)
    contents = list(shards.values())
    files = {f"/shard_{index:05d}.parquet": contents[index % len(contents)] for index in range(6 * wanted)}
    with Server(files) as server:
        server.bytes_per_second = 80_000
        kills = 0
        while kills < wanted:
            process = subprocess.Popen(command(server, tmp_path), stdout=subprocess.DEVNULL)
            done = len(list(tmp_path.glob("shard*"))) if tmp_path.exists() else 0
            while process.poll() is None and len(list(tmp_path.glob("shard*"))) < done + 3:
                time.sleep(0.005 * (1 + kills % 5))
            process.send_signal(signal.SIGKILL)
            process.wait(60)
            kills += 1
            for path in tmp_path.glob("shard*"):
                assert path.read_bytes() == files["/" + path.name], "what has its name is whole"
        server.bytes_per_second = None
        assert subprocess.run(command(server, tmp_path), stdout=subprocess.DEVNULL, check=False).returncode == 0
        assert is_right(tmp_path, server)
        assert leftovers(tmp_path) == []


def test_an_interrupt_ends_at_once_even_while_a_server_is_silent(server: Server, tmp_path: Path):
    server.stall_seconds = 60
    for path in server.files:
        server.always[path] = "stall in the body"
    process = subprocess.Popen(command(server, tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not any(path.stat().st_size for path in tmp_path.glob(".*.partial")):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)  # well under the server's silence, and the 30 s that we would listen
    assert process.returncode == 130
    assert errors.strip() == "interrupted; the next start goes on where this one ended"


def test_the_exit_code_and_the_summary_say_what_is_missing(server: Server, tmp_path: Path):
    del server.files["/shard_00004.parquet"]
    words = command(server, tmp_path)
    words[words.index("--num-shards") + 1] = "8"
    found = subprocess.run(words, capture_output=True, text=True, check=False)
    assert found.returncode == 1
    assert "7 fetched, 0 were there, 1 missing" in found.stdout
    assert "missing: shard_00004.parquet: `shard_00004.parquet`: 404 Not Found" in found.stdout
    found = subprocess.run([*words, "--json"], capture_output=True, text=True, check=False)
    assert found.returncode == 1
    assert list(json.loads(found.stdout)["missing"]) == ["shard_00004.parquet"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name one of a preset"),
        (["fineweb", "--repo", "a/b"], "name one of a preset"),
        (["--url-template", "http://h/shard.parquet", "--num-shards", "3"], "expected one field"),
        (["--url-template", "http://h/{other}.parquet", "--num-shards", "3"], "expected one field"),
        (["--url-template", "http://h/{index}.parquet"], "needs --num-shards"),
        (["--url-template", "http://h/{index}.bin", "--num-shards", "3"], "no .parquet file"),
        (["--url-template", "http://h/{index}.parquet", "--num-shards", "3", "-n", "-2"], "-1 (all) or more"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(words: list[str], message: str):
    found = subprocess.run(
        [sys.executable, "-m", "nanofast.data", "download", *words], capture_output=True, text=True, check=False
    )
    assert found.returncode == 2
    assert found.stderr.count("\n") == 1
    assert message in found.stderr


def test_a_folder_that_cannot_be_made_is_one_line(server: Server, tmp_path: Path):
    (tmp_path / "file").touch()
    found = subprocess.run(command(server, tmp_path / "file" / "data"), capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert found.stderr.count("\n") == 1


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
