"""`nanofast.compat.nanochat` against nanochat's rules in plain Python: the same batches, and a state that is exact."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiktoken
import torch

import nanofast
from nanofast.compat import nanochat
from shards import random_texts, write_shards
from stream_twin import Stream
from test_distributed import run_ranks

B, T = 2, 24
LAYOUT = [[70, 50, 90], [60, 80], [130, 20], [40, 40]]  # the last is "val"
BEST_FIT, STREAM = "best fit", "stream"
FUNCTIONS = {
    BEST_FIT: nanochat.tokenizing_distributed_data_loader_with_state_bos_bestfit,
    STREAM: nanochat.tokenizing_distributed_data_loader_with_state,
}


class RustBPETokenizer:
    """What nanochat's tokenizer looks like from outside."""

    def __init__(self, enc: Any) -> None:
        self.enc = enc
        self.bos_token_id = enc.encode_single_token("<|bos|>")

    def get_bos_token_id(self) -> int:
        return self.bos_token_id


@pytest.fixture(scope="module")
def encoding() -> Any:
    """As nanochat makes one: its pattern, special tokens at the end; few merges, so that texts have many tokens."""
    bundled = nanofast.Tokenizer.from_name("r50k_base")
    ranks = {bundled.token_bytes(number): number for number in range(2000)}
    names = ["<|bos|>", "<|user_start|>", "<|user_end|>"]
    return tiktoken.Encoding(
        "rustbpe",
        pat_str=nanofast.tokenizer.GPT4_PATTERN.replace("{1,3}", "{1,2}"),
        mergeable_ranks=ranks,
        special_tokens={name: len(ranks) + place for place, name in enumerate(names)},
    )


@pytest.fixture(scope="module")
def texts() -> list[list[list[str]]]:
    return random_texts(6, LAYOUT, longest=30)


@pytest.fixture(scope="module")
def data(texts: list[list[list[str]]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "base_data"
    folder.mkdir()
    write_shards(folder, texts)
    return folder


def expected(
    kind: str, encoding: Any, texts: list[list[list[str]]], split: str = "train", rank: int = 0, world_size: int = 1
) -> Iterator[tuple[list[list[int]], list[list[int]]]]:
    """nanochat's batches of a rank, in plain Python."""
    shards = texts[:-1] if split == "train" else texts[-1:]
    ids = [[encoding.encode_ordinary_batch(group) for group in shard] for shard in shards]
    bos = encoding.encode_single_token("<|bos|>")
    if kind == BEST_FIT:
        dealt = {"deal": "per_file", "unit_documents": 0, "lanes": world_size}
        yield from Stream(ids, B, T, bos, packing="crop", **dealt).batches(rank, world_size)
    stream: list[int] = []
    for shard in itertools.cycle(ids):
        for group in shard[rank::world_size]:
            stream += [token for document in group for token in [bos, *document]]
        while len(stream) > B * T:
            batch, stream = stream[: B * T + 1], stream[B * T + 1 :]
            yield (
                [batch[row * T : row * T + T] for row in range(B)],
                [batch[row * T + 1 : row * T + T + 1] for row in range(B)],
            )


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("kind", FUNCTIONS)
@pytest.mark.parametrize(("rank", "world_size"), [(0, 1), (0, 2), (1, 2)])
def test_every_batch_is_nanochats(
    kind: str,
    split: str,
    rank: int,
    world_size: int,
    encoding: Any,
    texts: list[list[list[str]]],
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setenv("WORLD_SIZE", str(world_size))
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(data.parent))
    batches = FUNCTIONS[kind](RustBPETokenizer(encoding), B, T, split, device="cpu")
    theirs = expected(kind, encoding, texts, split, rank, world_size)
    for number, ((inputs, targets, _), (their_inputs, their_targets)) in enumerate(
        itertools.islice(zip(batches, theirs, strict=True), 150)
    ):
        assert (inputs.dtype, targets.dtype) == (torch.int64, torch.int64)
        assert inputs.tolist() == their_inputs, number
        assert targets.tolist() == their_targets, number


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_any_state_goes_on_with_the_very_next_batch(kind: str, encoding: Any, data: Path) -> None:
    def open_at(state: Any = None) -> Any:
        return FUNCTIONS[kind](encoding, B, T, "train", 2, device="cpu", resume_state_dict=state, data=data)

    found = [(inputs.tolist(), json.dumps(state)) for inputs, _, state in itertools.islice(open_at(), 60)]
    for number in (0, 1, 13, 47):
        again = itertools.islice(open_at(json.loads(found[number][1])), 5)
        assert [inputs.tolist() for inputs, _, _ in again] == [inputs for inputs, _ in found[number + 1 : number + 6]]


def test_without_states_the_batches_are_the_same(encoding: Any, data: Path) -> None:
    settings: Any = {"device": "cpu", "data": data}
    for pair, triple in (
        (nanochat.tokenizing_distributed_data_loader_bos_bestfit, FUNCTIONS[BEST_FIT]),
        (nanochat.tokenizing_distributed_data_loader, FUNCTIONS[STREAM]),
    ):
        both = zip(pair(encoding, B, T, "val", **settings), triple(encoding, B, T, "val", **settings), strict=True)
        for (inputs, targets), (same_inputs, same_targets, _) in itertools.islice(both, 10):
            assert torch.equal(inputs, same_inputs)
            assert torch.equal(targets, same_targets)


def test_the_first_ranks_state_is_that_of_all(tmp_path: Path, encoding: Any, data: Path) -> None:
    """Two ranks over gloo; the state that rank 0 saved goes on on both, or on one rank that has both lanes."""
    vocabulary = tmp_path / "tokenizer.json"
    nanofast.Tokenizer.from_tiktoken(encoding).save(vocabulary)
    words = (str(tmp_path), str(data), str(vocabulary))
    run_ranks("nanochat_parts.py", 2, *words, "first")
    state = json.loads((tmp_path / "state.json").read_text())
    assert len(state["ranks"]) == 2
    expected = [json.loads((tmp_path / f"first_{rank}.json").read_text())[7:12] for rank in range(2)]
    for world_size in (1, 2):
        run_ranks("nanochat_parts.py", world_size, *words, "again")
        then = [json.loads((tmp_path / f"again_{rank}.json").read_text()) for rank in range(world_size)]
        if world_size == 1:
            then = [then[0][0::2], then[0][1::2]]
        assert [names[:5] for names in then] == expected


def test_what_cannot_be_is_refused(encoding: Any, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(match: str, error: type[Exception] = ValueError, **changed: Any) -> None:
        settings = {"tokenizer": encoding, "B": B, "T": T, "split": "train", "device": "cpu", "data": data} | changed
        with pytest.raises(error, match=match) as caught:
            FUNCTIONS[BEST_FIT](**settings)
        assert isinstance(caught.value, nanofast.Error)

    refused(r"nanochat's own \(file 3, row group 8\)", resume_state_dict={"pq_idx": 3, "rg_idx": 8, "epoch": 1})
    refused("no state of this loader", resume_state_dict={"step": 7})
    refused("buffer_size = 500: .* with 1000 alone", buffer_size=500)
    refused("tokenizer_batch_size = 64: .* with 128 alone", tokenizer_batch_size=64)
    refused("split = 'test'", split="test")
    refused("tokenizer is str", TypeError, tokenizer="r50k_base")
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(tmp_path))
    refused("base_data_climbmix", FileNotFoundError, data=None)
    _, _, state = next(FUNCTIONS[STREAM](encoding, B, T, "train", device="cpu", data=data))
    refused('packing differs: the state has "concat"', resume_state_dict=state)
    for name, value in (("RANK", "3"), ("WORLD_SIZE", "4")):
        monkeypatch.setenv(name, value)
    refused("lane 3 would get no data.*at most 3 lanes")


def test_the_newer_folder_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(tmp_path))
    assert nanochat._data_folder() == tmp_path / "base_data_climbmix"
    (tmp_path / "base_data").mkdir()
    assert nanochat._data_folder() == tmp_path / "base_data"
    (tmp_path / "base_data_climbmix").mkdir()
    assert nanochat._data_folder() == tmp_path / "base_data_climbmix"


def test_hugging_faces_tokenizer_is_taken_too(encoding: Any) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    ours, bos = nanochat._tokenizer(encoding)

    class HuggingFaceTokenizer:
        def __init__(self) -> None:
            self.tokenizer = tokenizers.Tokenizer.from_str(ours._native.to_hf_json().decode())

    same, same_bos = nanochat._tokenizer(HuggingFaceTokenizer())
    assert same_bos == bos == "<|bos|>"
    assert same.encode("Hello there, 1234 worlds").tolist() == ours.encode("Hello there, 1234 worlds").tolist()
