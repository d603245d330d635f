"""Resume is exact: at each of the first batches, in every mode, here and in a new process, and never by halves.

100 batches, 500 in the long profile.
"""

from __future__ import annotations

import copy
import itertools
import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import nanofast
from conftest import IS_LONG
from resumed import digest, following
from shards import random_texts, write_shards

NUM_STATES = 500 if IS_LONG else 100
MODES: dict[str, dict[str, Any]] = {
    "concat": {"packing": "concat"},
    "carry": {"packing": "best_fit", "overflow": "carry"},
    "crop": {"packing": "best_fit", "overflow": "crop"},
    "pad": {"packing": "best_fit", "overflow": "pad"},
    "one_per_row": {"packing": "one_per_row"},
}


@pytest.fixture(scope="module")
def tokenizer() -> nanofast.Tokenizer:
    return nanofast.Tokenizer.from_name("r50k_base")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """180 documents, about 3,000 tokens: 100 batches of 2 × 32 go round more than once."""
    return write_shards(tmp_path_factory.mktemp("shards"), random_texts(5, [[60, 0, 40], [50, 30]]))


def make(data: list[str], tokenizer: nanofast.Tokenizer, **settings: Any) -> nanofast.TokenLoader:
    return nanofast.TokenLoader(
        data, tokenizer, **{"batch_size": 2, "sequence_length": 32, "num_threads": 2} | settings
    )


def record(
    data: list[str], tokenizer: nanofast.Tokenizer, behind: int = 0, **settings: Any
) -> tuple[list[dict[str, Any]], list[str]]:
    """The states after 0, 1, … batches, through JSON, and the names of the batches; `behind` more of these."""
    with make(data, tokenizer, **settings) as loader:
        states, names = [json.dumps(loader.state_dict())], []
        for batch in itertools.islice(loader.numpy(), NUM_STATES):
            names.append(digest(batch))
            states.append(json.dumps(loader.state_dict()))
        names += following(loader, behind)
    return [json.loads(state) for state in states], names


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(
    ("mode", "lanes"),
    [("concat", 1), ("concat", 4), ("carry", 1), ("carry", 4), ("crop", 2), ("pad", 2), ("one_per_row", 2)],
)
def test_goes_on_with_the_very_next_batch_from_each_of_the_first(
    data: list[str],
    tokenizer: nanofast.Tokenizer,
    mode: str,
    lanes: int,
    shuffle: bool,
    record_property: Callable[[str, object], None],
) -> None:
    record_property("states resumed", NUM_STATES + 1)
    settings = {"lanes": lanes, "shuffle": shuffle, "seed": 3, "shuffle_window": 50, **MODES[mode]}
    states, names = record(data, tokenizer, behind=lanes + 2, **settings)
    assert len(states) == NUM_STATES + 1
    assert states[-1]["lanes"]["0"]["ordinal"] * lanes > 180 / 16, "the first epoch has ended"
    for number, state in enumerate(states):
        with make(data, tokenizer, **settings) as loader:
            loader.load_state_dict(state)
            assert following(loader, lanes + 2) == names[number : number + lanes + 2], f"from batch {number}"


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_finite_epochs_end_as_if_uninterrupted(
    data: list[str], tokenizer: nanofast.Tokenizer, mode: str, shuffle: bool
) -> None:
    settings = {"lanes": 2, "shuffle": shuffle, "epochs": 2, "batch_size": 5, "sequence_length": 41, **MODES[mode]}
    states, names = record(data, tokenizer, **settings)
    assert len(names) < NUM_STATES, "the epochs end within what is recorded"
    for number, state in enumerate(states):
        with make(data, tokenizer, **settings) as loader:
            loader.load_state_dict(state)
            assert following(loader, NUM_STATES) == names[number:], f"from batch {number}"
            ledger = loader.metrics()["ledger"]
            assert ledger["documents"] == 2 * 180
            assert ledger["waiting"] == 0


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_fifty_resumes_within_an_epoch_change_nothing(
    data: list[str],
    tokenizer: nanofast.Tokenizer,
    mode: str,
    shuffle: bool,
    record_property: Callable[[str, object], None],
) -> None:
    """A row a batch, and a resume behind each of the first 50, from the state that the loader before it made."""
    record_property("resumes within an epoch", 50)
    settings = {"batch_size": 1, "epochs": 1, "shuffle": shuffle, "lanes": 2, **MODES[mode]}
    with make(data, tokenizer, **settings) as loader:
        expected = following(loader, 10_000)
    assert len(expected) > 60
    names, state = [], None
    for _ in range(50):
        with make(data, tokenizer, **settings) as loader:
            if state:
                loader.load_state_dict(json.loads(state))
            names += following(loader, 1)
            state = json.dumps(loader.state_dict())
    with make(data, tokenizer, **settings) as loader:
        loader.load_state_dict(json.loads(state or ""))
        names += following(loader, 10_000)
    assert names == expected


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_goes_on_in_a_new_process(
    data: list[str], tokenizer: nanofast.Tokenizer, tmp_path: Path, mode: str, shuffle: bool
) -> None:
    settings = {"lanes": 2, "shuffle": shuffle, "batch_size": 2, "sequence_length": 32, **MODES[mode]}
    states, names = record(data, tokenizer, behind=4, **settings)
    job = {"data": data, "tokenizer": "r50k_base", "settings": settings, "states": states, "count": 4}
    assert resumed_elsewhere(tmp_path, job) == [names[number : number + 4] for number in range(NUM_STATES + 1)]


def test_each_state_alone_in_a_new_process(data: list[str], tokenizer: nanofast.Tokenizer, tmp_path: Path) -> None:
    settings = {"lanes": 4, "shuffle": True, "batch_size": 2, "sequence_length": 32}
    states, names = record(data, tokenizer, behind=10, **settings)
    for number in (1, 6, 63):
        job = {"data": data, "tokenizer": "r50k_base", "settings": settings, "states": [states[number]], "count": 10}
        assert resumed_elsewhere(tmp_path, job) == [names[number : number + 10]]


def resumed_elsewhere(folder: Path, job: dict[str, Any]) -> Any:
    path = folder / "job.json"
    path.write_text(json.dumps(job))
    child = [sys.executable, str(Path(__file__).with_name("resumed.py")), str(path)]
    found = subprocess.run(child, capture_output=True, text=True, timeout=120, check=False)
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout)


@pytest.mark.parametrize("mode", MODES)
def test_a_state_loaded_and_saved_again_is_the_same(data: list[str], tokenizer: nanofast.Tokenizer, mode: str) -> None:
    settings = {"lanes": 4, "shuffle": True, **MODES[mode]}
    states, _ = record(data, tokenizer, **settings)
    with make(data, tokenizer, **settings) as loader:
        for state in states:
            loader.load_state_dict(state)
            assert loader.state_dict() == state


def test_a_state_is_that_of_the_batch_in_hand_and_not_of_those_read_ahead(
    data: list[str], tokenizer: nanofast.Tokenizer
) -> None:
    states, _ = record(data, tokenizer, num_slots=2, num_threads=1)
    many, _ = record(data, tokenizer, num_slots=16, num_threads=8)
    assert states == many


@pytest.mark.parametrize("kind", ["tensors", "views"])
def test_tensors_and_views_have_the_states_of_copies(data: list[str], tokenizer: nanofast.Tokenizer, kind: str) -> None:
    states, names = record(data, tokenizer, lanes=2)
    if kind == "tensors":
        pytest.importorskip("torch")
    with make(data, tokenizer, lanes=2) as loader:
        batches = iter(loader) if kind == "tensors" else loader.numpy(copy=False)
        for number in range(NUM_STATES):
            assert loader.state_dict() == states[number]
            assert digest(next(batches)) == names[number]


def test_a_running_loader_is_rewound_and_wound_forward(data: list[str], tokenizer: nanofast.Tokenizer) -> None:
    states, names = record(data, tokenizer, behind=3, lanes=2)
    order = random.Random(1).sample(range(NUM_STATES + 1), 30)
    with make(data, tokenizer, lanes=2) as loader:
        for number in order:
            loader.load_state_dict(states[number])
            assert following(loader, 3) == names[number : number + 3]


@pytest.mark.parametrize("mode", MODES)
def test_a_lane_takes_less_than_16_kb_whatever_waits(tokenizer: nanofast.Tokenizer, tmp_path: Path, mode: str) -> None:
    data = write_shards(tmp_path, random_texts(9, [[900, 900], [900]], longest=30))
    with make(data, tokenizer, lanes=2, shuffle=True, **MODES[mode]) as loader:
        for _ in itertools.islice(loader.numpy(), 60):
            state = loader.state_dict()
            assert max(len(json.dumps(entry)) for entry in state["lanes"].values()) < 16_000
            assert len(json.dumps({**state, "identity": None, "lanes": None})) < 1000


# ---- what is refused ---------------------------------------------------------------------------------------------


def refused(loader: nanofast.TokenLoader, state: Any, match: str) -> str:
    """Loading raises, and the loader is as it was: its state, and its next batch."""
    before = loader.state_dict()
    with pytest.raises(ValueError, match=match) as caught:
        loader.load_state_dict(state)
    assert isinstance(caught.value, nanofast.Error)
    assert loader.state_dict() == before
    return str(caught.value)


def test_a_flipped_or_torn_state_is_refused_and_changes_nothing(
    data: list[str], tokenizer: nanofast.Tokenizer, record_property: Callable[[str, object], None]
) -> None:
    states, names = record(data, tokenizer, behind=1, lanes=2, shuffle=True)
    generator = random.Random(4)
    good = json.dumps(states[50])
    with make(data, tokenizer, lanes=2, shuffle=True) as loader:
        assert following(loader, 7) == names[:7]
        changed = 0
        for _ in range(300):
            place, bit = generator.randrange(len(good)), generator.randrange(7)
            flipped = good[:place] + chr(ord(good[place]) ^ 1 << bit) + good[place + 1 :]
            try:
                state = json.loads(flipped)
            except ValueError:
                continue  # no JSON any more: json.loads refuses it
            if state == states[50]:
                continue
            changed += 1
            refused(loader, state, "cannot resume")
        assert changed > 100
        record_property("flipped bits in states", changed)
        for field in states[50]:
            torn = {name: value for name, value in states[50].items() if name != field}
            refused(loader, torn, "cannot resume")
        for field in states[50]["lanes"]["1"]:
            torn = copy.deepcopy(states[50])
            del torn["lanes"]["1"][field]
            refused(loader, torn, "damaged .lane 1")
        assert following(loader, 1) == names[7:8]


@given(choice=st.data())
def test_a_text_that_is_not_the_states_is_refused(
    choice: st.DataObject, data: list[str], tokenizer: nanofast.Tokenizer
) -> None:
    """Cut, doubled, overwritten or with a part in another place: it is no JSON, says the same, or is refused."""
    with make(data, tokenizer, lanes=2, shuffle=True) as loader:
        following(loader, 9)
        good = loader.state_dict()
        text = json.dumps(good)
        begin, end = sorted(choice.draw(st.tuples(*[st.integers(0, len(text))] * 2)))
        place = choice.draw(st.integers(0, len(text)))
        piece = choice.draw(st.sampled_from(["", text[begin:end], "0", "9", "A", '"']))
        changed = text[:begin] + text[end:] if not piece else text[:place] + piece + text[place + len(piece) :]
        try:
            state = json.loads(changed)
        except ValueError:
            return
        if state != good:
            refused(loader, state, "cannot resume")


@pytest.mark.parametrize(
    ("state", "match"),
    [
        ({}, "no format"),
        ([], "no state"),
        ("text", "no state"),
        (None, "no state"),
        ({"format": "nanofast.state", "version": 2}, "version 2 is unknown.*reads version 1"),
        ({"format": "nanofast.state"}, "version none is unknown"),
        ({"pq_idx": 3, "rg_idx": 8, "epoch": 1}, "expected format `nanofast.state`, found no format"),
        ({"format": "somebody.else"}, "found format `somebody.else`"),
        ({"format": {1, 2}}, "no state"),
    ],
)
def test_a_foreign_state_is_refused(data: list[str], tokenizer: nanofast.Tokenizer, state: Any, match: str) -> None:
    with make(data, tokenizer) as loader:
        refused(loader, state, match)


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"text_column": "other"}, 'text_column differs: the state has "text", this loader has "other"'),
        ({"packing": "concat"}, 'packing differs: the state has "best_fit/carry", this loader has "concat"'),
        ({"overflow": "crop"}, 'packing differs: the state has "best_fit/carry", this loader has "best_fit/crop"'),
        ({"lanes": 4, "unit_documents": 5}, "lanes differs: the state has 2, this loader has 4"),
        ({"unit_documents": 7}, "unit_documents differs: the state has 5, this loader has 7"),
        ({"deal": "per_file"}, 'deal differs: the state has "stream", this loader has "per_file"'),
        ({"seed": 1}, "seed differs: the state has 0, this loader has 1"),
        ({"shuffle": True}, "shuffle differs: the state has false, this loader has true"),
        ({"shuffle_window": 9}, "shuffle_window differs: the state has 4096, this loader has 9"),
        ({"split": "train"}, 'split differs: the state has "all", this loader has "train"'),
        ({"pad_id": 7}, "pad_id differs: the state has 50256, this loader has 7"),
    ],
)
def test_what_must_match_is_refused_by_name_with_both_values(
    tokenizer: nanofast.Tokenizer, tmp_path: Path, changed: dict[str, Any], match: str
) -> None:
    data = write_two_columns(tmp_path)
    settings: dict[str, Any] = {"lanes": 2, "unit_documents": 5}
    with make(data, tokenizer, **settings) as loader:
        following(loader, 2)
        state = loader.state_dict()
    with make(data, tokenizer, **settings | changed) as loader:
        refused(loader, state, match)
    with make(data, tokenizer, **settings) as loader:
        loader.load_state_dict(state)


def write_two_columns(folder: Path) -> list[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    paths = []
    for number in range(2):
        rows = [f"text {number} {row}" for row in range(40)]
        paths.append(str(folder / f"shard_{number}.parquet"))
        pq.write_table(pa.table({"text": rows, "other": rows}), paths[-1], row_group_size=20)
    return paths


def test_another_tokenizer_is_refused(data: list[str], tokenizer: nanofast.Tokenizer) -> None:
    with make(data, tokenizer) as loader:
        state = loader.state_dict()
    other = nanofast.Tokenizer.from_name("p50k_base")
    with make(data, other) as loader:
        message = refused(loader, state, "tokenizer differs|bos_id differs")
        assert tokenizer.fingerprint in message
        assert other.fingerprint in message


def test_replaced_added_and_missing_shards_are_refused(tokenizer: nanofast.Tokenizer, tmp_path: Path) -> None:
    texts = random_texts(3, [[20], [20], [20]])
    data = write_shards(tmp_path, texts)
    with make(data, tokenizer) as loader:
        state = loader.state_dict()
    with make(data[:2], tokenizer) as loader:
        refused(loader, state, "number of shards differs: the state has 3, this loader has 2")
    with make([data[0], data[2], data[1]], tokenizer) as loader:
        message = refused(loader, state, "shard 1 differs")
        assert message.index("shard_00001") < message.index("shard_00002")
    texts[1][0][4] = "something else altogether"
    write_shards(tmp_path, texts)
    with make(data, tokenizer) as loader:
        refused(loader, state, "shard 1 differs.*shard_00001.*footer")


def test_another_rank_and_a_missing_lane_are_refused(data: list[str], tokenizer: nanofast.Tokenizer) -> None:
    with make(data, tokenizer, rank=1, world_size=2) as loader:
        state = loader.state_dict()
    with make(data, tokenizer, rank=0, world_size=2) as loader:
        refused(loader, state, r"no lane 0: it is of rank 1 of 2, this loader is rank 0 of 2; .*merge_states\(\)")
    whole = {**state, "rank": None}
    with make(data, tokenizer, rank=0, world_size=2) as loader:
        refused(loader, whole, "damaged .head")


def test_batch_settings_that_are_free_may_differ(data: list[str], tokenizer: nanofast.Tokenizer) -> None:
    states, names = record(data, tokenizer, behind=5, lanes=2)
    free = {"num_threads": 1, "num_slots": 7, "memory_limit_bytes": 128 << 20}
    with make(data, tokenizer, lanes=2, **free) as loader:
        loader.load_state_dict(states[31])
        assert following(loader, 5) == names[31:36]
