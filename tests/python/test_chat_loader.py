"""ChatLoader's batches: the golden case, the twin's stream, where conversations begin, exact resume."""

from __future__ import annotations

import dataclasses
import itertools
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import nanofast
from chat_shards import PACKINGS, as_lists, say, write_jsonl, write_parquet, write_shards
from chat_twin import random_conversations, render, stream_of
from nanofast import _nanofast
from nanofast.chat_template import NANOCHAT
from stream_twin import Stream

CORPUS = Path(__file__).parents[3] / "shared" / "data" / "corpus" / "chat"

pytestmark = pytest.mark.usefixtures("home_aside")


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


def twin(shards: list[list[Any]], tokenizer: Any, packing: str, **options: Any) -> Stream:
    """The twin's stream; a conversation that a row could not learn from is left out before it."""
    length = options["sequence_length"] + 1
    documents = [stream_of(rows, tokenizer, packing, length) for rows in shards]
    pad = tokenizer.special_tokens["<|assistant_end|>"]
    return Stream(documents, packing=packing, bos=pad, pad_id=pad, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("packing", list(PACKINGS))
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("epochs", [None, 2])
def test_every_batch_is_the_twins(
    packing: str, shuffle: bool, epochs: int | None, chat_tokenizer: nanofast.Tokenizer, tmp_path: Path
):
    shards = [random_conversations(seed, count) for seed, count in ((1, 40), (2, 9), (3, 17))]
    paths = write_shards(tmp_path, shards)
    shared: dict[str, Any] = {"batch_size": 3, "sequence_length": 60, "seed": 5, "epochs": epochs, "shuffle": shuffle}
    for lanes, num_threads in ((1, 1), (4, 3)):
        expected = twin(shards, chat_tokenizer, packing, lanes=lanes, **shared).batches()
        options = {"lanes": lanes, "num_threads": num_threads, **PACKINGS[packing], **shared}
        with nanofast.ChatLoader(paths, chat_tokenizer, **options) as loader:
            found = as_lists(loader.numpy(), 40)
        assert found == list(itertools.islice(expected, 40))


@pytest.mark.parametrize("packing", list(PACKINGS))
def test_documents_tell_where_conversations_begin(packing: str, chat_tokenizer: nanofast.Tokenizer, tmp_path: Path):
    path = write_parquet(tmp_path / "a.parquet", random_conversations(12, 60))
    bos = chat_tokenizer.special_tokens["<|bos|>"]
    options: dict[str, Any] = {"epochs": 1, "lanes": 2, "return_documents": True, **PACKINGS[packing]}
    with nanofast.ChatLoader(path, chat_tokenizer, 3, 90, **options) as loader:
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
def test_resumes_at_every_batch(packing: str, shuffle: bool, chat_tokenizer: nanofast.Tokenizer, tmp_path: Path):
    paths = [*write_shards(tmp_path, [random_conversations(8, 60)]), tmp_path / "z.jsonl"]
    write_jsonl(paths[-1], random_conversations(9, 30))
    options: dict[str, Any] = {"shuffle": shuffle, "lanes": 2, "epochs": 2, **PACKINGS[packing]}
    with nanofast.ChatLoader(paths, chat_tokenizer, 3, 50, **options) as loader:
        states, batches = [loader.state_dict()], []
        for inputs, targets in loader.numpy():
            batches.append((inputs.tolist(), targets.tolist()))
            states.append(json.loads(json.dumps(loader.state_dict())))
        ledger = loader.metrics()["ledger"]
    assert len(batches) > 10
    for number, state in enumerate(states):
        with nanofast.ChatLoader(paths, chat_tokenizer, 3, 50, **options) as resumed:
            resumed.load_state_dict(state)
            assert as_lists(resumed.numpy()) == batches[number:], f"from batch {number}"
            assert resumed.metrics()["ledger"] == ledger


def test_a_state_moves_to_another_world_size_and_is_bound_to_its_template(
    chat_tokenizer: nanofast.Tokenizer, tmp_path: Path
):
    path = write_parquet(tmp_path / "a.parquet", random_conversations(10, 80))
    options: dict[str, Any] = {"lanes": 4, "shuffle": True}
    whole = nanofast.ChatLoader(path, chat_tokenizer, 2, 50, **options)
    ranks = [nanofast.ChatLoader(path, chat_tokenizer, 2, 50, rank=rank, world_size=2, **options) for rank in range(2)]
    for _ in range(3):  # rounds of four batches
        expected = as_lists(whole.numpy(), 4)
        found = [as_lists(rank.numpy(), 2) for rank in ranks]
        assert [found[0][0], found[1][0], found[0][1], found[1][1]] == expected
    state = nanofast.merge_states([rank.state_dict() for rank in ranks])
    with nanofast.ChatLoader(path, chat_tokenizer, 2, 50, **options) as resumed:
        resumed.load_state_dict(state)
        assert as_lists(resumed.numpy(), 6) == as_lists(whole.numpy(), 6)
        copy = pickle.loads(pickle.dumps(resumed))
        assert as_lists(copy.numpy(), 3) == as_lists(resumed.numpy(), 3)
        copy.close()
    last = dataclasses.replace(NANOCHAT, only_last_turn=True)
    for other in ({"template": last}, {"too_long": "leave_out"}):
        loader = nanofast.ChatLoader(path, chat_tokenizer, 2, 50, **options, **other)
        with loader, pytest.raises(nanofast.InvalidError, match="chat differs"):
            loader.load_state_dict(state)
    for loader in (whole, *ranks):
        loader.close()


# ---- the corpus --------------------------------------------------------------------------------------------


def test_the_whole_corpus_is_the_twins(chat_tokenizer: nanofast.Tokenizer):
    if not CORPUS.exists():
        pytest.skip("the conversations of ../shared/data are not on this machine")
    rows = pa.parquet.read_table(CORPUS).column("messages").to_pylist()
    expected = (render(row, chat_tokenizer) for row in rows)
    pad = chat_tokenizer.special_tokens["<|assistant_end|>"]
    options: dict[str, Any] = {"packing": "one_per_row", "epochs": 1, "lanes": 1, "unit_documents": 0}
    with nanofast.ChatLoader(CORPUS, chat_tokenizer, 16, 1 << 16, **options) as loader:
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
