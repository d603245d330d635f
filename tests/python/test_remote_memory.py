"""`memory_limit_bytes` for data behind a URL: what is asked for ahead is counted, and nobody waits for ever."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import nanofast
from chat_shards import say, write_jsonl, write_parquet
from conftest import IS_LONG
from memory_parts import least_memory, taken
from range_server import RangeServer
from remote_parts import batches, loader, same
from shards import random_texts, write_shards
from test_memory import SLACK, english

MB = 1_000_000
QUICK = nanofast.Remote(stall_seconds=0.3, timeout_seconds=30)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`small`: four row groups in two shards; `large`: two shards of 32 MB that do not compress well."""
    root = tmp_path_factory.mktemp("served")
    (root / "small").mkdir()
    write_shards(root / "small", random_texts(1, [[300, 500, 200], [400]], longest=1000))
    (root / "large").mkdir()
    stock = english(1, 24 * MB)
    for number in range(2):
        texts = [stock[at : at + 3000] for at in range(number * 7, 24 * MB, 3000 * 3)] * 4
        table = pa.table({"text": texts})
        pq.write_table(table, root / "large" / f"{number}.parquet", compression="snappy", row_group_size=4000)
    return root


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[RangeServer]:
    with RangeServer(folder) as running:
        yield running


@pytest.mark.parametrize(("lanes", "num_threads"), [(1, 1), (8, 4)])
@pytest.mark.parametrize(
    "options",
    [{"packing": "concat", "unit_documents": 3}, {"shuffle": True, "shuffle_window": 50}, {"unit_documents": 0}],
    ids=["ranges", "shuffle", "row groups"],
)
def test_at_the_least_limit_comes_the_stream_of_the_files(
    options: dict[str, Any], lanes: int, num_threads: int, server: RangeServer, folder: Path
) -> None:
    options = {**options, "lanes": lanes}
    expected = batches(str(folder / "small"), 60, **options)
    url, options = f"{server.url}/small/", {**options, "num_threads": num_threads}
    least = least_memory(url, nanofast.Tokenizer.from_name("r50k_base"), 2, 64, **options)
    assert least == lanes * (2 << 20) + least_memory(
        str(folder / "small"), nanofast.Tokenizer.from_name("r50k_base"), 2, 64, **options
    )
    with loader(url, **options, memory_limit_bytes=least) as made:
        for batch in expected:
            assert same([next(made.numpy())], [batch])
            memory = made.metrics()["memory"]
            assert memory["reserved_bytes"] <= memory["used_bytes"] <= memory["peak_bytes"] <= least


def test_at_the_least_limit_faults_of_the_network_change_nothing(folder: Path) -> None:
    with RangeServer(folder, share=0.3, stall_seconds=0.6, only="small") as server:
        url, options = f"{server.url}/small/", {"lanes": 4, "num_threads": 3, "unit_documents": 0}
        least = least_memory(url, nanofast.Tokenizer.from_name("r50k_base"), 2, 64, **options)
        found = batches(url, 60, **options, memory_limit_bytes=least, remote=QUICK)
    assert same(found, batches(str(folder / "small"), 60, **options))


def least_of(read: Callable[[int], Any]) -> int:
    """The least limit with which `read` can read, as its refusal says."""
    with pytest.raises(ValueError, match="for what is asked of servers") as refused:
        read(1)
    return int(re.findall(r"at least (\d+)", str(refused.value))[0])


def test_lines_at_the_least_limit_are_those_of_the_file(
    server: RangeServer, folder: Path, chat_tokenizer: nanofast.Tokenizer
) -> None:
    write_jsonl(folder / "chats.jsonl", [say(f"Question {n}?" * 9, f"Answer {n}." * 9) for n in range(2500)])

    def read(data: str, **options: Any) -> Any:
        with nanofast.ChatLoader(data, chat_tokenizer, 2, 64, epochs=1, num_threads=2, **options) as made:
            return list(made.numpy())

    url = f"{server.url}/chats.jsonl"
    least = least_of(lambda limit: read(url, memory_limit_bytes=limit))
    assert same(read(url, memory_limit_bytes=least), read(str(folder / "chats.jsonl")))


def test_what_has_no_room_ahead_comes_straight_to_who_reads(
    server: RangeServer, folder: Path, chat_tokenizer: nanofast.Tokenizer, tmp_path: Path
) -> None:
    """One lane has one block, and conversations lie in two columns: that of the texts has to do without."""
    (folder / "chats").mkdir()
    stock = english(5, 3 * MB)
    said = [say(stock[at : at + 2000], stock[at + 2000 : at + 4000]) for at in range(0, 3 * MB - 4000, 4000)]
    write_parquet(folder / "chats" / "a.parquet", said * 2, row_group_size=2000, compression="snappy")
    url, remote = f"{server.url}/chats/", nanofast.Remote(tmp_path / "kept")

    def read(data: str, **options: Any) -> Any:
        with nanofast.ChatLoader(data, chat_tokenizer, 2, 64, epochs=1, num_threads=1, lanes=1, **options) as made:
            return list(made.numpy())

    def looks_for_pages() -> bool:
        """Whether the first KiB of a page was asked for, which says how large it is."""
        asked = re.findall(r"bytes=(\d+)-(\d+)", str(server.seen()))
        return 1 << 10 in {int(last) - int(first) + 1 for first, last in asked}

    expected = read(str(folder / "chats"))
    assert same(read(url), expected)
    assert not looks_for_pages()
    least = least_of(lambda limit: read(url, memory_limit_bytes=limit))
    assert same(read(url, memory_limit_bytes=least, remote=remote), expected)
    assert looks_for_pages()
    assert same(read(url, memory_limit_bytes=least, remote=remote), expected)
    assert not looks_for_pages()  # it is in the cache folder


@pytest.mark.parametrize("unit_documents", [0, 300])
def test_a_giant_is_an_error_with_the_number_that_does(unit_documents: int, folder: Path, server: RangeServer) -> None:
    small = ["some words " * 200] * 1000
    (folder / "giant").mkdir(exist_ok=True)
    with pq.ParquetWriter(folder / "giant" / "a.parquet", pa.schema([("text", pa.string())])) as writer:
        for texts in (small, [*small, english(3, 12 * MB), *small]):
            writer.write_table(pa.table({"text": texts}))
    options: dict[str, Any] = {"lanes": 2, "packing": "concat", "num_threads": 3, "unit_documents": unit_documents}

    def digest(data: str, limit: int) -> str | int:
        """Of all batches; or the limit that the error says."""
        digest = hashlib.sha256()
        with loader(data, **options, epochs=1, memory_limit_bytes=limit) as made:
            try:
                for inputs, _ in made.numpy(copy=False):
                    digest.update(inputs.tobytes())
            except MemoryError as error:
                return int(re.findall(r"allow at least (\d+)", str(error))[0])
            memory = made.metrics()["memory"]
            assert memory["peak_bytes"] <= limit
        return digest.hexdigest()

    url, tokenizer = f"{server.url}/giant/a.parquet", nanofast.Tokenizer.from_name("r50k_base")
    expected = digest(str(folder / "giant"), 1 << 30)
    enough = digest(url, least_memory(url, tokenizer, 2, 64, **options, epochs=1))
    assert isinstance(enough, int)
    assert digest(url, enough) == expected


@pytest.mark.parametrize(
    ("num_threads", "lanes", "limit", "more"),
    [
        (1, 1, 64 << 20, {"unit_documents": 0}),
        (4, 8, 256 << 20, {}),
        *([(16, 8, 512 << 20, {}), (4, 2, 1 << 30, {"shuffle": True, "shuffle_window": 500})] * IS_LONG),
    ],
)
def test_a_fresh_process_takes_no_more_than_the_limit_and_the_slack(
    num_threads: int, lanes: int, limit: int, more: dict[str, Any], server: RangeServer
) -> None:
    settings = {"data": f"{server.url}/large/", "sizes": [8, 1024], "num_threads": num_threads, "lanes": lanes}
    found = taken({**settings, **more, "memory_limit_bytes": limit, "bytes": (400 if IS_LONG else 60) * MB})
    assert found["error"] is None
    assert found["resident"] < found["limit_bytes"] + SLACK, found
    assert found["peak_bytes"] <= found["limit_bytes"]
