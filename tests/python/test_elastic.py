"""One run at any world size: merged states, workers that shard, copies, other shapes; every round seen exactly once."""

from __future__ import annotations

import copy
import itertools
import pickle
from pathlib import Path
from typing import Any

import pytest

import nanofast
from resumed import digest, following
from shards import random_texts, write_shards


@pytest.fixture(scope="module")
def tokenizer() -> nanofast.Tokenizer:
    return nanofast.Tokenizer.from_name("r50k_base")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return write_shards(tmp_path_factory.mktemp("shards"), random_texts(5, [[60, 40], [50, 30]]))


def ranks(
    data: list[str], tokenizer: nanofast.Tokenizer, world_size: int, **settings: Any
) -> list[nanofast.TokenLoader]:
    settings = {"batch_size": 2, "sequence_length": 32, "lanes": 8, "num_threads": 1} | settings
    return [
        nanofast.TokenLoader(data, tokenizer, rank=rank, world_size=world_size, **settings)
        for rank in range(world_size)
    ]


def rounds(loaders: list[nanofast.TokenLoader], count: int) -> list[list[str]]:
    """`count` rounds in the order of their lanes, whoever has them."""
    turns = 8 // len(loaders)
    parts = [following(loader, count * turns) for loader in loaders]
    return [
        [parts[lane % len(loaders)][number * turns + lane // len(loaders)] for lane in range(8)]
        for number in range(count)
    ]


def close(loaders: list[nanofast.TokenLoader]) -> None:
    for loader in loaders:
        loader.close()


@pytest.mark.parametrize("world_size", [1, 2, 4, 8])
@pytest.mark.parametrize("settings", [{"packing": "concat"}, {"shuffle": True}])
def test_a_run_saved_on_four_ranks_goes_on_on_any(
    data: list[str], tokenizer: nanofast.Tokenizer, world_size: int, settings: dict[str, Any]
) -> None:
    [alone] = ranks(data, tokenizer, 1, **settings)
    expected = rounds([alone], 9)
    four = ranks(data, tokenizer, 4, **settings)
    assert rounds(four, 4) == expected[:4]
    whole = nanofast.merge_states([loader.state_dict() for loader in four])
    others = ranks(data, tokenizer, world_size, **settings)
    for loader in others:
        loader.load_state_dict(whole)
    assert rounds(others, 5) == expected[4:]
    again = nanofast.merge_states([loader.state_dict() for loader in others])
    four[1].load_state_dict(again)
    assert four[1].state_dict()["round"] == 9
    close([alone, *four, *others])


def test_what_cannot_be_merged_is_refused_in_words(data: list[str], tokenizer: nanofast.Tokenizer) -> None:
    four = ranks(data, tokenizer, 4)
    states = [loader.state_dict() for loader in four]
    with pytest.raises(ValueError, match="no states to merge"):
        nanofast.merge_states([])
    with pytest.raises(ValueError, match="lane 2 is missing: the state of rank 2 of 4"):
        nanofast.merge_states(states[:2] + states[3:])
    following(four[1], 2)
    with pytest.raises(ValueError, match="not of one moment: round 0 and 1"):
        nanofast.merge_states([states[0], four[1].state_dict()])
    [other] = ranks(data, tokenizer, 1, seed=3)
    with pytest.raises(ValueError, match="seed differs"):
        nanofast.merge_states([*states, other.state_dict()])
    broken = copy.deepcopy(states[1])
    broken["lanes"]["1"]["row"] = 5
    with pytest.raises(ValueError, match=r"damaged .lane 1"):
        nanofast.merge_states([states[0], broken])
    close([other, *four])


def test_inside_a_round_only_the_same_world_size_goes_on(data: list[str], tokenizer: nanofast.Tokenizer) -> None:
    four = ranks(data, tokenizer, 4)
    expected = [following(loader, 6)[3:] for loader in four]
    for loader in four:
        loader.load_state_dict(ranks(data, tokenizer, 4)[loader.rank].state_dict())
        following(loader, 3)
    whole = nanofast.merge_states([loader.state_dict() for loader in four])
    for loader, names in zip(ranks(data, tokenizer, 4), expected, strict=True):
        with loader:
            loader.load_state_dict(whole)
            assert following(loader, 3) == names
    [two, _] = ranks(data, tokenizer, 2)
    with pytest.raises(
        ValueError, match=r"inside a round \(batch 1 of 2 of each rank\).*world size 4; at world size 2"
    ):
        two.load_state_dict(whole)
    close(four)


def test_a_pickled_loader_is_at_the_same_position(data: list[str], tokenizer: nanofast.Tokenizer) -> None:
    for reads in (0, 3, 20):
        with nanofast.TokenLoader(data, tokenizer, 2, 32, lanes=2, shuffle=True) as loader:
            following(loader, reads)
            with pickle.loads(pickle.dumps(loader)) as other:
                assert other.state_dict() == loader.state_dict()
                assert following(other, 5) == following(loader, 5)


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_dataloader_workers_shard_by_themselves(data: list[str], tokenizer: nanofast.Tokenizer, context: str) -> None:
    torch_data = pytest.importorskip("torch.utils.data")
    for reads in (0, 8):  # from the beginning, and from the end of a round
        with nanofast.TokenLoader(data, tokenizer, 2, 32, lanes=4, num_threads=1) as loader:
            following(loader, reads)
            if context == "fork" and reads:
                loader = pickle.loads(pickle.dumps(loader))
            batches = torch_data.DataLoader(loader, batch_size=None, num_workers=2, multiprocessing_context=context)
            names = [digest(batch) for batch in itertools.islice(batches, 12)]
            assert names == following(loader, 12)


def test_dataloader_workers_that_do_not_divide_the_lanes_are_refused(
    data: list[str], tokenizer: nanofast.Tokenizer
) -> None:
    torch_data = pytest.importorskip("torch.utils.data")
    loader = nanofast.TokenLoader(data, tokenizer, 2, 32, lanes=3)
    with pytest.raises(ValueError, match="world_size = 2: does not divide lanes = 3"):
        next(iter(torch_data.DataLoader(loader, batch_size=None, num_workers=2, multiprocessing_context="fork")))


def test_finite_epochs_end_worker_by_worker(data: list[str], tokenizer: nanofast.Tokenizer) -> None:
    torch_data = pytest.importorskip("torch.utils.data")
    loader = nanofast.TokenLoader(data, tokenizer, 2, 32, lanes=4, epochs=1, num_threads=1)
    batches = torch_data.DataLoader(loader, batch_size=None, num_workers=2, multiprocessing_context="fork")
    learned = sum(int((targets >= 0).sum()) for _, targets in batches)
    with pickle.loads(pickle.dumps(loader)) as alone:
        assert learned == sum(int((targets >= 0).sum()) for _, targets in alone.numpy())


@pytest.mark.parametrize("packing", ["concat", "best_fit"])
def test_reconfigured_at_a_batch_border_without_losing_a_token(
    data: list[str], tokenizer: nanofast.Tokenizer, packing: str
) -> None:
    with nanofast.TokenLoader(data, tokenizer, 2, 32, lanes=2, packing=packing, epochs=1) as loader:
        following(loader, 7)
        loader.reconfigure(batch_size=3)
        assert [inputs.shape for inputs, _ in itertools.islice(loader.numpy(), 2)] == [(3, 32)] * 2
        loader.reconfigure(sequence_length=20)
        state = loader.state_dict()
        assert (state["batch_size"], state["sequence_length"]) == (3, 20)
        rest = following(loader, 10_000)
        ledger = loader.metrics()["ledger"]
        assert (ledger["documents"], ledger["waiting"], ledger["cropped"]) == (180, 0, 0)
        with nanofast.TokenLoader(data, tokenizer, 3, 20, lanes=2, packing=packing, epochs=1) as other:
            other.load_state_dict(state)
            assert following(other, 10_000) == rest
            assert other.metrics()["ledger"] == ledger
    with nanofast.TokenLoader(data, tokenizer, 2, 32) as loader:
        with pytest.raises(ValueError, match="batch_size = 0: must be at least 1"):
            loader.reconfigure(batch_size=0)
        assert loader.batch_size == 2


def test_drop_last_ends_with_the_shortest_lane(tokenizer: nanofast.Tokenizer, tmp_path: Path) -> None:
    data = write_shards(tmp_path, [[["word " * 30] * 4 + ["word " * 3] * 4, ["word " * 30] * 4 + ["word " * 3] * 3]])
    settings: dict[str, Any] = {"lanes": 2, "unit_documents": 4, "packing": "concat", "epochs": 1}
    with nanofast.TokenLoader(data, tokenizer, 1, 8, **settings) as loader:
        lanes = [[digest(batch)] for batch in loader.numpy()]
    for num_slots in (2, 5):
        with nanofast.TokenLoader(data, tokenizer, 1, 8, drop_last=True, num_slots=num_slots, **settings) as loader:
            kept = following(loader, 1000)
        assert 0 < len(kept) < len(lanes)
        assert len(kept) % 2 == 0
        assert kept == [name for [name] in lanes[: len(kept)]]
