"""The loader's batches against two judges: the plain-Python twin, and the normative reference where it is there."""

from __future__ import annotations

import importlib.util
import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import nanofast
from conftest import IS_LONG
from resumed import following
from shards import random_texts, write_shards
from stream_twin import Stream

REFERENCE = Path(__file__).parents[3] / "shared" / "reference" / "stream.py"


@pytest.fixture(scope="module")
def tokenizer() -> nanofast.Tokenizer:
    return nanofast.Tokenizer.from_name("r50k_base")


def reference() -> Any:
    if not REFERENCE.exists():
        pytest.skip("the normative reference (../shared/reference) is not on this machine")
    spec = importlib.util.spec_from_file_location("stream_reference", REFERENCE)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["stream_reference"] = module
    spec.loader.exec_module(module)
    return module


def tokens_of(tokenizer: nanofast.Tokenizer, texts: list[list[list[str]]]) -> list[list[list[list[int]]]]:
    return [[[tokenizer.encode(text).tolist() for text in group] for group in shard] for shard in texts]


def assert_same(found: Any, expected: Any, count: int) -> None:
    """`count` batches (or fewer, when both end there) are equal, inputs and targets."""
    pairs = itertools.zip_longest(itertools.islice(found, count), itertools.islice(expected, count))
    for number, (left, right) in enumerate(pairs):
        assert left is not None, f"the loader ended before batch {number}"
        assert right is not None, f"the loader went on with batch {number}"
        for name, one, other in zip(("inputs", "targets"), left, right, strict=True):
            np.testing.assert_array_equal(one, np.array(other), err_msg=f"{name} of batch {number}")


PACKINGS = {name: {"packing": "best_fit", "overflow": name} for name in ("carry", "crop", "pad")}

CASES = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**63),
        "layout": st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=4), min_size=1, max_size=3).filter(
            lambda layout: sum(map(sum, layout)) >= 8
        ),
        "batch_size": st.integers(1, 5),
        "sequence_length": st.sampled_from([1, 2, 7, 16, 61]),
        "lanes": st.sampled_from([1, 2, 4, 8]),
        "packing": st.sampled_from(["concat", "carry", "crop", "pad", "one_per_row"]),
        "shuffle": st.booleans(),
        "shuffle_window": st.sampled_from([1, 5, 4096]),
        "epochs": st.sampled_from([None, 1, 3]),
        "unit_documents": st.sampled_from([None, 0, 1, 3, 1000]),
        "num_threads": st.sampled_from([1, 2, 8]),
        "num_slots": st.sampled_from([2, 3, 9]),
    }
)


@settings(
    max_examples=400 if IS_LONG else 60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much],
)
@given(case=CASES)
def test_every_batch_is_the_twins(
    case: dict[str, Any], tokenizer: nanofast.Tokenizer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    texts = random_texts(case["seed"], case["layout"])
    paths = write_shards(tmp_path_factory.mktemp("shards"), texts)
    shared = {key: case[key] for key in ("lanes", "shuffle", "shuffle_window", "epochs", "unit_documents")}
    shared |= {"batch_size": case["batch_size"], "sequence_length": case["sequence_length"], "seed": case["seed"]}
    mode = PACKINGS.get(case["packing"], {"packing": case["packing"]})
    twin = Stream(tokens_of(tokenizer, texts), bos=tokenizer.bos_id, packing=case["packing"], **shared)
    if case["epochs"] is not None and case["epochs"] * len(twin.units) < case["lanes"]:
        with pytest.raises(ValueError, match="would get no data"):
            nanofast.TokenLoader(paths, tokenizer, **mode, **shared)
        return
    world_sizes = [size for size in (1, 2, 4, 8) if case["lanes"] % size == 0]
    for world_size in world_sizes if case["epochs"] is None else [1]:
        for rank in range(world_size):
            with nanofast.TokenLoader(
                paths,
                tokenizer,
                **mode,
                rank=rank,
                world_size=world_size,
                num_threads=case["num_threads"],
                num_slots=case["num_slots"],
                **shared,
            ) as loader:
                count = 40 // world_size if case["epochs"] is None else 10_000
                assert_same(loader.numpy(), twin.batches(rank, world_size), count)


@pytest.mark.parametrize("packing", ["concat", "best_fit"])
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("lanes", [1, 2, 4, 8])
def test_every_batch_is_the_references(
    packing: str, shuffle: bool, lanes: int, tokenizer: nanofast.Tokenizer, tmp_path: Path
) -> None:
    stream = reference()
    texts = random_texts(lanes, [[30, 0, 17], [41], [5, 5, 5]])
    paths = write_shards(tmp_path, texts)
    shards = tokens_of(tokenizer, texts)
    for epochs in (None, 2):
        config = stream.Config(
            3, 24, tokenizer.bos_id, lanes=lanes, packing=packing, shuffle=shuffle, seed=11, epochs=epochs
        )
        for world_size in (1, 2, 4, 8):
            if lanes % world_size or (epochs and world_size > 1):
                continue
            for rank in range(world_size):
                with nanofast.TokenLoader(
                    paths,
                    tokenizer,
                    3,
                    24,
                    packing=packing,
                    lanes=lanes,
                    shuffle=shuffle,
                    seed=11,
                    epochs=epochs,
                    rank=rank,
                    world_size=world_size,
                ) as loader:
                    assert_same(loader.numpy(), stream.batches(shards, config, rank, world_size), 200)


def test_the_twin_is_the_reference() -> None:
    stream = reference()
    shards = [[[[d * 100 + i for i in range(d * 7 % 23)] for d in range(40)], [[1]], []], [[[5] * 90] * 9]]
    for packing, shuffle, deal, epochs in itertools.product(
        ("concat", "carry", "crop", "pad", "one_per_row"), (False, True), ("stream", "per_file"), (None, 2)
    ):
        settings = {"lanes": 2, "shuffle": shuffle, "seed": 3, "deal": deal, "epochs": epochs, "shuffle_window": 10}
        mode = PACKINGS.get(packing, {"packing": packing})
        config = stream.Config(2, 16, 9999, **mode, **settings)
        twin = Stream(shards, 2, 16, 9999, packing=packing, **settings)
        expected = list(itertools.islice(stream.batches(shards, config), 60))
        assert list(itertools.islice(twin.batches(), 60)) == expected


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("packing", ["concat", "best_fit"])
def test_the_number_of_threads_changes_nothing(
    tokenizer: nanofast.Tokenizer, tmp_path: Path, packing: str, record_property: Callable[[str, object], None]
) -> None:
    """1 to 16 threads, again and again, while other processes keep every core busy: one digest."""
    repeats = 20 if IS_LONG else 1
    record_property("runs under load", 16 * repeats)
    paths = write_shards(tmp_path, random_texts(1, [[100] * 5, [100] * 5], longest=200))
    endless = [sys.executable, "-c", "while True: pass"]
    others = [subprocess.Popen(endless) for _ in range(os.cpu_count() or 1)]
    try:
        digests = set()
        for num_threads in list(range(1, 17)) * repeats:
            with nanofast.TokenLoader(paths, tokenizer, 4, 128, packing=packing, num_threads=num_threads) as loader:
                digests.add(tuple(following(loader, 100)))
        assert len(digests) == 1
    finally:
        for other in others:
            other.kill()
            other.wait()


def test_torch_and_numpy_give_the_same_batches(tokenizer: nanofast.Tokenizer, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    paths = write_shards(tmp_path, random_texts(2, [[50, 50]]))
    make = lambda: nanofast.TokenLoader(paths, tokenizer, 3, 32, lanes=2, epochs=2)  # noqa: E731
    with make() as tensors, make() as copies, make() as views:
        everything = zip(tensors, copies.numpy(), views.numpy(copy=False), strict=True)
        kept = []
        for (inputs, targets), (inputs_copy, targets_copy), (inputs_view, targets_view) in everything:
            assert (inputs.dtype, targets.dtype) == (torch.int32, torch.int64)
            assert (inputs_copy.dtype, targets_copy.dtype) == (np.int32, np.int64)
            np.testing.assert_array_equal(inputs.numpy(), inputs_copy)
            np.testing.assert_array_equal(targets.numpy(), targets_copy)
            np.testing.assert_array_equal(inputs_view, inputs_copy)
            np.testing.assert_array_equal(targets_view, targets_copy)
            kept.append((inputs, inputs_copy, inputs.clone()))
    assert len(kept) > 10
    for inputs, inputs_copy, before in kept:  # what was handed over is the caller's, whatever came after
        assert torch.equal(inputs, before)
        np.testing.assert_array_equal(inputs_copy, before.numpy())


def test_the_ledger_balances_at_every_batch(tokenizer: nanofast.Tokenizer, tmp_path: Path) -> None:
    texts = random_texts(3, [[40, 40], [40]])
    paths = write_shards(tmp_path, texts)
    total = sum(len(document) for shard in tokens_of(tokenizer, texts) for group in shard for document in group)
    for packing in ("concat", "best_fit"):
        with nanofast.TokenLoader(paths, tokenizer, 2, 30, packing=packing, lanes=4, epochs=2) as loader:
            positions = 0
            first_of_lane = [True] * 4
            for number, (inputs, targets) in enumerate(loader.numpy()):
                ledger = loader.metrics()["ledger"]
                assert ledger["read"] == ledger["learned"] + ledger["masked"] + ledger["cropped"] + ledger["waiting"]
                full = bool((targets >= 0).all())
                if packing == "concat" and full:
                    positions += targets.size + first_of_lane[number % 4]
                elif packing == "best_fit":
                    positions += targets.size + len(inputs)
                if packing == "best_fit" or full:
                    delivered = sum(ledger[name] for name in ("learned", "masked", "bos", "padding"))
                    assert packing == "concat" or delivered == positions
                first_of_lane[number % 4] = False
            ledger = loader.metrics()["ledger"]
            assert (ledger["read"], ledger["waiting"], ledger["cropped"]) == (2 * total, 0, 0)
            assert ledger["documents"] == 2 * 120
            assert ledger["learned"] == 2 * total
