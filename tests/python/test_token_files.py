"""Loading token files: every window is the one that numpy cuts, in the order of the slow twin; resumed exactly."""

from __future__ import annotations

import itertools
import json
import os
import pickle
import resource
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import nanofast
from nanofast import TokenDataset, TokenFileLoader
from nanofast.token_files import find_token_files, is_token_data
from token_parts import VOCAB_SIZE, Batch, Twin, random_ids, write

KINDS = ("flat16", "flat32", "llm.c", "llm.c32", "npy")
DTYPES = {"flat32": "uint32"}


@pytest.fixture
def files(tmp_path: Path) -> tuple[list[str], list[np.ndarray]]:
    """Three files of unequal length, one of them too short for a window."""
    ids = [random_ids(seed, length) for seed, length in enumerate((200, 5, 333))]
    paths = [str(write(tmp_path / f"{index}.bin", part, "flat16")) for index, part in enumerate(ids)]
    return paths, ids


def lists(batches: Iterable[tuple[torch.Tensor, torch.Tensor]], count: int | None = None) -> list[Batch]:
    return [(inputs.tolist(), targets.tolist()) for inputs, targets in itertools.islice(batches, count)]


def twins(batches: Iterator[Batch], count: int | None = None) -> list[Batch]:
    return list(itertools.islice(batches, count))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shuffle", ["none", "window", "random"])
def test_batches_are_those_of_the_twin(tmp_path: Path, kind: str, shuffle: str):
    ids = random_ids(1, 500)
    path = write(tmp_path / ("a.npy" if kind == "npy" else "a.bin"), ids, kind)
    with TokenFileLoader(
        path, 3, 16, shuffle, vocab_size=VOCAB_SIZE, dtype=DTYPES.get(kind), lanes=2, seed=5
    ) as loader:
        inputs, targets = next(loader)
        assert (inputs.dtype, targets.dtype) == (torch.int32, torch.int64)
        found = [(inputs.tolist(), targets.tolist()), *lists(loader, 399)]
    assert found == twins(Twin([ids], 3, 16, shuffle, lanes=2, seed=5).batches(), 400)


@given(
    st.lists(st.integers(0, 60), min_size=1, max_size=4),
    st.sampled_from(["none", "window", "random"]),
    st.integers(1, 4),
    st.integers(1, 9),
    st.sampled_from([(1, 1), (2, 1), (2, 2), (3, 1), (4, 2)]),
    st.integers(1, 3),
)
def test_finite_epochs_give_each_window_once_an_epoch(
    tmp_path_factory, lengths, shuffle, batch_size, length, dealt, epochs
):
    lanes, world_size = dealt
    folder = tmp_path_factory.mktemp("files")
    ids = [random_ids(seed, count) for seed, count in enumerate(lengths)]
    paths = [write(folder / f"{index}.bin", part, "flat16") for index, part in enumerate(ids)]
    twin = Twin(ids, batch_size, length, shuffle, lanes=lanes, epochs=epochs)

    def load(rank: int) -> TokenFileLoader:
        options = {"lanes": lanes, "epochs": epochs, "rank": rank, "world_size": world_size}
        return TokenFileLoader(paths, batch_size, length, shuffle, **options)

    if len(twin.windows()) * epochs < lanes:
        with pytest.raises(ValueError, match=r"no window of|would get no data"):
            load(0)
        return
    found = []
    for rank in range(world_size):
        with load(rank) as loader:
            found.append(lists(loader))
        assert found[-1] == list(twin.batches(rank, world_size))
    assert len({len(batches) for batches in found}) == 1, "all ranks end together"
    rows = [tuple(row) for batches in found for _, targets in batches for row in targets if -1 not in row]
    expected = [tuple(ids[file][start + 1 : start + length + 1].tolist()) for file, start in twin.windows()] * epochs
    assert sorted(rows) == sorted(expected)


def test_drop_last_ends_with_the_shortest_lane(files):
    paths, ids = files
    counts = []
    for rank in range(2):
        with TokenFileLoader(
            paths, 4, 9, "window", epochs=1, drop_last=True, lanes=4, rank=rank, world_size=2
        ) as loader:
            batches = lists(loader)
            assert all(-1 not in row for _, targets in batches for row in targets)
            counts.append(len(batches))
    windows = len(Twin(ids, 4, 9).windows())
    assert counts == [windows // 4 // 4 * 2] * 2


@pytest.mark.parametrize("shuffle", ["none", "window", "random"])
def test_a_state_goes_on_with_the_very_next_batch(files, shuffle):
    paths, _ = files

    def load() -> TokenFileLoader:
        return TokenFileLoader(paths, 3, 10, shuffle, lanes=4, rank=1, world_size=2, seed=3, epochs=3)

    with load() as loader:
        states = [loader.state_dict()]
        batches = []
        for batch in loader:
            batches.append((batch[0].tolist(), batch[1].tolist()))
            states.append(loader.state_dict())
    for step, state in enumerate(states):
        with load() as loader:
            loader.load_state_dict(state)
            assert lists(loader) == batches[step:]
            assert loader.state_dict() == states[-1]


def test_another_world_size_takes_over_at_a_rounds_end(files):
    paths, ids = files

    def load(rank: int, world_size: int) -> TokenFileLoader:
        return TokenFileLoader(paths, 2, 8, "window", lanes=4, rank=rank, world_size=world_size)

    loaders = [load(rank, 2) for rank in range(2)]
    for loader in loaders:
        lists(loader, 6)
    whole = nanofast.merge_states([loader.state_dict() for loader in loaders])
    for rank in range(4):
        with load(rank, 4) as other:
            other.load_state_dict(whole)
            expected = twins(Twin(ids, 2, 8, "window", lanes=4).batches(rank, 4), 8)[3:]
            assert lists(other, 5) == expected
    lists(loaders[0], 1)
    with load(0, 4) as other, pytest.raises(ValueError, match="inside a round"):
        other.load_state_dict(loaders[0].state_dict())
    for loader in loaders:
        loader.close()


def test_the_batch_size_may_change_and_the_length_may_not(files):
    paths, ids = files
    with TokenFileLoader(paths, 3, 8, "window", lanes=1) as loader:
        lists(loader, 2)
        state = loader.state_dict()
        with pytest.raises(ValueError, match="sequence_length = 9: windows are cut at 8"):
            loader.reconfigure(sequence_length=9)
        loader.reconfigure(batch_size=5)
        found = lists(loader, 1)
    rows = list(itertools.islice(Twin(ids, 1, 8, "window").rows(0), 11))[6:]
    assert found[0][1] == [row[1:].tolist() for row in rows]
    with TokenFileLoader(paths, 3, 9, "window", lanes=1) as other, pytest.raises(ValueError, match="windows are cut"):
        other.load_state_dict(state)
    with (
        TokenFileLoader(paths[:1], 3, 8, "window", lanes=1) as other,
        pytest.raises(ValueError, match="shards differs"),
    ):
        other.load_state_dict(state)


def test_a_file_of_the_same_size_is_another_one(files):
    paths, ids = files
    with TokenFileLoader(paths, 3, 8) as loader:
        state = loader.state_dict()
    changed = ids[0].copy()
    changed[0] += 1
    write(Path(paths[0]), changed, "flat16")
    with TokenFileLoader(paths, 3, 8) as loader, pytest.raises(ValueError, match="shard 0 differs"):
        loader.load_state_dict(state)


def test_splits_do_not_share_a_token(files, tmp_path: Path):
    paths, ids = files
    with TokenFileLoader(paths, 1, 8, split="train", epochs=1, lanes=1) as loader:
        assert lists(loader) == list(Twin(ids[:-1], 1, 8, epochs=1).batches())
    with TokenFileLoader(paths, 1, 8, split="val", epochs=1, lanes=1) as loader:
        assert lists(loader) == list(Twin(ids[-1:], 1, 8, epochs=1).batches())
    border = 333 - 333 // 20
    for split, part in (("train", ids[2][:border]), ("val", ids[2][border:])):
        with TokenFileLoader(paths[2], 1, 4, "random", split=split, epochs=1, lanes=1) as loader:
            assert lists(loader) == list(Twin([part], 1, 4, "random", epochs=1).batches())


def test_the_ledger_counts_every_target(files):
    paths, _ = files
    with TokenFileLoader(paths, 4, 10, epochs=1, lanes=1) as loader:
        learned = sum(int((targets >= 0).sum()) for _, targets in loader)
        ledger = loader.metrics()["ledger"]
        assert loader.metrics()["bottleneck"] in ("ring_full", "read", "copy")
    assert ledger["read"] == ledger["learned"] == learned
    assert ledger["waiting"] == 0


def test_numpy_needs_no_torch(files):
    paths, ids = files
    expected = Twin(ids, 2, 7, "random", lanes=1).batches()
    for copy in (True, False):
        with TokenFileLoader(paths, 2, 7, "random", lanes=1) as loader:
            found = [(inputs.tolist(), targets.tolist()) for inputs, targets in itertools.islice(loader.numpy(copy), 9)]
        assert found == twins(Twin(ids, 2, 7, "random", lanes=1).batches(), 9)
    assert next(expected)


def test_pickles_and_works_in_dataloader_workers(files):
    paths, ids = files
    loader = TokenFileLoader(paths, 2, 7, "window", lanes=4)
    lists(loader, 3)
    with pickle.loads(pickle.dumps(loader)) as copy:
        assert lists(copy, 5) == lists(loader, 5)
    loader.close()
    over = torch.utils.data.DataLoader(
        TokenFileLoader(paths, 2, 7, "window", lanes=4, epochs=2), batch_size=None, num_workers=2
    )
    assert lists(over) == list(Twin(ids, 2, 7, "window", lanes=4, epochs=2).batches())


# ---- what is refused ----------------------------------------------------------------------------------------------


def damaged(path: Path, how: str) -> Path:
    ids = random_ids(0, 300)
    if how == "truncated":
        write(path, ids, "llm.c")
        path.write_bytes(path.read_bytes()[:-10])
    elif how == "longer":
        write(path, ids, "llm.c")
        path.write_bytes(path.read_bytes() + b"\0\0")
    elif how == "wrong magic":
        write(path, ids, "llm.c")
        path.write_bytes((20240519).to_bytes(4, "little") + path.read_bytes()[4:])
    elif how == "wrong version":
        write(path, ids, "llm.c")
        path.write_bytes(path.read_bytes()[:4] + (3).to_bytes(4, "little") + path.read_bytes()[8:])
    elif how == "odd":
        write(path, ids, "flat16")
        path.write_bytes(path.read_bytes()[:-1])
    else:
        array = ids.astype(np.float32) if how == "float npy" else ids.astype(np.uint16).reshape(3, 100)
        with path.open("wb") as file:
            np.save(file, array)
        if how == "truncated npy":
            np.save(path.with_suffix(".npy"), ids.astype(np.uint16))
            path.write_bytes(path.with_suffix(".npy").read_bytes()[:-2])
    return path


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("truncated", "it is truncated: its header states 300 uint16 ids"),
        ("longer", "it is too long"),
        ("wrong magic", "its magic number is 20240519; expected 20240520"),
        ("wrong version", "it is of version 3; expected 1"),
        ("odd", "599 bytes are no whole number of uint16 ids"),
        ("float npy", "its dtype is `<f4`; expected `<u2`"),
        ("2-d npy", r"its shape is \(3, 100\); expected one dimension"),
        ("truncated npy", "it is truncated"),
    ],
)
def test_damaged_files_are_refused_by_name_at_opening(tmp_path: Path, how: str, message: str):
    path = damaged(tmp_path / "hurt.bin", how)
    for opened in (lambda: TokenFileLoader(path, 2, 8), lambda: TokenDataset(path, 8)):
        with pytest.raises(ValueError, match=f"hurt.bin.*{message}"):
            opened()


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ("{", "does not describe a token file .Expecting"),
        ("[]", "does not describe a token file"),
        ({"size_bytes": None}, "None where int is expected"),
        ({"tokenizer": "r50k"}, "does not describe a token file"),
        ({"vocab_size": "many"}, "'many' where int is expected"),
        ({"size_bytes": 601}, "it has 600 bytes; its description says 601"),
        ({"dtype": "float"}, "dtype = `float`"),
    ],
)
def test_a_description_that_is_none_is_named(tmp_path: Path, description: str | dict[str, object], message: str):
    path = write(tmp_path / "a.bin", random_ids(0, 300), "flat16")
    good = {"kind": "nanofast.tokens", "size_bytes": 600, "vocab_size": VOCAB_SIZE, "dtype": "uint16"}
    good["tokenizer"] = {"name": "a", "fingerprint": "b"}
    if isinstance(description, dict):
        description = json.dumps({**good, **description})
    Path(f"{path}.json").write_text(description)
    for opened in (lambda: TokenFileLoader(path, 2, 8), lambda: TokenDataset(path, 8)):
        with pytest.raises(ValueError, match=message):
            opened()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shuffle": "yes"}, "shuffle = `yes`: expected"),
        ({"dtype": "int64"}, "dtype = `int64`"),
        ({"format": "bin"}, "format = `bin`"),
        ({"sequence_length": 10_000}, "no window of 10001 tokens"),
        ({"lanes": 64, "epochs": 1, "sequence_length": 50}, "would get no data"),
        ({"batch_size": 0}, "batch_size = 0"),
        ({"split": "test"}, "split = `test`"),
        ({"vocab_size": 0}, "vocab_size = 0"),
    ],
)
def test_wrong_arguments_are_named(files, arguments, message):
    with pytest.raises(ValueError, match=message):
        TokenFileLoader(**{"files": files[0], "batch_size": 2, "sequence_length": 8, **arguments})


def test_a_folder_with_a_shard_in_it_is_no_token_data(files, tmp_path: Path):
    assert is_token_data(tmp_path)
    assert is_token_data(str(tmp_path / "*.bin"))
    assert not is_token_data(tmp_path / "nowhere")
    (tmp_path / "shard.parquet").touch()
    assert not is_token_data(tmp_path)


def test_what_is_not_there_is_named(tmp_path: Path):
    for files in (tmp_path / "no.bin", tmp_path, str(tmp_path / "*.bin"), []):
        with pytest.raises(FileNotFoundError, match=r"no such file|no token files"):
            TokenFileLoader(files, 1, 1)


def test_an_id_beyond_the_vocabulary_is_an_error_when_its_window_is_read(files):
    paths, ids = files
    ids[2][77] = VOCAB_SIZE + 3
    write(Path(paths[2]), ids[2], "flat16")
    expected = list(Twin(ids, 1, 10, epochs=1).batches())
    bad = next(index for index, (_, targets) in enumerate(expected) if VOCAB_SIZE + 3 in targets[0])
    with TokenFileLoader(paths, 1, 10, vocab_size=VOCAB_SIZE, lanes=1, epochs=1, num_slots=8) as loader:
        assert lists(loader, bad) == expected[:bad]
        for _ in range(2):
            with pytest.raises(ValueError, match=f"token {VOCAB_SIZE + 3} at offset 77 of `.*2.bin`"):
                next(loader)
    dataset = TokenDataset(paths, 10, vocab_size=VOCAB_SIZE)
    assert dataset[bad - 1][1].tolist() == expected[bad - 1][1][0]
    with pytest.raises(ValueError, match="at offset 77"):
        dataset[bad]


@pytest.mark.parametrize("opened", ["loader", "dataset"])
def test_a_file_that_shrinks_while_it_is_read_is_an_error_and_no_signal(tmp_path: Path, opened: str):
    path = write(tmp_path / "a.bin", random_ids(0, 400_000), "flat16")
    pattern = "changed while it was in use .size: expected 800000 bytes, found 4096 bytes"
    if opened == "dataset":
        dataset = TokenDataset(path, 100)
        dataset[0]
        os.truncate(path, 4096)
        with pytest.raises(ValueError, match=pattern):
            dataset[len(dataset) - 1]
        return
    with TokenFileLoader(path, 4, 100, lanes=1) as loader:
        next(loader)
        os.truncate(path, 4096)
        with pytest.raises(ValueError, match=pattern):
            lists(loader, 2000)


def test_a_terabyte_is_opened_without_reading_or_mapping_it(tmp_path: Path):
    path = tmp_path / "large.bin"
    with path.open("wb") as file:
        try:
            file.truncate(1 << 40)
        except OSError as error:
            pytest.skip(f"this file system holds no sparse file of a terabyte: {error}")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with TokenFileLoader(path, 2, 2048, "random", lanes=1, num_threads=1) as loader:
        assert lists(loader, 3) == [([[0] * 2048] * 2, [[0] * 2048] * 2)] * 3
    assert len(TokenDataset(path, 2048)) == (2**39 - 1) // 2048
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10, "in KiB: no table of windows"


def test_more_files_than_may_be_open_at_once(tmp_path: Path):
    ids = [random_ids(seed, 30) for seed in range(300)]
    for index, part in enumerate(ids):
        write(tmp_path / f"{index:03}.bin", part, "flat16")
    with TokenFileLoader(tmp_path, 7, 5, "window", lanes=1, epochs=1) as loader:
        assert lists(loader) == list(Twin(ids, 7, 5, "window", epochs=1).batches())
        assert len(list(Path("/proc/self/fd").iterdir())) < 250 or not Path("/proc/self/fd").exists()


# ---- the map-style data set ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("stride", [None, 1, 3])
def test_a_dataset_is_what_memmap_gives(files, stride):
    paths, ids = files
    dataset = TokenDataset(paths, 12, stride=stride)
    expected = [part[start : start + 13] for part in ids for start in range(0, len(part) - 12, stride or 12)]
    assert len(dataset) == len(expected)
    for index in (0, 1, len(expected) // 2, len(expected) - 1, -1):
        inputs, targets = dataset[index]
        assert (inputs.dtype, targets.dtype) == (torch.int32, torch.int64)
        assert inputs.tolist() == expected[index][:-1].tolist()
        assert targets.tolist() == expected[index][1:].tolist()
    for index in (len(expected), -len(expected) - 1):
        with pytest.raises(IndexError):
            dataset[index]


def test_a_dataset_feeds_a_dataloader(files):
    paths, ids = files
    dataset = TokenDataset(paths, 12, stride=1)
    assert len(pickle.loads(pickle.dumps(dataset))) == len(dataset)
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=5, shuffle=True, num_workers=2, generator=torch.Generator().manual_seed(1)
    )
    rows = [tuple(row) for _, targets in loader for row in targets.tolist()]
    expected = [tuple(part[at + 1 : at + 13].tolist()) for part in ids for at in range(len(part) - 12)]
    assert sorted(rows) == sorted(expected)
    assert rows != expected


def test_patterns_may_begin_with_a_dot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tokens").mkdir()
    for name in ("a.bin", ".hidden.bin"):
        np.arange(1000, dtype=np.uint16).tofile(tmp_path / "tokens" / name)
    monkeypatch.chdir(tmp_path)
    assert [Path(path).name for path in find_token_files("./tokens/*.bin")] == ["a.bin"]
