"""Mixtures: every batch is the plain-Python twin's, shares hold, nothing is lost when weights or world size change."""

from __future__ import annotations

import itertools
import json
import logging
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import nanofast
from conftest import IS_LONG
from nanofast import Mixture
from resumed import digest, following
from shards import random_texts, write_shards
from stream_twin import MixedStream

MODES: dict[str, dict[str, str]] = {
    "concat": {"packing": "concat"},
    "carry": {"packing": "best_fit"},
    "pad": {"packing": "best_fit", "overflow": "pad"},
    "one_per_row": {"packing": "one_per_row"},
}
Tokens = list[list[list[list[int]]]]


@pytest.fixture(scope="module")
def tokenizer() -> nanofast.Tokenizer:
    return nanofast.Tokenizer.from_name("r50k_base")


class Sources:
    """A few data sets on disk and as tokens."""

    def __init__(
        self, folder: Path, tokenizer: nanofast.Tokenizer, layouts: list[list[list[int]]], seed: int = 0
    ) -> None:
        self.paths, self.tokens = [], []
        for number, layout in enumerate(layouts):
            texts = random_texts(seed + number, layout, longest=10 + 30 * number)
            (folder / str(number)).mkdir()
            self.paths.append(write_shards(folder / str(number), texts))
            self.tokens.append(
                [[[tokenizer.encode(text).tolist() for text in rows] for rows in shard] for shard in texts]
            )

    def mixture(self, weights: list[float], run_out: str = "repeat") -> Mixture:
        named = zip("abcd", self.paths, weights, strict=False)
        return Mixture({name: (paths, weight) for name, paths, weight in named}, run_out)

    def twin(self, tokenizer: nanofast.Tokenizer, mode: str, weights: list[float], **settings: Any) -> MixedStream:
        return MixedStream(
            [], bos=tokenizer.bos_id, packing=mode, sources=self.tokens, weights=list(weights), **settings
        )  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory, tokenizer: nanofast.Tokenizer) -> Sources:
    return Sources(tmp_path_factory.mktemp("three"), tokenizer, [[[60, 20], [40]], [[50]], [[12, 9, 14]]])


CASES = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**63),
        "layouts": st.lists(
            st.lists(st.lists(st.integers(0, 25), min_size=1, max_size=3), min_size=1, max_size=2).filter(
                lambda layout: sum(map(sum, layout)) >= 4
            ),
            min_size=1,
            max_size=4,
        ),
        "weights": st.lists(st.floats(0.05, 20), min_size=4, max_size=4),
        "run_out": st.sampled_from(["repeat", "stop", "drop"]),
        "mode": st.sampled_from(list(MODES)),
        "lanes": st.sampled_from([1, 2, 4]),
        "shuffle": st.booleans(),
        "unit_documents": st.sampled_from([None, 1, 3]),
        "batch_size": st.integers(1, 3),
        "sequence_length": st.sampled_from([1, 7, 40]),
        "num_threads": st.sampled_from([1, 3]),
    }
)


@settings(
    max_examples=400 if IS_LONG else 30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much],
)
@given(case=CASES)
def test_every_batch_is_the_twins(
    case: dict[str, Any], tokenizer: nanofast.Tokenizer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    sources = Sources(tmp_path_factory.mktemp("sources"), tokenizer, case["layouts"], seed=case["seed"] % 1000)
    weights = case["weights"][: len(case["layouts"])]
    shared = {
        name: case[name] for name in ("lanes", "shuffle", "unit_documents", "batch_size", "sequence_length", "seed")
    }
    epochs = None if case["run_out"] == "repeat" else 2
    twin = sources.twin(tokenizer, case["mode"], weights, run_out=case["run_out"], epochs=epochs, **shared)
    mixture = sources.mixture(weights, case["run_out"])
    arguments: dict[str, Any] = {**MODES[case["mode"]], **shared, "epochs": epochs, "num_threads": case["num_threads"]}
    if epochs and any(len(stream.units) * epochs < case["lanes"] for stream in twin.streams):
        with pytest.raises(ValueError, match=r"source `.`: lanes = .*would get no data"):
            nanofast.TokenLoader(mixture, tokenizer, **arguments)
        return
    count = 40 if epochs is None else 10_000
    with nanofast.TokenLoader(mixture, tokenizer, **arguments) as loader:
        assert following(loader, count) == [digest(batch) for batch in itertools.islice(twin.batches(), count)]
        metrics = loader.metrics()
        assert sum(share["trained"] for share in metrics["shares"].values()) == metrics["ledger"]["learned"]
        admitted = metrics["ledger"]["read"] + metrics["ledger"]["documents"]
        assert sum(share["admitted"] for share in metrics["shares"].values()) == admitted


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_resumes_from_every_batch(three: Sources, tokenizer: nanofast.Tokenizer, mode: str, shuffle: bool) -> None:
    settings: dict[str, Any] = {"batch_size": 2, "sequence_length": 32, "lanes": 2, "shuffle": shuffle, **MODES[mode]}
    for run_out in ("repeat", "drop"):
        mixture = three.mixture([0.6, 0.3, 0.1], run_out)
        with nanofast.TokenLoader(mixture, tokenizer, **settings) as loader:
            states, names = [loader.state_dict()], []
            for batch in itertools.islice(loader.numpy(), 60):
                names.append(digest(batch))
                states.append(json.loads(json.dumps(loader.state_dict())))
        for number in range(0, len(names), 1 if IS_LONG else 4):
            with nanofast.TokenLoader(mixture, tokenizer, **settings) as loader:
                loader.load_state_dict(states[number])
                assert loader.state_dict() == states[number]
                expected = names[number : number + 6]
                assert following(loader, len(expected)) == expected, f"from batch {number}"
                assert loader.state_dict() == states[number + len(expected)]
        assert len(json.dumps({**states[-1], "identity": None})) < 2 * 16_000


def test_goes_on_at_every_world_size(three: Sources, tokenizer: nanofast.Tokenizer) -> None:
    mixture = three.mixture([2, 1, 1])
    settings: dict[str, Any] = {"batch_size": 2, "sequence_length": 32, "lanes": 4}
    with nanofast.TokenLoader(mixture, tokenizer, **settings) as alone:
        expected = following(alone, 80)
    ranks = [nanofast.TokenLoader(mixture, tokenizer, rank=r, world_size=4, **settings) for r in range(4)]
    parts = [following(loader, 10) for loader in ranks]
    assert [parts[n % 4][n // 4] for n in range(40)] == expected[:40]
    whole = nanofast.merge_states([loader.state_dict() for loader in ranks])
    for world_size in (1, 2):
        parts = []
        for rank in range(world_size):
            with nanofast.TokenLoader(mixture, tokenizer, rank=rank, world_size=world_size, **settings) as loader:
                loader.load_state_dict(whole)
                parts.append(following(loader, 40 // world_size))
        assert [parts[n % world_size][n // world_size] for n in range(40)] == expected[40:]
    for loader in ranks:
        loader.close()


@pytest.mark.parametrize("mode", MODES)
def test_weights_change_at_a_batch_border_without_losing_or_repeating_a_document(
    three: Sources, tokenizer: nanofast.Tokenizer, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    settings: dict[str, Any] = {"batch_size": 2, "sequence_length": 24, "lanes": 2}
    first, second = [0.7, 0.2, 0.1], [0.1, 0.1, 0.8]
    twin = three.twin(tokenizer, mode, first, **settings)
    batches = twin.batches()
    with nanofast.TokenLoader(three.mixture(first), tokenizer, **MODES[mode], **settings) as loader:
        assert following(loader, 21) == [digest(next(batches)) for _ in range(21)]
        twin.reweigh(second)
        with caplog.at_level(logging.INFO, logger="nanofast"):
            loader.reconfigure(mixture={"c": 0.8, "a": 0.1, "b": 0.1})
        assert "weights {'a': 0.1, 'b': 0.1, 'c': 0.8} instead of" in caplog.text
        assert "round 10, batch 1" in caplog.text
        state = loader.state_dict()
        assert state["weights"] == second
        expected = [digest(next(batches)) for _ in range(20)]
        assert following(loader, 20) == expected
        with nanofast.TokenLoader(three.mixture(second), tokenizer, **MODES[mode], **settings) as other:
            other.load_state_dict(state)
            assert following(other, 20) == expected
        with pickle.loads(pickle.dumps(loader)) as copy:
            assert following(copy, 4) == following(loader, 4)


def test_a_state_of_other_weights_begins_to_count_anew(three: Sources, tokenizer: nanofast.Tokenizer) -> None:
    settings: dict[str, Any] = {"batch_size": 2, "sequence_length": 24, "lanes": 2}
    with nanofast.TokenLoader(three.mixture([1, 1, 1]), tokenizer, **settings) as loader:
        following(loader, 10)
        state = loader.state_dict()
        loader.reconfigure(mixture=three.mixture([1, 2, 3]))
        with nanofast.TokenLoader(three.mixture([1, 2, 3]), tokenizer, **settings) as other:
            other.load_state_dict(state)
            assert other.state_dict() == loader.state_dict()
            assert following(other, 10) == following(loader, 10)


def test_shares_are_counted(three: Sources, tokenizer: nanofast.Tokenizer) -> None:
    with nanofast.TokenLoader(three.mixture([0.5, 0.3, 0.2]), tokenizer, 4, 64, lanes=2) as loader:
        following(loader, 100)
        shares = loader.metrics()["shares"]
    assert list(shares) == ["a", "b", "c"]
    for share, weight in zip(shares.values(), (0.5, 0.3, 0.2), strict=True):
        assert abs(share["admitted_share"] - weight) < 0.02
        assert abs(share["trained_share"] - weight) < 0.06


def test_without_a_mixture_there_are_no_shares(three: Sources, tokenizer: nanofast.Tokenizer) -> None:
    with nanofast.TokenLoader(three.paths[0], tokenizer, 2, 16) as loader:
        assert loader.metrics()["shares"] == {}
        with pytest.raises(ValueError, match="this loader reads one data set"):
            loader.reconfigure(mixture={"a": 1})


def test_what_makes_no_mixture_is_refused(three: Sources, tokenizer: nanofast.Tokenizer, tmp_path: Path) -> None:
    path = three.paths[0]

    def refused(error: type[Exception], words: str, *arguments: Any) -> None:
        with pytest.raises(error, match=words) as caught:
            Mixture(*arguments)
        assert isinstance(caught.value, nanofast.Error)

    refused(ValueError, "needs a source at least", {})
    refused(TypeError, "sources is list", [path])
    refused(TypeError, r"source `a` is 'x'; expected \(data, weight\)", {"a": "x"})
    refused(TypeError, r"source `a` is 1; expected \(data, weight\)", {"a": 1})
    refused(ValueError, "weight of source `a` = 0: must be above 0", {"a": (path, 0)})
    refused(ValueError, "weight of source `a` = nan", {"a": (path, float("nan"))})
    refused(TypeError, "weight of source `a` is '1'", {"a": (path, "1")})
    refused(ValueError, "run_out = `loop`", {"a": (path, 1)}, "loop")

    def refused_loader(error: type[Exception], words: str, mixture: Mixture, **settings: Any) -> None:
        with pytest.raises(error, match=words) as caught:
            nanofast.TokenLoader(mixture, tokenizer, 2, 16, **settings)
        assert isinstance(caught.value, nanofast.Error)

    empty = write_shards(tmp_path, [[[]]])
    good = three.mixture([1, 1])
    refused_loader(FileNotFoundError, "source `b`: no such file", Mixture({"a": (path, 1), "b": ("gone.parquet", 1)}))
    refused_loader(ValueError, "source `b`: data = empty: no documents", Mixture({"a": (path, 1), "b": (empty, 1)}))
    refused_loader(ValueError, "overflow = `crop`", good, overflow="crop")
    refused_loader(ValueError, "epochs = 2: a mixture whose sources repeat", good, epochs=2)
    with nanofast.TokenLoader(good, tokenizer, 2, 16) as loader:
        with pytest.raises(
            ValueError, match="weights of `a`, `x`; expected one for each source of the mixture: `a`, `b`"
        ):
            loader.reconfigure(mixture={"a": 1, "x": 2})
        following(loader, 3)
        state = loader.state_dict()
        with (
            nanofast.TokenLoader(three.mixture([1, 1, 1]), tokenizer, 2, 16) as other,
            pytest.raises(ValueError, match=r"sources differs|number of shards differs"),
        ):
            other.load_state_dict(state)
        with (
            nanofast.TokenLoader(three.mixture([1, 1], "drop"), tokenizer, 2, 16) as other,
            pytest.raises(ValueError, match='run_out differs: the state has "repeat", this loader has "drop"'),
        ):
            other.load_state_dict(state)


def test_a_source_of_bad_data_is_named(three: Sources, tokenizer: nanofast.Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "broken.parquet"
    path.write_bytes(b"no parquet at all, but long enough")
    with pytest.raises(ValueError, match=r"source `b`: .*broken.parquet"):
        nanofast.TokenLoader(Mixture({"a": (three.paths[0], 1), "b": (path, 1)}), tokenizer, 2, 16)


def test_a_mixture_is_spelled_and_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    mixture = Mixture.parse("web=shards/web:0.7,code=s3://bucket/a,b.parquet:0.3")
    assert mixture is None, "a comma within a path would be a source without a name"
    mixture = Mixture.parse("web=shards/web:0.7,my-code=s3://bucket/code:3e-1")
    assert mixture is not None
    assert mixture.weights == {"web": 0.7, "my-code": 0.3}
    assert mixture.spelled() == f"web={tmp_path / 'shards/web'}:0.7,my-code=s3://bucket/code:0.3"
    assert Mixture.parse(mixture.spelled()) == Mixture(
        {"web": (str(tmp_path / "shards/web"), 0.7), "my-code": ("s3://bucket/code", 0.3)}
    )
    exact = {"large": ("x", 1e6), "odd": ("x", 1 / 3), "small": ("x", 1e-9), "huge": ("x", 1234567890123.0)}
    again = Mixture.parse(Mixture(exact).spelled())
    assert again is not None
    assert again.weights == {name: weight for name, (_, weight) in exact.items()}
    for path in ("shards/", "*.parquet", "a=b", "a=b.parquet", "https://host/a=b:1/c.parquet"):
        assert Mixture.parse(path) is None, path
    Path("a=b:1").touch()
    assert Mixture.parse("a=b:1") is None, "a file that is there is meant"
    with pytest.raises(ValueError, match="a name of its own"):
        Mixture.parse("a=x:1,a=y:2")
