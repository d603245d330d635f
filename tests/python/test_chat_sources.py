"""Conversations as bad data and as sources of a mixture: what texts have, over the same stream's twin."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import nanofast
from chat_shards import write_parquet
from chat_twin import nanochat_tokenizer, random_conversations, render
from resumed import digest, following
from stream_twin import MixedStream, Stream

LENGTH = 40
BAD = [{"role": "assistant", "content": "I begin."}]


@pytest.fixture(scope="module", autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NANOFAST_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="module")
def tokenizer() -> nanofast.Tokenizer:
    return nanochat_tokenizer()


def documents(conversations: list[Any], tokenizer: nanofast.Tokenizer) -> list[list[Any]]:
    """Row groups of seven rendered conversations; None where a row could not learn from one, or it is bad."""
    rendered = [None if found is BAD else render(found, tokenizer) for found in conversations]
    kept = [found if found and any(found[1][1 : LENGTH + 1]) else None for found in rendered]
    return [kept[start : start + 7] for start in range(0, len(kept), 7)]


def settings(tokenizer: nanofast.Tokenizer) -> tuple[dict[str, Any], dict[str, Any]]:
    shared: dict[str, Any] = {"batch_size": 2, "sequence_length": LENGTH, "lanes": 2, "seed": 4, "shuffle": True}
    pad = tokenizer.special_tokens["<|assistant_end|>"]
    return shared, {"bos": pad, "pad_id": pad, "packing": "pad", **shared}


def test_what_is_no_conversation_is_left_out_and_listed(tokenizer: nanofast.Tokenizer, tmp_path: Path) -> None:
    conversations: list[Any] = random_conversations(3, 30)
    conversations[4] = conversations[20] = BAD
    path = write_parquet(tmp_path / "a.parquet", conversations)
    shared, twin = settings(tokenizer)
    stream = Stream([documents(conversations, tokenizer)], **twin)
    with nanofast.ChatLoader(path, tokenizer, on_bad_data="quarantine", **shared) as loader:
        # buffers hold many conversations, so the bad ones are passed long before
        assert following(loader, 30) == [digest(batch) for batch in itertools.islice(stream.batches(), 30)]
        listed = {(part["row_group"], *part["rows"]) for part in loader.metrics()["quarantine"]}
        assert listed == {(0, 4, 5), (2, 6, 7)}
    with (
        nanofast.ChatLoader(path, tokenizer, **shared) as loader,
        pytest.raises(ValueError, match=r"row group [02], row [46]"),
    ):
        following(loader, 30)
    with pytest.raises(ValueError, match="conversations are not repaired"):
        nanofast.ChatLoader(path, tokenizer, invalid_utf8="replace", **shared)


def test_conversations_are_mixed_in_shares(tokenizer: nanofast.Tokenizer, tmp_path: Path) -> None:
    sources = [random_conversations(seed, count) for seed, count in ((5, 30), (6, 20))]
    paths = [write_parquet(tmp_path / f"{number}.parquet", rows) for number, rows in enumerate(sources)]
    shared, twin = settings(tokenizer)
    mixture = nanofast.Mixture({"a": (paths[0], 0.75), "b": (paths[1], 0.25)})
    stream = MixedStream(
        [], sources=[[documents(rows, tokenizer)] for rows in sources], weights=[0.75, 0.25], added_bos=0, **twin
    )
    with nanofast.ChatLoader(mixture, tokenizer, **shared) as loader:
        assert following(loader, 30) == [digest(batch) for batch in itertools.islice(stream.batches(), 30)]
        metrics = loader.metrics()
        assert sum(share["admitted"] for share in metrics["shares"].values()) == metrics["ledger"]["read"]
        assert sum(share["trained"] for share in metrics["shares"].values()) == metrics["ledger"]["learned"]
