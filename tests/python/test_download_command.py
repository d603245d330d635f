"""The download command: what it says, disks that refuse, several processes, kills and interrupts."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import IS_LONG
from download_parts import is_right, leftovers, small_shards
from misbehaving import Server


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return small_shards(tmp_path_factory.mktemp("shards"))


@pytest.fixture
def server(shards: dict[str, bytes]) -> Iterator[Server]:
    with Server(dict(shards)) as running:
        yield running


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
