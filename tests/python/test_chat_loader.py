"""ChatLoader's batches: the golden case, the twin's stream, exact resume, long conversations, and what is refused."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import nanofast
from chat_shards import MESSAGE_OF_PARTS, as_parts, write_jsonl, write_parquet
from chat_twin import nanochat_tokenizer, random_conversations, render
from nanofast import _nanofast
from nanofast.chat_template import CHATML, NANOCHAT
from stream_twin import Stream

CORPUS = Path(__file__).parents[3] / "shared" / "data" / "corpus" / "chat"
LONG = os.environ.get("NANOFAST_TEST_LONG") == "1"

PACKINGS = {"pad": {}, "one_per_row": {"packing": "one_per_row"}, "concat": {"packing": "concat"}}


@pytest.fixture(scope="module", autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NANOFAST_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="module")
def tokenizer() -> nanofast.Tokenizer:
    return nanochat_tokenizer()


def as_lists(batches: Any, count: int | None = None) -> list[tuple[Any, Any]]:
    return [(inputs.tolist(), targets.tolist()) for inputs, targets in itertools.islice(batches, count)]


def say(question: str, answer: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


# ---- the golden case ---------------------------------------------------------------------------------------


def golden_tokenizer() -> nanofast.Tokenizer:
    """bos 1, user_start 2, user_end 3, assistant_start 4, assistant_end 5, …; byte b is 10 + b, the last one 0."""
    ranks = [(bytes([byte]), (10 + byte) % 265) for byte in range(256)]
    specials = [(token, 1 + index) for index, token in enumerate(NANOCHAT.special_tokens)]
    return nanofast.Tokenizer(_nanofast.Tokenizer.from_ranks(ranks, r"[\s\S]", specials, "golden"))


@pytest.mark.parametrize("num_threads", [1, 4])
def test_one_per_row_gives_the_golden_batch(tmp_path: Path, num_threads: int):
    path = write_parquet(tmp_path / "a.parquet", [say("\x00", "\n"), say("\x00", "\n\n")])
    options = {"packing": "one_per_row", "epochs": 1, "lanes": 1, "num_threads": num_threads}
    with nanofast.ChatLoader(path, golden_tokenizer(), 2, 64, **options) as loader:
        batches = as_lists(loader.numpy())
    assert batches == [
        (
            [[1, 2, 10, 3, 4, 20, 5], [1, 2, 10, 3, 4, 20, 20]],
            [[-1, -1, -1, -1, 20, 5, -1], [-1, -1, -1, -1, 20, 20, 5]],
        )
    ]


# ---- the stream --------------------------------------------------------------------------------------------


def write_shards(folder: Path, shards: list[list[Any]]) -> list[Path]:
    return [write_parquet(folder / f"{index:02}.parquet", rows) for index, rows in enumerate(shards)]


def twin(shards: list[list[Any]], tokenizer: Any, packing: str, group: int = 7, **options: Any) -> Stream:
    """The twin's stream; a conversation that a row could not learn from is left out before it."""
    length = options["sequence_length"] + 1
    documents: list[list[list[Any]]] = []
    for rows in shards:
        rendered = [render(conversation, tokenizer) for conversation in rows]
        if packing == "concat":
            rendered = [(ids, [True] * len(ids)) for ids, _ in rendered]
        kept = [document if any(document[1][1:length]) else None for document in rendered]
        documents.append([kept[start : start + group] for start in range(0, len(kept), group)])
    pad = tokenizer.special_tokens["<|assistant_end|>"]
    return Stream(documents, packing=packing, bos=pad, pad_id=pad, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("packing", list(PACKINGS))
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("epochs", [None, 2])
def test_every_batch_is_the_twins(
    packing: str, shuffle: bool, epochs: int | None, tokenizer: nanofast.Tokenizer, tmp_path: Path
):
    shards = [random_conversations(seed, count) for seed, count in ((1, 40), (2, 9), (3, 17))]
    paths = write_shards(tmp_path, shards)
    shared: dict[str, Any] = {"batch_size": 3, "sequence_length": 60, "seed": 5, "epochs": epochs, "shuffle": shuffle}
    for lanes, num_threads in ((1, 1), (4, 3)):
        expected = twin(shards, tokenizer, packing, lanes=lanes, **shared).batches()
        options = {"lanes": lanes, "num_threads": num_threads, **PACKINGS[packing], **shared}
        with nanofast.ChatLoader(paths, tokenizer, **options) as loader:
            found = as_lists(loader.numpy(), 40)
        assert found == list(itertools.islice(expected, 40))


def test_parts_json_lines_and_other_layouts_give_the_same_batches(tokenizer: nanofast.Tokenizer, tmp_path: Path):
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
    expected = [render(conversation, tokenizer) for conversation in conversations]
    for name, (path, options) in files.items():
        with nanofast.ChatLoader(
            path, tokenizer, 1, 200, packing="one_per_row", epochs=1, lanes=1, unit_documents=0, **options
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
    options: dict[str, Any], tokenizer: nanofast.Tokenizer, tmp_path: Path
):
    conversations = random_conversations(4, 60, parts=True)
    path = write_parquet(
        tmp_path / "a.parquet", [as_parts(c) for c in conversations], message=MESSAGE_OF_PARTS, **options
    )
    expected = [render(c, tokenizer)[0] for c in conversations]
    with nanofast.ChatLoader(path, tokenizer, 1, 4096, packing="concat", epochs=1, lanes=1) as loader:
        stream = [token for inputs, _ in loader.numpy() for token in inputs[0].tolist()]
    assert stream[: sum(map(len, expected))] == list(itertools.chain.from_iterable(expected))


def test_plain_text_joins_conversations_in_one_stream(tokenizer: nanofast.Tokenizer, tmp_path: Path):
    conversations = random_conversations(5, 10)
    texts = [f"document {index}" for index in range(10)]
    chat = write_parquet(tmp_path / "a.parquet", conversations)
    pa.parquet.write_table(pa.table({"text": texts}), tmp_path / "b.parquet")
    (tmp_path / "c.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    bos = tokenizer.special_tokens["<|bos|>"]
    expected = [render(c, tokenizer)[0] for c in conversations]
    expected += [[bos, *tokenizer.encode(text).tolist()] for text in [*texts, *texts]]
    stream = list(itertools.chain.from_iterable(expected))
    paths = [chat, tmp_path / "b.parquet", tmp_path / "c.jsonl"]
    with nanofast.ChatLoader(paths, tokenizer, 1, 16, packing="concat", epochs=1, lanes=1) as loader:
        batches = as_lists(loader.numpy())
    assert [token for inputs, _ in batches for token in inputs[0]][: len(stream) - 1] == stream[:-1]
    assert [token for _, targets in batches for token in targets[0]][: len(stream) - 1] == stream[1:]
    with pytest.raises(nanofast.InvalidError, match="column `messages` not in"):
        nanofast.ChatLoader(paths, tokenizer, 1, 16)


def test_conversations_and_text_share_a_stream_by_weight(tokenizer: nanofast.Tokenizer, tmp_path: Path):
    chat = write_parquet(tmp_path / "a.parquet", random_conversations(13, 200))
    text = tmp_path / "t.parquet"
    pa.parquet.write_table(pa.table({"text": [f"document {index} " * 9 for index in range(99)]}), text)
    mixture = nanofast.Mixture({"chat": (chat, 1.0), "text": (text, 3.0)})
    with nanofast.ChatLoader(mixture, tokenizer, 4, 64, packing="concat", lanes=1) as loader:
        batches = as_lists(loader.numpy(), 20)
        shares = loader.metrics()["shares"]
        state = loader.state_dict()
        following = as_lists(loader.numpy(), 5)
    stream = [token for inputs, _ in batches for row in inputs for token in row]
    assert {tokenizer.special_tokens["<|user_start|>"], *tokenizer.encode(" document")} <= set(stream)
    assert len(shares) == 2
    with nanofast.ChatLoader(mixture, tokenizer, 4, 64, packing="concat", lanes=1) as resumed:
        resumed.load_state_dict(state)
        assert as_lists(resumed.numpy(), 5) == following


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_a_row_that_is_no_conversation_can_be_quarantined(kind: str, tokenizer: nanofast.Tokenizer, tmp_path: Path):
    conversations: list[Any] = random_conversations(14, 40)
    whole, broken = tmp_path / f"whole.{kind}", tmp_path / f"broken.{kind}"
    write = write_jsonl if kind == "jsonl" else write_parquet
    write(whole, conversations)
    bad = [{"role": "assistant", "content": "x"}]
    write(broken, [*conversations[:3], bad, *conversations[3:20], [], *conversations[20:]])
    options: dict[str, Any] = {"packing": "concat", "epochs": 1, "lanes": 1, "on_bad_data": "quarantine"}
    with (
        nanofast.ChatLoader(whole, tokenizer, 2, 32, **options) as expected,
        nanofast.ChatLoader(broken, tokenizer, 2, 32, **options) as found,
    ):
        assert as_lists(found.numpy()) == as_lists(expected.numpy())
        listed = found.metrics()["quarantine"]
    assert len(listed) == 2
    assert "expected `user`" in listed[0]["reason"]
    assert "no messages" in listed[1]["reason"]


def test_data_sets_are_listed_as_often_as_they_count(tokenizer: nanofast.Tokenizer, tmp_path: Path):
    a = write_parquet(tmp_path / "a.parquet", random_conversations(6, 20))
    b = write_parquet(tmp_path / "b.parquet", random_conversations(7, 5))
    options: dict[str, Any] = {"epochs": 1, "lanes": 2, "shuffle": True, "seed": 3}
    with (
        nanofast.ChatLoader({str(a): 1, str(b): 2}, tokenizer, 2, 100, **options) as counted,
        nanofast.ChatLoader([a, b, b], tokenizer, 2, 100, **options) as listed,
    ):
        assert as_lists(counted.numpy()) == as_lists(listed.numpy())
    with nanofast.ChatLoader({str(b): 2, str(a): 1}, tokenizer, 2, 100, split="train", **options) as train:
        documents = sum(1 for _ in train.numpy()) and train.metrics()["ledger"]["documents"]
    assert documents == 10, "the last shard is for validation"
    for data, complaint in (({str(a): 0}, "must be at least 1"), ({str(a): "2"}, "a whole number")):
        with pytest.raises((ValueError, TypeError), match=complaint):
            nanofast.ChatLoader(data, tokenizer, 2, 100)
    with pytest.raises(nanofast.InvalidError, match="listed 2 times cannot be split"):
        nanofast.ChatLoader({str(a): 2}, tokenizer, 2, 100, split="train")


@pytest.mark.parametrize("packing", list(PACKINGS))
def test_documents_tell_where_conversations_begin(packing: str, tokenizer: nanofast.Tokenizer, tmp_path: Path):
    path = write_parquet(tmp_path / "a.parquet", random_conversations(12, 60))
    bos = tokenizer.special_tokens["<|bos|>"]
    options: dict[str, Any] = {"epochs": 1, "lanes": 2, "return_documents": True, **PACKINGS[packing]}
    with nanofast.ChatLoader(path, tokenizer, 3, 90, **options) as loader:
        for inputs, _, documents in loader.numpy():  # type: ignore[misc]
            T = inputs.shape[1]
            begun = [piece for piece in documents.pieces if piece["first_token"] == 0 and piece["column"] < T]
            starts = sorted(int(piece["row"] * T + piece["column"]) for piece in begun)
            assert starts == np.flatnonzero(inputs == bos).tolist()
            borders = documents.cu_seqlens[: documents.num_segments + 1].tolist()
            assert set(starts) <= set(borders)
            assert set(range(0, inputs.size + 1, T)) <= set(borders)


# ---- resume ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packing", list(PACKINGS))
@pytest.mark.parametrize("shuffle", [False, True])
def test_resumes_at_every_batch(packing: str, shuffle: bool, tokenizer: nanofast.Tokenizer, tmp_path: Path):
    paths = [*write_shards(tmp_path, [random_conversations(8, 60)]), tmp_path / "z.jsonl"]
    write_jsonl(paths[-1], random_conversations(9, 30))
    options: dict[str, Any] = {"shuffle": shuffle, "lanes": 2, "epochs": 2, **PACKINGS[packing]}
    with nanofast.ChatLoader(paths, tokenizer, 3, 50, **options) as loader:
        states, batches = [loader.state_dict()], []
        for inputs, targets in loader.numpy():
            batches.append((inputs.tolist(), targets.tolist()))
            states.append(json.loads(json.dumps(loader.state_dict())))
        ledger = loader.metrics()["ledger"]
    assert len(batches) > 10
    for number, state in enumerate(states):
        with nanofast.ChatLoader(paths, tokenizer, 3, 50, **options) as resumed:
            resumed.load_state_dict(state)
            assert as_lists(resumed.numpy()) == batches[number:], f"from batch {number}"
            assert resumed.metrics()["ledger"] == ledger


def test_a_state_moves_to_another_world_size_and_is_bound_to_its_template(
    tokenizer: nanofast.Tokenizer, tmp_path: Path
):
    path = write_parquet(tmp_path / "a.parquet", random_conversations(10, 80))
    options: dict[str, Any] = {"lanes": 4, "shuffle": True}
    whole = nanofast.ChatLoader(path, tokenizer, 2, 50, **options)
    ranks = [nanofast.ChatLoader(path, tokenizer, 2, 50, rank=rank, world_size=2, **options) for rank in range(2)]
    for _ in range(3):  # rounds of four batches
        expected = as_lists(whole.numpy(), 4)
        found = [as_lists(rank.numpy(), 2) for rank in ranks]
        assert [found[0][0], found[1][0], found[0][1], found[1][1]] == expected
    state = nanofast.merge_states([rank.state_dict() for rank in ranks])
    with nanofast.ChatLoader(path, tokenizer, 2, 50, **options) as resumed:
        resumed.load_state_dict(state)
        assert as_lists(resumed.numpy(), 6) == as_lists(whole.numpy(), 6)
        copy = pickle.loads(pickle.dumps(resumed))
        assert as_lists(copy.numpy(), 3) == as_lists(resumed.numpy(), 3)
        copy.close()
    last = dataclasses.replace(NANOCHAT, only_last_turn=True)
    for other in ({"template": last}, {"too_long": "leave_out"}):
        loader = nanofast.ChatLoader(path, tokenizer, 2, 50, **options, **other)
        with loader, pytest.raises(nanofast.InvalidError, match="chat differs"):
            loader.load_state_dict(state)
    for loader in (whole, *ranks):
        loader.close()


# ---- long and unlearned conversations ----------------------------------------------------------------------


@pytest.mark.parametrize("packing", ["pad", "one_per_row"])
@pytest.mark.parametrize("too_long", ["cut_end", "cut_left", "leave_out"])
def test_a_conversation_longer_than_a_row(packing: str, too_long: str, tokenizer: nanofast.Tokenizer, tmp_path: Path):
    T = 24
    conversations = [
        say("short", "answer"),
        say("two", "word " * 100),  # its answer is cut
        say("word " * 100, "answer"),  # its answer is behind the row's end
        [*say("four", "yes")[:1]],  # nothing is learned
        say("three", "well"),
    ]
    path = write_parquet(tmp_path / "a.parquet", conversations)
    rendered = [render(conversation, tokenizer) for conversation in conversations]
    kept = []
    for ids, mask in rendered:
        document = list(zip(ids, mask, strict=True))
        if len(document) > T + 1:
            cut = {
                "cut_end": document[: T + 1],
                "cut_left": [document[0], *document[-T:]],
                "leave_out": [],
            }
            document = cut[too_long]
        if any(learned for _, learned in document[1:]):
            kept.append(document)
    options = {"epochs": 1, "lanes": 1, "unit_documents": 0, "too_long": too_long, **PACKINGS[packing]}
    with nanofast.ChatLoader(path, tokenizer, 1, T, **options) as loader:
        found = as_lists(loader.numpy())
        metrics = loader.metrics()
    learned = sorted(token for _, targets in found for token in targets[0] if token >= 0)
    assert learned == sorted(token for document in kept for token, ok in document[1:] if ok)
    assert all(any(token >= 0 for token in targets[0]) for _, targets in found), "a row without a target"
    if packing == "one_per_row":
        assert [inputs[0] for inputs, _ in found] == [[token for token, _ in document[:-1]] for document in kept]
    ledger = metrics["ledger"]
    left_out = {"cut_end": (1, 0, 2), "cut_left": (2, 0, 1), "leave_out": (0, 2, 1)}[too_long]
    assert (ledger["cut"], ledger["left_out_long"], ledger["left_out_unlearned"]) == left_out
    assert len(metrics["left_out"]) == left_out[1] + left_out[2]
    for place, reason in metrics["left_out"]:
        assert place.startswith(f"`{path}`, row group 0, row ")
        assert reason in ("longer than a row", "no learned token in what a row takes of it")
    assert ledger["read"] == ledger["learned"] + ledger["masked"] + ledger["cropped"]
    positions = sum(ledger[kind] for kind in ("learned", "masked", "padding"))
    assert metrics["padding_share"] == ledger["padding"] / positions
    assert metrics["learned_share"] == ledger["learned"] / positions


@pytest.mark.parametrize("too_long", ["cut_end", "cut_left", "leave_out"])
def test_the_ledger_balances_when_rows_become_shorter(too_long: str, tokenizer: nanofast.Tokenizer, tmp_path: Path):
    """What the packer held when rows were longer was admitted, and is cut to the row, whatever is asked of others."""
    conversations = [say(f"question {index}", "word " * (index % 40)) for index in range(300)]
    path = write_parquet(tmp_path / "a.parquet", conversations)
    with nanofast.ChatLoader(path, tokenizer, 2, 60, epochs=1, lanes=1, too_long=too_long) as loader:
        as_lists(loader.numpy(), 3)
        loader.reconfigure(sequence_length=24)
        for _ in loader.numpy():
            ledger = loader.metrics()["ledger"]
            assert ledger["read"] == sum(ledger[kind] for kind in ("learned", "masked", "cropped", "waiting"))
        assert ledger["waiting"] == 0
        assert ledger["documents"] + ledger["left_out_long"] + ledger["left_out_unlearned"] == 300
        assert ledger["cut"] > 0


def test_a_template_without_a_bos_adds_none(tmp_path: Path):
    tokenizer = nanofast.Tokenizer.from_name("r50k_base").with_special_tokens(CHATML.special_tokens)
    conversations = random_conversations(15, 20)
    path = write_parquet(tmp_path / "a.parquet", conversations)
    rendered = [tokenizer.render(conversation, CHATML)[0].tolist() for conversation in conversations]
    options: dict[str, Any] = {"template": "chatml", "epochs": 1, "lanes": 1, "unit_documents": 0}
    with nanofast.ChatLoader(path, tokenizer, 1, 500, packing="one_per_row", **options) as loader:
        assert [inputs[0] for inputs, _ in as_lists(loader.numpy())] == [ids[:-1] for ids in rendered]
    stream = list(itertools.chain.from_iterable(rendered))
    with nanofast.ChatLoader(path, tokenizer, 1, 16, packing="concat", **options) as loader:
        found = [token for _, targets in loader.numpy() for token in targets[0].tolist()]
    assert found[: len(stream) - 1] == stream[1:]


def test_concat_takes_conversations_of_any_length_and_learns_all(tokenizer: nanofast.Tokenizer, tmp_path: Path):
    conversations = [say("two", "word " * 100), say("word " * 100, "answer"), say("a", "b")]
    path = write_parquet(tmp_path / "a.parquet", conversations)
    stream = list(itertools.chain.from_iterable(render(c, tokenizer)[0] for c in conversations))
    with nanofast.ChatLoader(path, tokenizer, 2, 8, packing="concat", epochs=1, lanes=1) as loader:
        targets = [token for _, batch in loader.numpy() for token in batch.ravel().tolist()]
    assert targets[: len(stream) - 1] == stream[1:]
    assert set(targets[len(stream) - 1 :]) <= {-1}


@pytest.mark.parametrize("packing", ["pad", "one_per_row"])
@pytest.mark.parametrize("epochs", [1, None])
def test_data_without_anything_to_learn_ends_or_raises(
    packing: str, epochs: int | None, tokenizer: nanofast.Tokenizer, tmp_path: Path
):
    path = write_parquet(tmp_path / "a.parquet", [[{"role": "user", "content": "hi"}]] * 20)
    with nanofast.ChatLoader(path, tokenizer, 1, 8, epochs=epochs, lanes=1, **PACKINGS[packing]) as loader:
        if epochs == 1:
            assert list(loader.numpy()) == []
        else:
            with pytest.raises(
                nanofast.InvalidError, match=r"left out [0-9]+ conversations in a row, more than an epoch has"
            ):
                next(loader.numpy())


# ---- refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overflow", ["carry", "crop"])
def test_carry_and_crop_are_refused(overflow: str, tokenizer: nanofast.Tokenizer, tmp_path: Path):
    path = write_parquet(tmp_path / "a.parquet", [say("a", "b")] * 20)
    with pytest.raises(nanofast.InvalidError, match=f"overflow = `{overflow}`: conversations"):
        nanofast.ChatLoader(path, tokenizer, 1, 8, overflow=overflow)


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
    kind: str, conversation: Any, place: str, complaint: str, tokenizer: nanofast.Tokenizer, tmp_path: Path
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
    with nanofast.ChatLoader(path, tokenizer, 1, 64, lanes=1) as loader:
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
    table: dict[str, Any], error: type[Exception], complaint: str, tokenizer: nanofast.Tokenizer, tmp_path: Path
):
    pa.parquet.write_table(pa.table(table), tmp_path / "a.parquet")
    with pytest.raises(error, match=complaint):
        nanofast.ChatLoader(tmp_path / "a.parquet", tokenizer, 1, 8)


def test_invalid_utf8_names_the_message(tokenizer: nanofast.Tokenizer, tmp_path: Path):
    shape = pa.struct([("role", pa.string()), ("content", pa.binary())])
    rows = [[{"role": m["role"], "content": m["content"].encode()} for m in say("a", "b")] for _ in range(9)]
    rows[4][1]["content"] = b"ab\xff"
    path = write_parquet(tmp_path / "a.parquet", rows, message=shape)
    loader = nanofast.ChatLoader(path, tokenizer, 1, 8, lanes=1)
    with loader, pytest.raises(nanofast.InvalidError, match="row 4, message 1: invalid UTF-8 at byte 2"):
        next(loader.numpy())
    (tmp_path / "a.jsonl").write_bytes(b'{"messages": [{"role": "user", "content": "\xff"}]}\n' * 9)
    loader = nanofast.ChatLoader(tmp_path / "a.jsonl", tokenizer, 1, 8, lanes=1)
    with loader, pytest.raises(nanofast.InvalidError, match="row 0: a row that is no JSON"):
        next(loader.numpy())


@pytest.mark.parametrize("damage", ["flipped", "truncated"])
def test_damaged_columns_are_an_error_or_the_same_batches(damage: str, tokenizer: nanofast.Tokenizer, tmp_path: Path):
    conversations = [as_parts(c) for c in random_conversations(11, 40, parts=True)]
    options: dict[str, Any] = {"compression": "none", "write_page_checksum": False}
    path = write_parquet(tmp_path / "a.parquet", conversations, message=MESSAGE_OF_PARTS, **options)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    survived = 0
    for _ in range(300 if LONG else 40):
        place = int(rng.integers(4, len(whole) - 8))
        data = bytearray(whole)
        if damage == "flipped":
            data[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(data if damage == "flipped" else data[:place])
        try:
            with nanofast.ChatLoader(path, tokenizer, 4, 64, packing="concat", epochs=1, lanes=1) as loader:
                survived += sum(1 for _ in loader.numpy()) > 0
        except nanofast.Error:
            pass  # said in words
    assert survived > 0 if damage == "flipped" else survived == 0


# ---- lines -------------------------------------------------------------------------------------------------


def test_lines_are_row_groups_of_a_thousand_from_an_index_that_is_kept(tokenizer: nanofast.Tokenizer, tmp_path: Path):
    folder = tmp_path / "indexes"
    path = write_jsonl(tmp_path / "a.jsonl", [say(f"q{index}", f"a{index}") for index in range(2500)])
    text = path.read_text().replace("\n", "\n  \n\r\n", 3)  # lines without anything are no rows
    path.write_text(text.rstrip("\n"))

    def documents() -> int:
        with nanofast.ChatLoader(path, tokenizer, 4, 64, lanes=1, unit_documents=0, index_folder=folder) as loader:
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


def test_an_index_that_cannot_be_kept_is_no_failure(tokenizer: nanofast.Tokenizer, tmp_path: Path):
    (tmp_path / "file").write_text("")
    path = write_jsonl(tmp_path / "a.jsonl", [say("a", "b")] * 20)
    with nanofast.ChatLoader(path, tokenizer, 4, 64, index_folder=tmp_path / "file" / "under") as loader:
        next(loader.numpy())


# ---- the corpus --------------------------------------------------------------------------------------------


def test_the_whole_corpus_is_the_twins(tokenizer: nanofast.Tokenizer):
    if not CORPUS.exists():
        pytest.skip("the conversations of ../shared/data are not on this machine")
    rows = pa.parquet.read_table(CORPUS).column("messages").to_pylist()
    expected = (render(row, tokenizer) for row in rows)
    pad = tokenizer.special_tokens["<|assistant_end|>"]
    options: dict[str, Any] = {"packing": "one_per_row", "epochs": 1, "lanes": 1, "unit_documents": 0}
    with nanofast.ChatLoader(CORPUS, tokenizer, 16, 1 << 16, **options) as loader:
        for inputs, targets in loader.numpy():
            for row, row_targets in zip(inputs, targets, strict=True):
                ids, mask = next(expected, ([], []))
                width = len(row)
                padded = [*ids, *[pad] * (width + 1 - len(ids))]
                learned = [*mask, *[False] * (width + 1 - len(ids))]
                assert row.tolist() == padded[:-1]
                assert row_targets.tolist() == [t if ok else -1 for t, ok in zip(padded[1:], learned[1:], strict=True)]
        assert loader.metrics()["ledger"]["documents"] == len(rows)
    assert next(expected, None) is None
