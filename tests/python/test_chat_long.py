"""Conversations longer than a row, and such as nothing is learned of."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

import nanofast
from chat_shards import PACKINGS, as_lists, say, write_parquet
from chat_twin import random_conversations, render
from nanofast.chat_template import CHATML

pytestmark = pytest.mark.usefixtures("home_aside")


@pytest.mark.parametrize("packing", ["pad", "one_per_row"])
@pytest.mark.parametrize("too_long", ["cut_end", "cut_left", "leave_out"])
def test_a_conversation_longer_than_a_row(
    packing: str, too_long: str, chat_tokenizer: nanofast.Tokenizer, tmp_path: Path
):
    T = 24
    conversations = [
        say("short", "answer"),
        say("two", "word " * 100),  # its answer is cut
        say("word " * 100, "answer"),  # its answer is behind the row's end
        [*say("four", "yes")[:1]],  # nothing is learned
        say("three", "well"),
    ]
    path = write_parquet(tmp_path / "a.parquet", conversations)
    rendered = [render(conversation, chat_tokenizer) for conversation in conversations]
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
    with nanofast.ChatLoader(path, chat_tokenizer, 1, T, **options) as loader:
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
def test_the_ledger_balances_when_rows_become_shorter(
    too_long: str, chat_tokenizer: nanofast.Tokenizer, tmp_path: Path
):
    """What the packer held when rows were longer was admitted, and is cut to the row, whatever is asked of others."""
    conversations = [say(f"question {index}", "word " * (index % 40)) for index in range(300)]
    path = write_parquet(tmp_path / "a.parquet", conversations)
    with nanofast.ChatLoader(path, chat_tokenizer, 2, 60, epochs=1, lanes=1, too_long=too_long) as loader:
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


def test_concat_takes_conversations_of_any_length_and_learns_all(chat_tokenizer: nanofast.Tokenizer, tmp_path: Path):
    conversations = [say("two", "word " * 100), say("word " * 100, "answer"), say("a", "b")]
    path = write_parquet(tmp_path / "a.parquet", conversations)
    stream = list(itertools.chain.from_iterable(render(c, chat_tokenizer)[0] for c in conversations))
    with nanofast.ChatLoader(path, chat_tokenizer, 2, 8, packing="concat", epochs=1, lanes=1) as loader:
        targets = [token for _, batch in loader.numpy() for token in batch.ravel().tolist()]
    assert targets[: len(stream) - 1] == stream[1:]
    assert set(targets[len(stream) - 1 :]) <= {-1}


@pytest.mark.parametrize("packing", ["pad", "one_per_row"])
@pytest.mark.parametrize("epochs", [1, None])
def test_data_without_anything_to_learn_ends_or_raises(
    packing: str, epochs: int | None, chat_tokenizer: nanofast.Tokenizer, tmp_path: Path
):
    path = write_parquet(tmp_path / "a.parquet", [[{"role": "user", "content": "hi"}]] * 20)
    with nanofast.ChatLoader(path, chat_tokenizer, 1, 8, epochs=epochs, lanes=1, **PACKINGS[packing]) as loader:
        if epochs == 1:
            assert list(loader.numpy()) == []
        else:
            with pytest.raises(
                nanofast.InvalidError, match=r"left out [0-9]+ conversations in a row, more than an epoch has"
            ):
                next(loader.numpy())
