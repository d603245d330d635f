"""Where conversations come from: layouts, columns, lines, plain text, data sets that count more than once, mixtures."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import nanofast
from chat_shards import MESSAGE_OF_PARTS, as_lists, as_parts, say, write_jsonl, write_parquet
from chat_twin import random_conversations, render, stream_of
from resumed import digest, following
from stream_twin import MixedStream

pytestmark = pytest.mark.usefixtures("home_aside")


def test_parts_json_lines_and_other_layouts_give_the_same_batches(chat_tokenizer: nanofast.Tokenizer, tmp_path: Path):
    conversations = [say(f"question {index}\n", f"answer {index} 名前") for index in range(50)]
    conversations[7].insert(0, {"role": "system", "content": "Be kind."})
    names = {"user": "human", "assistant": "gpt", "system": "system"}
    sharegpt = [[{"from": names[m["role"]], "value": m["content"]} for m in rows] for rows in conversations]
    alpaca = {
        "instruction": [rows[-2]["content"] for rows in conversations],
        "output": [rows[-1]["content"] for rows in conversations],
        "system": ["Be kind." if len(rows) == 3 else None for rows in conversations],
    }
    shape = pa.struct([("from", pa.string()), ("value", pa.string())])
    files: dict[str, tuple[Path, dict[str, Any]]] = {
        "jsonl": (write_jsonl(tmp_path / "a.jsonl", conversations), {}),
        "parts": (
            write_parquet(tmp_path / "p.parquet", [as_parts(c) for c in conversations], message=MESSAGE_OF_PARTS),
            {},
        ),
        "sharegpt": (
            write_parquet(tmp_path / "s.parquet", sharegpt, message=shape, column="conversations"),
            {"layout": "sharegpt"},
        ),
        "renamed": (
            write_parquet(tmp_path / "r.parquet", conversations, column="chat"),
            {"messages_column": "chat"},
        ),
        "alpaca": (tmp_path / "alpaca.parquet", {"layout": "alpaca"}),
        "json": (tmp_path / "json.parquet", {}),
        "sharegpt lines": (tmp_path / "s.jsonl", {"layout": "sharegpt"}),
        "alpaca lines": (tmp_path / "i.jsonl", {"layout": "alpaca"}),
    }
    pa.parquet.write_table(pa.table(alpaca), files["alpaca"][0])
    pa.parquet.write_table(pa.table({"messages": [json.dumps(c) for c in conversations]}), files["json"][0])
    lines = "".join(json.dumps({"conversations": rows, "id": 1}) + "\r\n" for rows in sharegpt)
    files["sharegpt lines"][0].write_text(lines)
    rows = [dict(zip(alpaca, values, strict=True)) for values in zip(*alpaca.values(), strict=True)]
    files["alpaca lines"][0].write_text("\n".join(json.dumps(row) for row in rows))
    expected = [render(conversation, chat_tokenizer) for conversation in conversations]
    for name, (path, options) in files.items():
        with nanofast.ChatLoader(
            path, chat_tokenizer, 1, 200, packing="one_per_row", epochs=1, lanes=1, unit_documents=0, **options
        ) as loader:
            found = as_lists(loader.numpy())
        assert [inputs[0] for inputs, _ in found] == [ids[:-1] for ids, _ in expected], name
        targets = [[token if ok else -1 for token, ok in list(zip(*r, strict=True))[1:]] for r in expected]
        assert [found_targets[0] for _, found_targets in found] == targets, name


def encoded(encoding: str) -> dict[str, str]:
    element = "messages.list.element"
    leaves = ("role", "content.list.element.type", "content.list.element.text")
    return {f"{element}.{leaf}": encoding for leaf in leaves}


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "snappy", "data_page_version": "2.0"},
        {"compression": "none", "use_dictionary": False, "data_page_size": 100},
        {"compression": "gzip", "use_dictionary": False, "column_encoding": encoded("DELTA_BYTE_ARRAY")},
        {"compression": "lz4", "use_dictionary": False, "column_encoding": encoded("DELTA_LENGTH_BYTE_ARRAY")},
        {"row_group_size": 1000, "data_page_size": 64, "data_page_version": "2.0", "use_compliant_nested_type": False},
    ],
)
def test_columns_are_read_however_they_were_written(
    options: dict[str, Any], chat_tokenizer: nanofast.Tokenizer, tmp_path: Path
):
    conversations = random_conversations(4, 60, parts=True)
    path = write_parquet(
        tmp_path / "a.parquet", [as_parts(c) for c in conversations], message=MESSAGE_OF_PARTS, **options
    )
    expected = [render(c, chat_tokenizer)[0] for c in conversations]
    with nanofast.ChatLoader(path, chat_tokenizer, 1, 4096, packing="concat", epochs=1, lanes=1) as loader:
        stream = [token for inputs, _ in loader.numpy() for token in inputs[0].tolist()]
    assert stream[: sum(map(len, expected))] == list(itertools.chain.from_iterable(expected))


def test_plain_text_joins_conversations_in_one_stream(chat_tokenizer: nanofast.Tokenizer, tmp_path: Path):
    conversations = random_conversations(5, 10)
    texts = [f"document {index}" for index in range(10)]
    chat = write_parquet(tmp_path / "a.parquet", conversations)
    pa.parquet.write_table(pa.table({"text": texts}), tmp_path / "b.parquet")
    (tmp_path / "c.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    bos = chat_tokenizer.special_tokens["<|bos|>"]
    expected = [render(c, chat_tokenizer)[0] for c in conversations]
    expected += [[bos, *chat_tokenizer.encode(text).tolist()] for text in [*texts, *texts]]
    stream = list(itertools.chain.from_iterable(expected))
    paths = [chat, tmp_path / "b.parquet", tmp_path / "c.jsonl"]
    with nanofast.ChatLoader(paths, chat_tokenizer, 1, 16, packing="concat", epochs=1, lanes=1) as loader:
        batches = as_lists(loader.numpy())
    assert [token for inputs, _ in batches for token in inputs[0]][: len(stream) - 1] == stream[:-1]
    assert [token for _, targets in batches for token in targets[0]][: len(stream) - 1] == stream[1:]
    with pytest.raises(nanofast.InvalidError, match="column `messages` not in"):
        nanofast.ChatLoader(paths, chat_tokenizer, 1, 16)


def test_conversations_and_text_share_a_stream_by_weight(chat_tokenizer: nanofast.Tokenizer, tmp_path: Path):
    chat = write_parquet(tmp_path / "a.parquet", random_conversations(13, 200))
    text = tmp_path / "t.parquet"
    pa.parquet.write_table(pa.table({"text": [f"document {index} " * 9 for index in range(99)]}), text)
    mixture = nanofast.Mixture({"chat": (chat, 1.0), "text": (text, 3.0)})
    with nanofast.ChatLoader(mixture, chat_tokenizer, 4, 64, packing="concat", lanes=1) as loader:
        batches = as_lists(loader.numpy(), 20)
        shares = loader.metrics()["shares"]
        state = loader.state_dict()
        following = as_lists(loader.numpy(), 5)
    stream = [token for inputs, _ in batches for row in inputs for token in row]
    assert {chat_tokenizer.special_tokens["<|user_start|>"], *chat_tokenizer.encode(" document")} <= set(stream)
    assert len(shares) == 2
    with nanofast.ChatLoader(mixture, chat_tokenizer, 4, 64, packing="concat", lanes=1) as resumed:
        resumed.load_state_dict(state)
        assert as_lists(resumed.numpy(), 5) == following


def test_data_sets_are_listed_as_often_as_they_count(chat_tokenizer: nanofast.Tokenizer, tmp_path: Path):
    a = write_parquet(tmp_path / "a.parquet", random_conversations(6, 20))
    b = write_parquet(tmp_path / "b.parquet", random_conversations(7, 5))
    options: dict[str, Any] = {"epochs": 1, "lanes": 2, "shuffle": True, "seed": 3}
    with (
        nanofast.ChatLoader({str(a): 1, str(b): 2}, chat_tokenizer, 2, 100, **options) as counted,
        nanofast.ChatLoader([a, b, b], chat_tokenizer, 2, 100, **options) as listed,
    ):
        assert as_lists(counted.numpy()) == as_lists(listed.numpy())
    with nanofast.ChatLoader({str(b): 2, str(a): 1}, chat_tokenizer, 2, 100, split="train", **options) as train:
        documents = sum(1 for _ in train.numpy()) and train.metrics()["ledger"]["documents"]
    assert documents == 10, "the last shard is for validation"
    for data, complaint in (({str(a): 0}, "must be at least 1"), ({str(a): "2"}, "a whole number")):
        with pytest.raises((ValueError, TypeError), match=complaint):
            nanofast.ChatLoader(data, chat_tokenizer, 2, 100)
    with pytest.raises(nanofast.InvalidError, match="listed 2 times cannot be split"):
        nanofast.ChatLoader({str(a): 2}, chat_tokenizer, 2, 100, split="train")


def test_conversations_are_mixed_in_shares(chat_tokenizer: nanofast.Tokenizer, tmp_path: Path) -> None:
    sources = [random_conversations(seed, count) for seed, count in ((5, 30), (6, 20))]
    paths = [write_parquet(tmp_path / f"{number}.parquet", rows) for number, rows in enumerate(sources)]
    shared: dict[str, Any] = {"batch_size": 2, "sequence_length": 40, "lanes": 2, "seed": 4, "shuffle": True}
    pad = chat_tokenizer.special_tokens["<|assistant_end|>"]
    twin: dict[str, Any] = {"packing": "pad", "bos": pad, "pad_id": pad, **shared}
    mixture = nanofast.Mixture({"a": (paths[0], 0.75), "b": (paths[1], 0.25)})
    stream = MixedStream(
        [],
        sources=[[stream_of(rows, chat_tokenizer, "pad", 41)] for rows in sources],
        weights=[0.75, 0.25],
        added_bos=0,
        **twin,
    )
    with nanofast.ChatLoader(mixture, chat_tokenizer, **shared) as loader:
        assert following(loader, 30) == [digest(batch) for batch in itertools.islice(stream.batches(), 30)]
        metrics = loader.metrics()
        assert sum(share["admitted"] for share in metrics["shares"].values()) == metrics["ledger"]["read"]
        assert sum(share["trained"] for share in metrics["shares"].values()) == metrics["ledger"]["learned"]


def test_lines_are_row_groups_of_a_thousand_from_an_index_that_is_kept(
    chat_tokenizer: nanofast.Tokenizer, tmp_path: Path
):
    folder = tmp_path / "indexes"
    path = write_jsonl(tmp_path / "a.jsonl", [say(f"q{index}", f"a{index}") for index in range(2500)])
    text = path.read_text().replace("\n", "\n  \n\r\n", 3)  # lines without anything are no rows
    path.write_text(text.rstrip("\n"))

    def documents() -> int:
        with nanofast.ChatLoader(path, chat_tokenizer, 4, 64, lanes=1, unit_documents=0, index_folder=folder) as loader:
            identity = loader.state_dict()["identity"]
        assert identity["shards"][0]["num_row_groups"] == 1 + identity["shards"][0]["num_rows"] // 1000
        return int(identity["shards"][0]["num_rows"])

    assert documents() == 2500
    (kept,) = folder.iterdir()
    index = json.loads(kept.read_text())
    assert (index["num_lines"], len(index["starts"])) == (2500, 4)
    kept.write_text(json.dumps(index | {"num_lines": 2501}))
    assert documents() == 2501, "the index that was kept is the one that is used"
    kept.write_text("{")
    assert documents() == 2500, "one that is damaged is built again"
    with path.open("a") as file:
        file.write("\n" + json.dumps({"messages": say("x", "y")}))
    assert documents() == 2501, "the index of a file that changed is built again"


def test_an_index_that_cannot_be_kept_is_no_failure(chat_tokenizer: nanofast.Tokenizer, tmp_path: Path):
    (tmp_path / "file").write_text("")
    path = write_jsonl(tmp_path / "a.jsonl", [say("a", "b")] * 20)
    with nanofast.ChatLoader(path, chat_tokenizer, 4, 64, index_folder=tmp_path / "file" / "under") as loader:
        next(loader.numpy())


def test_a_byte_order_mark_in_front_of_lines_is_no_part_of_the_first(
    chat_tokenizer: nanofast.Tokenizer, tmp_path: Path
):
    plain = write_jsonl(tmp_path / "a.jsonl", [say("a", "b"), say("c", "d")])
    marked = tmp_path / "b.jsonl"
    marked.write_bytes(b"\xef\xbb\xbf" + plain.read_bytes())
    options: dict[str, Any] = {"packing": "concat", "epochs": 1, "lanes": 1}
    with (
        nanofast.ChatLoader(plain, chat_tokenizer, 1, 8, **options) as expected,
        nanofast.ChatLoader(marked, chat_tokenizer, 1, 8, **options) as found,
    ):
        assert as_lists(found.numpy()) == as_lists(expected.numpy())
    marked.write_bytes(plain.read_bytes() + b"\xef\xbb\xbf" + plain.read_bytes())
    with (
        nanofast.ChatLoader(marked, chat_tokenizer, 1, 8, **options) as loader,
        pytest.raises(nanofast.InvalidError, match="row 2: a row that is no JSON"),
    ):
        list(loader.numpy())
