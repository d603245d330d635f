"""Data behind URLs, from real servers on loopback: the stream of the same files here, whatever the network does."""

from __future__ import annotations

import gc
import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

import nanofast
import remote_parts
from chat_shards import say, write_jsonl
from commands import data_command
from nanofast.remote import has_secrets, remote_json
from range_server import COMMIT, RangeServer
from remote_parts import batches, digest, loader, s3_server, same
from shards import random_texts, write_shards

QUICK = nanofast.Remote(stall_seconds=0.3, timeout_seconds=30)
SECRET = "s3cr3tw0rd"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set `owner/name` of three shards with eight row groups, among what is none."""
    root = tmp_path_factory.mktemp("served")
    data = root / "owner" / "name"
    data.mkdir(parents=True)
    write_shards(data, random_texts(7, [[60] * 8] * 3, longest=400))
    (data / "_hidden.parquet").write_bytes(b"none")
    (data / "README.md").write_bytes(b"none")
    (data / "below").mkdir()
    shutil.copy(data / "shard_00000.parquet", data / "below" / "other.parquet")
    return root


@pytest.fixture(scope="module")
def local(folder: Path) -> str:
    return str(folder / "owner" / "name")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own for each test, and no credentials of whoever runs them."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "GOOGLE_", "AZURE_", "HF_"))]:
        monkeypatch.delenv(name)
    for name in ("NANOFAST_HOME", "HF_HOME", "HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[RangeServer]:
    with RangeServer(folder) as running:
        yield running


@pytest.fixture(scope="module")
def s3(local: str) -> Iterator[str]:
    """The address of an S3 server whose bucket `shelf` holds the data set."""
    with s3_server(local) as url:
        yield url


@pytest.fixture
def keys(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)


def message(data: Any, **options: Any) -> str:
    with pytest.raises(nanofast.Error) as caught:
        batches(data, 3, **{"remote": QUICK, **options})
    return str(caught.value)


# ---- the stream ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"shuffle": True, "seed": 3}, {"unit_documents": 0, "packing": "concat"}])
def test_the_stream_of_a_web_server_is_that_of_the_files(server: RangeServer, local: str, options: Any) -> None:
    assert same(batches(f"{server.url}/owner/name/", **options), batches(local, **options))


@pytest.mark.usefixtures("keys")
@pytest.mark.parametrize("url", ["s3://shelf/a", "s3://shelf/a/", "s3://shelf/a/shard_*.parquet"])
def test_the_stream_of_a_bucket_is_that_of_the_files(local: str, url: str) -> None:
    assert same(batches(url), batches(local))


@pytest.mark.usefixtures("keys")
def test_objects_and_globs_name_what_files_would(local: str) -> None:
    names = lambda data, root: [  # noqa: E731
        str(found).removeprefix(root) for found in nanofast._nanofast.find_shards(data, remote_json([data], None))
    ]
    for pattern in ("shard_0000[02].parquet", "**/*.parquet", "shard_00001.parquet", "below"):
        found = names(f"s3://shelf/a/{pattern}", "s3://shelf/a")
        assert found == names(f"{local}/{pattern}", local)
        assert found


@pytest.mark.parametrize("at", ["", "@main"])
def test_the_hub_gives_a_commit_and_the_token_stays_with_it(
    folder: Path, local: str, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    with RangeServer(folder) as storage, RangeServer(folder, token=SECRET, sent_to=storage.url) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_TOKEN", SECRET)
        with loader(f"hf://datasets/owner/name{at}", epochs=1) as made:
            assert same(list(made.numpy()), batches(local))
            assert SECRET not in json.dumps(made.state_dict()) + repr(made)
        asked, sent = hub.seen(), storage.seen()
        assert {path.split("/")[6] for _, path, *_ in asked if "/tree/" in path} == {COMMIT}
        assert all(authorized for *_, authorized in asked)
        assert sent
        assert not any(authorized for *_, authorized in sent)
        monkeypatch.setenv("HF_TOKEN", "another")
        refused = message("hf://datasets/owner/name")
        assert "HF_TOKEN" in refused
        assert "another" not in refused


def test_faults_of_the_network_change_nothing(folder: Path, local: str) -> None:
    with RangeServer(folder, share=0.4, stall_seconds=0.6) as server:
        assert same(batches(f"{server.url}/owner/name/", remote=QUICK), batches(local))
        answers = {answer for _, _, _, answer, _ in server.seen()}
    assert {"500", "503", "429", "reset", "reset in the body", "short body"} <= answers
    assert any(answer.startswith("stall") for answer in answers)


def test_a_mixture_reads_here_and_there(server: RangeServer, local: str) -> None:
    here, there = f"{local}/shard_00000.parquet", f"{local}/shard_00001.parquet"
    url = f"{server.url}/owner/name/shard_00001.parquet"
    mixed = batches(nanofast.Mixture({"here": (here, 0.5), "there": (url, 0.5)}), 20)
    assert same(mixed, batches(nanofast.Mixture({"here": (here, 0.5), "there": (there, 0.5)}), 20))


def test_conversations_are_those_of_the_files(
    server: RangeServer, folder: Path, chat_tokenizer: nanofast.Tokenizer
) -> None:
    file = folder / "chats.jsonl"
    write_jsonl(file, [say(f"Question {n}?" * 9, f"Answer {n}." * 9) for n in range(2500)])

    def read(data: str) -> Any:
        with nanofast.ChatLoader(data, chat_tokenizer, 2, 64, epochs=1, num_threads=2) as made:
            return list(made.numpy())

    assert same(read(f"{server.url}/chats.jsonl"), read(str(file)))


def test_a_state_goes_on_wherever_the_data_lies(server: RangeServer, local: str) -> None:
    url, options = f"{server.url}/owner/name/", {"shuffle": True, "lanes": 4}
    expected = batches(local, 14, **options)
    for first, second in ((local, url), (url, local)):
        for at in (1, 6):
            with loader(first, **options) as made:
                list(islice(made.numpy(), at))
                state = json.loads(json.dumps(made.state_dict()))
            with loader(second, **options) as made:
                made.load_state_dict(state)
                assert same(list(islice(made.numpy(), 14 - at)), expected[at:])


def test_a_loader_pickles(server: RangeServer, local: str) -> None:
    with loader(f"{server.url}/owner/name/", remote=QUICK) as made:
        list(islice(made.numpy(), 3))
        with pickle.loads(pickle.dumps(made)) as copy:
            assert same(list(islice(copy.numpy(), 3)), batches(local, 6)[3:])


def test_a_forked_child_reads_with_connections_of_its_own(server: RangeServer, local: str) -> None:
    program = (
        "import os, sys, remote_parts as parts\n"
        "with parts.loader(sys.argv[1]) as made:\n"
        "    next(made.numpy())\n"
        "    if os.fork() == 0:\n"
        "        print(parts.digest(parts.batches(sys.argv[1], 9)), flush=True)\n"
        "        os._exit(0)\n"
        "    os.wait()\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", program, f"{server.url}/owner/name/"]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == digest(batches(local, 9))


# ---- what is asked for ---------------------------------------------------------------------------------------------


def test_the_plan_is_made_once_and_reads_nothing_twice(server: RangeServer, local: str, home: Path) -> None:
    url = f"{server.url}/owner/name/"
    shutil.rmtree(home, ignore_errors=True)
    server.seen()
    loader(url).close()
    sizes = {f"/owner/name/{file.name}": file.stat().st_size for file in Path(local).glob("shard_*")}

    def footers() -> list[str]:
        asked = [(path, part) for _, path, part, *_ in server.seen() if part not in ("", "bytes=0-0")]
        return [path for path, part in asked if part.endswith(f"-{sizes[path] - 1}")]

    assert sorted(footers()) == sorted(sizes)
    loader(url).close()
    assert footers() == []
    loader(url, text_column="text", split="train").close()
    assert footers() == []


def test_a_row_group_is_one_request(server: RangeServer, local: str) -> None:
    url = f"{server.url}/owner/name/shard_00000.parquet"
    loader(url).close()
    server.seen()
    batches(url, unit_documents=0, lanes=1)
    asked = [part for _, _, part, *_ in server.seen() if part != "bytes=0-0"]
    assert len(asked) == len(set(asked)) == 8


def test_the_cache_folder_spares_the_server(server: RangeServer, local: str, tmp_path: Path) -> None:
    url, remote = f"{server.url}/owner/name/", nanofast.Remote(tmp_path / "kept")
    assert same(batches(url, remote=remote), batches(local))
    server.seen()
    assert same(batches(url, remote=remote), batches(local))
    assert {part for _, _, part, *_ in server.seen()} <= {"", "bytes=0-0"}
    for block in (tmp_path / "kept").glob("*.block"):
        content = bytearray(block.read_bytes())
        content[len(content) // 2] ^= 1
        block.write_bytes(content)
    assert same(batches(url, remote=remote), batches(local))


def test_processes_share_a_cache_folder_within_its_limit(server: RangeServer, local: str, tmp_path: Path) -> None:
    big, limit = tmp_path / "big", 1 << 22
    big.mkdir()
    generator = random.Random(1)
    texts = [[[generator.randbytes(1500).hex() for _ in range(250)] for _ in range(3)] for _ in range(6)]
    write_shards(big, texts)
    assert sum(file.stat().st_size for file in big.iterdir()) > limit
    with RangeServer(tmp_path) as other:
        command = [sys.executable, remote_parts.__file__, f"{other.url}/big/", str(tmp_path / "kept"), str(limit)]
        running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
        most = 0
        while any(process.poll() is None for process in running):
            most = max(most, _held(tmp_path / "kept"))
            time.sleep(0.005)
        found = [process.communicate()[0].strip() for process in running]
    assert found == [digest(batches(str(big)))] * 3
    assert 0 < most <= limit


def _held(folder: Path) -> int:
    sizes = 0
    for file in folder.glob("*.*"):
        try:
            sizes += file.stat().st_size
        except FileNotFoundError:
            continue  # removed meanwhile
    return sizes


# ---- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings", [{}, {"honours_if_match": False}], ids=["the server compares", "the reader compares"]
)
def test_a_changed_object_is_refused_by_name(local: str, tmp_path: Path, settings: Any) -> None:
    shutil.copytree(local, tmp_path / "a")
    with RangeServer(tmp_path, **settings) as server, loader(f"{server.url}/a/", unit_documents=0, lanes=1) as made:
        for path in (tmp_path / "a").glob("shard_*"):
            path.with_suffix(".new").write_bytes(path.read_bytes())
            path.with_suffix(".new").rename(path)
        with pytest.raises(
            nanofast.InvalidError, match=r"shard_00000.parquet` changed while .*version: expected .*begin a new"
        ):
            list(made.numpy())


def test_an_object_of_another_size_is_refused_without_etags_too(local: str, tmp_path: Path) -> None:
    shutil.copytree(local, tmp_path / "a")
    settings = {"etags": False}
    with RangeServer(tmp_path, **settings) as server, loader(f"{server.url}/a/", unit_documents=0, lanes=1) as made:
        state = made.state_dict()
        for path in (tmp_path / "a").glob("shard_*"):
            path.write_bytes(path.read_bytes() + b"more")
        with pytest.raises(nanofast.InvalidError, match=r"shard_00000.parquet` changed while .*size.*expected"):
            list(made.numpy())
        write_shards(tmp_path / "a", random_texts(8, [[60] * 8] * 3, longest=400))
        other = loader(f"{server.url}/a/", unit_documents=0, lanes=1)
        with other, pytest.raises(nanofast.InvalidError, match="shard 0 differs"):
            other.load_state_dict(state)


@pytest.mark.parametrize("fault", ["503", "stall before the head", "stall in the body"])
def test_the_total_time_out_is_an_error_that_says_what_came_last(server: RangeServer, fault: str) -> None:
    url, remote = f"{server.url}/owner/name/shard_00000.parquet", nanofast.Remote(timeout_seconds=1, stall_seconds=0.2)
    server.set(always=fault, stall_seconds=1.0)
    try:
        refused = message(url, remote=remote)
    finally:
        server.set(always=None)
    assert f"cannot read `{url}`: no success within 1.0 s; at last" in refused
    assert "503" in refused if fault == "503" else "no byte came for 0.2 s" in refused
    assert "timeout_seconds" in refused


def test_a_server_without_ranges_or_files_is_refused_in_words(server: RangeServer) -> None:
    server.set(ranges=False)
    try:
        assert "whole files only" in message(f"{server.url}/owner/name/shard_00000.parquet")
    finally:
        server.set(ranges=True)
    assert "no such file or folder: `http://" in message(f"{server.url}/owner/name/none.parquet")
    assert "no parquet shards in `http://" in message(f"{server.url}/owner/")
    lost = f"{Path(server.url)}/owner"
    assert "pass it as a str" in message(lost)


@pytest.mark.usefixtures("keys")
def test_an_empty_bucket_and_a_missing_one_are_refused_by_name() -> None:
    assert "no such file or folder: `s3://shelf/none`" in message("s3://shelf/none")
    assert "`s3://nobodys/a`" in message("s3://nobodys/a")
    assert "no parquet shards in `s3://shelf/a/*.txt`" in message("s3://shelf/a/*.txt")


# ---- secrets -------------------------------------------------------------------------------------------------------


def test_no_message_or_state_holds_a_secret(folder: Path, local: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with RangeServer(folder, user=f"me:{SECRET}") as server:
        url = f"http://me:{SECRET}@{server.address}/owner/name/"
        with loader(url, epochs=1) as made:
            assert same(list(made.numpy()), batches(local))
            told = json.dumps(made.state_dict()) + repr(made) + json.dumps(made.metrics())
        refused = message(url.replace("me:", "you:"))
        assert f"cannot read `{server.url}/owner/name/`: access is refused (HTTP 401)" in refused
        server.set(user=None, signature=f"sig={SECRET}")
        signed = f"{server.url}/owner/name/shard_00000.parquet?sig={SECRET}"
        batches(signed, 3)
        refused += message(signed + "x")
        assert "403" in refused
        server.set(signature=None, always="503")
        refused += message(signed, remote=nanofast.Remote(timeout_seconds=0.5))
        for broken in (f"http://me:{SECRET}@127.0.0.1:1/a.parquet", f"s3://me:{SECRET}@shelf/a"):
            refused += message(broken, remote=nanofast.Remote(timeout_seconds=0.5))
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", SECRET)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        server.set(always=None, token="none")
        refused += message("s3://owner/name/shard_00000.parquet")
        assert "AWS_SECRET_ACCESS_KEY" in refused
    assert SECRET not in told + refused


def test_a_run_keeps_no_url_with_a_secret() -> None:
    for url in (f"https://me:{SECRET}@host/a.parquet", f"http://host/a.parquet?sig={SECRET}"):
        assert has_secrets(url)
    assert not has_secrets("https://host/a.parquet")
    assert not has_secrets("s3://shelf/a?.parquet")
    command = [sys.executable, "-m", "nanofast.train", "--data", f"https://host/a.parquet?sig={SECRET}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "give credentials in the environment" in done.stderr
    assert SECRET not in done.stdout + done.stderr


def test_keys_come_from_a_profile_of_the_credentials_file(s3: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3)
    (home / ".aws").mkdir(parents=True)
    (home / ".aws" / "credentials").write_text(f"[mine]\naws_access_key_id=a\naws_secret_access_key={SECRET}\n")
    monkeypatch.setenv("AWS_PROFILE", "mine")
    settings = remote_json(["s3://shelf/a"], None)
    assert settings is not None
    assert ["AWS_SECRET_ACCESS_KEY", SECRET] in json.loads(settings)["options"]
    assert batches("s3://shelf/a", 3)


# ---- ends ----------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(60)
def test_close_does_not_wait_for_a_server_that_stalls(server: RangeServer) -> None:
    made = loader(f"{server.url}/owner/name/")
    server.set(always="stall before the head", stall_seconds=1.0)
    try:
        waiting = threading.Thread(target=_refused, args=[made.numpy()])
        waiting.start()
        while not any(answer.startswith("stall") for *_, answer, _ in server.seen()):
            time.sleep(0.01)
        made.close()
        waiting.join()
        del made
    finally:
        server.set(always=None)
    while any(thread.startswith("nanofast") for thread in _threads()):  # those that wait for servers end behind it
        gc.collect()
        time.sleep(0.01)


def _refused(batches: Iterator[Any]) -> None:
    with pytest.raises(nanofast.Error):
        next(batches)


def _threads() -> list[str]:
    tasks = Path("/proc/self/task")
    return [(task / "comm").read_text() for task in tasks.iterdir()] if tasks.is_dir() else []


@pytest.mark.timeout(60)
def test_ctrl_c_ends_the_making_of_a_plan(folder: Path) -> None:
    with RangeServer(folder, always="stall before the head", stall_seconds=600) as server:
        program = "import sys, remote_parts; print(1, flush=True); remote_parts.loader(sys.argv[1])"
        command = [sys.executable, "-c", program, f"{server.url}/owner/name/shard_00000.parquet"]
        running = subprocess.Popen(
            command, cwd=Path(__file__).parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert running.stdout is not None
        running.stdout.readline()
        time.sleep(0.5)
        running.send_signal(signal.SIGINT)
        assert "KeyboardInterrupt" in running.communicate()[1]
        server.process.kill()


# ---- commands ------------------------------------------------------------------------------------------------------


def test_inspect_tells_of_a_url_what_it_tells_of_files(server: RangeServer, local: str) -> None:
    here = json.loads(data_command("inspect", local, "--json").stdout)
    there = json.loads(data_command("inspect", f"{server.url}/owner/name/", "--json").stdout)
    assert {**there, "path": local} == here
