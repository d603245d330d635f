"""What is no conversation: refused with its place, or left out and listed."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import nanofast
from chat_shards import MESSAGE_OF_PARTS, as_parts, say, write_jsonl, write_parquet
from chat_twin import random_conversations, stream_of
from conftest import IS_LONG
from resumed import digest, following
from stream_twin import Stream

BAD = [{"role": "assistant", "content": "I begin."}]

pytestmark = pytest.mark.usefixtures("home_aside")


@pytest.mark.parametrize("overflow", ["carry", "crop"])
def test_carry_and_crop_are_refused(overflow: str, chat_tokenizer: nanofast.Tokenizer, tmp_path: Path):
    path = write_parquet(tmp_path / "a.parquet", [say("a", "b")] * 20)
    with pytest.raises(nanofast.InvalidError, match=f"overflow = `{overflow}`: conversations"):
        nanofast.ChatLoader(path, chat_tokenizer, 1, 8, overflow=overflow)


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "parts"])
@pytest.mark.parametrize(
    ("conversation", "place", "complaint"),
    [
        ([], "row 3", "no messages"),
        (None, "row 3", ""),
        ([{"role": "assistant", "content": "x"}], "row 3, message 0", "role `assistant`; expected `user`"),
        ([*say("a", "b"), {"role": "assistant", "content": "c"}], "row 3, message 2", "expected `user`"),
        ([{"role": "user", "content": None}], "row 3, message 0", "null"),
        ([{"role": None, "content": "x"}], "row 3, message 0", "null"),
    ],
)
def test_a_row_that_is_no_conversation_names_file_row_and_message(
    kind: str, conversation: Any, place: str, complaint: str, chat_tokenizer: nanofast.Tokenizer, tmp_path: Path
):
    conversations: list[Any] = [say("a", "b")] * 7
    conversations[3] = conversation
    path = tmp_path / ("a.jsonl" if kind == "jsonl" else "a.parquet")
    if kind == "jsonl":
        write_jsonl(path, conversations)
    elif kind == "parquet":
        write_parquet(path, conversations)
    else:
        parts = [c and as_parts(c) for c in conversations]
        write_parquet(path, parts, message=MESSAGE_OF_PARTS)
    with nanofast.ChatLoader(path, chat_tokenizer, 1, 64, lanes=1) as loader:
        for _ in range(2):  # a failed loader raises again
            with pytest.raises(nanofast.InvalidError) as refused:
                next(loader.numpy())
    assert f"bad conversation in `{path}`, row group 0, {place}" in str(refused.value)
    assert complaint in str(refused.value)


@pytest.mark.parametrize(
    ("table", "error", "complaint"),
    [
        ({"text": ["a"] * 9}, ValueError, "column `messages` not in .*has: `text`"),
        ({"messages": [1] * 9}, TypeError, "column `messages` of .* is int64; expected messages"),
        ({"messages": [["a"]] * 9}, TypeError, "is list<string>; expected messages"),
        ({"messages": [[{"role": "user"}]] * 9}, TypeError, r"is list<struct<role>>; expected messages \(list<struct"),
        ({"messages": [[{"role": "user", "content": 3}]] * 9}, TypeError, "expected messages"),
        ({"messages": [{"role": "user", "content": "x"}] * 9}, TypeError, "is struct<content, role>|struct<role, con"),
    ],
)
def test_a_column_of_another_type_is_refused(
    table: dict[str, Any], error: type[Exception], complaint: str, chat_tokenizer: nanofast.Tokenizer, tmp_path: Path
):
    pa.parquet.write_table(pa.table(table), tmp_path / "a.parquet")
    with pytest.raises(error, match=complaint):
        nanofast.ChatLoader(tmp_path / "a.parquet", chat_tokenizer, 1, 8)


def test_invalid_utf8_names_the_message(chat_tokenizer: nanofast.Tokenizer, tmp_path: Path):
    shape = pa.struct([("role", pa.string()), ("content", pa.binary())])
    rows = [[{"role": m["role"], "content": m["content"].encode()} for m in say("a", "b")] for _ in range(9)]
    rows[4][1]["content"] = b"ab\xff"
    path = write_parquet(tmp_path / "a.parquet", rows, message=shape)
    loader = nanofast.ChatLoader(path, chat_tokenizer, 1, 8, lanes=1)
    with loader, pytest.raises(nanofast.InvalidError, match="row 4, message 1: invalid UTF-8 at byte 2"):
        next(loader.numpy())
    (tmp_path / "a.jsonl").write_bytes(b'{"messages": [{"role": "user", "content": "\xff"}]}\n' * 9)
    loader = nanofast.ChatLoader(tmp_path / "a.jsonl", chat_tokenizer, 1, 8, lanes=1)
    with loader, pytest.raises(nanofast.InvalidError, match="row 0: a row that is no JSON"):
        next(loader.numpy())


@pytest.mark.parametrize("damage", ["flipped", "truncated"])
def test_damaged_columns_are_an_error_or_the_same_batches(
    damage: str, chat_tokenizer: nanofast.Tokenizer, tmp_path: Path
):
    conversations = [as_parts(c) for c in random_conversations(11, 40, parts=True)]
    options: dict[str, Any] = {"compression": "none", "write_page_checksum": False}
    path = write_parquet(tmp_path / "a.parquet", conversations, message=MESSAGE_OF_PARTS, **options)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    survived = 0
    for _ in range(300 if IS_LONG else 40):
        place = int(rng.integers(4, len(whole) - 8))
        data = bytearray(whole)
        if damage == "flipped":
            data[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(data if damage == "flipped" else data[:place])
        try:
            with nanofast.ChatLoader(path, chat_tokenizer, 4, 64, packing="concat", epochs=1, lanes=1) as loader:
                survived += sum(1 for _ in loader.numpy()) > 0
        except nanofast.Error:
            pass  # said in words
    assert survived > 0 if damage == "flipped" else survived == 0


def test_what_is_no_conversation_is_left_out_and_listed(chat_tokenizer: nanofast.Tokenizer, tmp_path: Path) -> None:
    conversations: list[Any] = random_conversations(3, 30)
    conversations[4] = conversations[20] = BAD
    path = write_parquet(tmp_path / "a.parquet", conversations)
    shared: dict[str, Any] = {"batch_size": 2, "sequence_length": 40, "lanes": 2, "seed": 4, "shuffle": True}
    kept = [None if conversation is BAD else conversation for conversation in conversations]
    pad = chat_tokenizer.special_tokens["<|assistant_end|>"]
    documents = stream_of(kept, chat_tokenizer, "pad", 41)
    stream = Stream([documents], packing="pad", bos=pad, pad_id=pad, **shared)  # type: ignore[arg-type]
    with nanofast.ChatLoader(path, chat_tokenizer, on_bad_data="quarantine", **shared) as loader:
        # buffers hold many conversations, so the bad ones are passed long before
        assert following(loader, 30) == [digest(batch) for batch in itertools.islice(stream.batches(), 30)]
        listed = {(part["row_group"], *part["rows"]) for part in loader.metrics()["quarantine"]}
        assert listed == {(0, 4, 5), (2, 6, 7)}
    with (
        nanofast.ChatLoader(path, chat_tokenizer, **shared) as loader,
        pytest.raises(ValueError, match=r"row group [02], row [46]"),
    ):
        following(loader, 30)
    with pytest.raises(ValueError, match="conversations are not repaired"):
        nanofast.ChatLoader(path, chat_tokenizer, invalid_utf8="replace", **shared)
