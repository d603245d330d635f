"""on_bad_data="quarantine": the smallest part that is bad is left out and listed, and all else keeps its place.

Expected batches come from the plain-Python twin with the lost documents left out of their places.
"""

from __future__ import annotations

import itertools
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import nanofast
from conftest import IS_LONG
from damage import PAGE_ROWS, damage_header, damage_page, marked_texts, rewrite_without_checksums, write_marked
from resumed import digest, following
from stream_twin import Stream

LAYOUT = [[23, 17], [30], [12, 12]]
MODES: dict[str, dict[str, str]] = {
    "concat": {"packing": "concat"},
    "carry": {"packing": "best_fit"},
    "crop": {"packing": "best_fit", "overflow": "crop"},
    "pad": {"packing": "best_fit", "overflow": "pad"},
    "one_per_row": {"packing": "one_per_row"},
}


@pytest.fixture(scope="module")
def tokenizer() -> nanofast.Tokenizer:
    return nanofast.Tokenizer.from_name("r50k_base")


class Damaged:
    """A data set with every kind of damage, and what is left of it."""

    def __init__(self, folder: Path, tokenizer: nanofast.Tokenizer) -> None:
        texts = marked_texts(7, LAYOUT)
        self.paths = write_marked(folder, texts)
        self.documents: list[list[list[list[int] | None]]] = [
            [[tokenizer.encode(text).tolist() for text in rows] for rows in shard] for shard in texts
        ]
        damage_page(self.paths[0], texts[0][0][11])  # rows 10 to 14
        damage_header(self.paths[0], texts[0][1][5])  # rows 5 to the end
        rewrite_without_checksums(self.paths[1], {0: {3, 4, 29}})
        self.lost = [(0, 0, 10, 15), (0, 1, 5, 17), (1, 0, 3, 5), (1, 0, 29, 30)]
        for shard, group, start, end in self.lost:
            self.documents[shard][group][start:end] = [None] * (end - start)

    def stream(self, tokenizer: nanofast.Tokenizer, mode: str, **settings: Any) -> Stream:
        return Stream(self.documents, bos=tokenizer.bos_id, packing=mode, **settings)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory, tokenizer: nanofast.Tokenizer) -> Damaged:
    return Damaged(tmp_path_factory.mktemp("damaged"), tokenizer)


def listed(loaders: list[nanofast.TokenLoader], paths: list[Path]) -> list[tuple[int, int, int, int]]:
    """What the loaders list, as (shard, row group, first row, row behind the last), parts of a page together again.

    Over the epochs several lanes come to the same rows.
    """
    names = [path.name for path in paths]
    rows = {
        (names.index(part["file"]), part["row_group"], row)
        for loader in loaders
        for part in loader.metrics()["quarantine"]
        for row in range(*part["rows"])
    }
    parts: list[tuple[int, int, int, int]] = []
    for shard, group, row in sorted(rows):
        if parts and parts[-1][:2] == (shard, group) and parts[-1][3] == row:
            parts[-1] = (*parts[-1][:3], row + 1)
        else:
            parts.append((shard, group, row, row + 1))
    return parts


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_all_else_keeps_its_place_at_every_world_size(
    damaged: Damaged, tokenizer: nanofast.Tokenizer, mode: str, shuffle: bool
) -> None:
    settings = {"batch_size": 2, "sequence_length": 33, "lanes": 4, "shuffle": shuffle, "seed": 5, "shuffle_window": 30}
    twin = damaged.stream(tokenizer, mode, **settings)
    for world_size in (1, 4):
        loaders = [
            nanofast.TokenLoader(
                damaged.paths,
                tokenizer,
                on_bad_data="quarantine",
                rank=rank,
                world_size=world_size,
                num_threads=1 + rank % 3,
                **MODES[mode],
                **settings,
            )
            for rank in range(world_size)
        ]
        for rank, loader in enumerate(loaders):
            # Several epochs, since buffers of whole data sets pass the bad rows late.
            count = 160 // world_size
            expected = itertools.islice(twin.batches(rank, world_size), count)
            assert following(loader, count) == [digest(batch) for batch in expected], f"rank {rank} of {world_size}"
        assert listed(loaders, damaged.paths) == damaged.lost
        for loader in loaders:
            loader.close()


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("mode", ["concat", "carry"])
def test_the_list_belongs_to_the_batch_in_hand_and_is_resumed(
    damaged: Damaged, tokenizer: nanofast.Tokenizer, mode: str, shuffle: bool
) -> None:
    settings: dict[str, Any] = {"batch_size": 1, "sequence_length": 40, "lanes": 2, "shuffle": shuffle, "epochs": 1}
    settings |= {"on_bad_data": "quarantine", "unit_documents": 7, **MODES[mode]}
    runs = []
    for num_threads, num_slots in ((1, 2), (4, 9)):
        with nanofast.TokenLoader(
            damaged.paths, tokenizer, num_threads=num_threads, num_slots=num_slots, **settings
        ) as loader:
            states, names = [json.dumps(loader.state_dict())], []
            for batch in loader.numpy():
                names.append(digest(batch))
                states.append(json.dumps(loader.state_dict()))
            assert listed([loader], damaged.paths) == damaged.lost
        runs.append((names, states))
    assert runs[0] == runs[1], "neither threads nor slots change what is listed when"
    names, states = runs[0]
    sizes = [state.count('"reason"') for state in states]
    assert sizes[0] == 0
    assert sizes == sorted(sizes)
    assert len(set(sizes)) > 2, "the list grows as the lanes come to what is bad"
    for number in range(0, len(states), 1 if IS_LONG else 7):
        with nanofast.TokenLoader(damaged.paths, tokenizer, **settings) as loader:
            loader.load_state_dict(json.loads(states[number]))
            assert following(loader, 10_000) == names[number:]
            assert json.dumps(loader.state_dict()) == states[-1]


def test_a_run_moves_to_another_world_size_with_its_list(damaged: Damaged, tokenizer: nanofast.Tokenizer) -> None:
    settings: dict[str, Any] = {"batch_size": 2, "sequence_length": 32, "lanes": 4, "on_bad_data": "quarantine"}
    with nanofast.TokenLoader(damaged.paths, tokenizer, **settings) as alone:
        following(alone, 80)
        expected = following(alone, 16)
        end = listed([alone], damaged.paths)
    two = [nanofast.TokenLoader(damaged.paths, tokenizer, rank=r, world_size=2, **settings) for r in range(2)]
    for loader in two:
        following(loader, 40)
    with nanofast.TokenLoader(damaged.paths, tokenizer, **settings) as one:
        one.load_state_dict(nanofast.merge_states([loader.state_dict() for loader in two]))
        assert listed([one], damaged.paths) == listed(two, damaged.paths)
        assert following(one, 16) == expected
        assert listed([one], damaged.paths) == end
    for loader in two:
        loader.close()


def test_raising_names_the_place_and_the_reason(tokenizer: nanofast.Tokenizer, tmp_path: Path) -> None:
    texts = marked_texts(1, [[20, 20]])
    cases = {
        "page": (lambda path: damage_page(path, texts[0][1][7]), ["row group 1, row 5", "checksum", "rows 5 to 9"]),
        "header": (lambda path: damage_header(path, texts[0][1][7]), ["row group 1, row 5", "header", "rows 5 to 19"]),
        "document": (lambda path: rewrite_without_checksums(path, {1: {7}}), ["row group 1, row 7", "UTF-8", "byte 0"]),
    }
    for name, (harm, words) in cases.items():
        (tmp_path / name).mkdir()
        [path] = write_marked(tmp_path / name, texts)
        harm(path)
        with (
            nanofast.TokenLoader(path, tokenizer, 2, 16, lanes=1, epochs=1) as loader,
            pytest.raises(ValueError, match=str(path)) as caught,
        ):
            following(loader, 1000)
        assert isinstance(caught.value, nanofast.Error)
        assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_file_without_a_footer_is_not_planned_at_all(tokenizer: nanofast.Tokenizer, tmp_path: Path) -> None:
    texts = marked_texts(2, [[10], [10], [10]])
    paths = write_marked(tmp_path, texts)
    os.truncate(paths[1], paths[1].stat().st_size - 20)
    settings: dict[str, Any] = {"batch_size": 2, "sequence_length": 20, "lanes": 1, "on_bad_data": "quarantine"}
    with (
        nanofast.TokenLoader(paths, tokenizer, **settings) as loader,
        nanofast.TokenLoader([paths[0], paths[2]], tokenizer, **settings) as others,
    ):
        assert following(loader, 20) == following(others, 20)
        [part] = loader.metrics()["quarantine"]
        assert part["file"] == paths[1].name
        assert "PAR1" in part["reason"]
        state = loader.state_dict()
        with pytest.raises(ValueError, match=r"bad_files differs: the state has .*shard_00001.*this loader has none"):
            others.load_state_dict(state)
    for path in paths:
        path.write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="no parquet file"):
        nanofast.TokenLoader(paths, tokenizer, **settings)


def test_what_is_not_utf_8_is_replaced_on_request(tokenizer: nanofast.Tokenizer, tmp_path: Path) -> None:
    texts = marked_texts(3, [[12]])
    [path] = write_marked(tmp_path, texts)
    rewrite_without_checksums(path, {0: {0, 5, 6}})
    documents = [[[]]]
    for row, text in enumerate(texts[0][0]):
        documents[0][0].append(tokenizer.encode("\ufffd\ufffd" * (row in {0, 5, 6}) + text).tolist())
    settings: dict[str, Any] = {"batch_size": 2, "sequence_length": 20}
    twin = Stream(documents, bos=tokenizer.bos_id, packing="carry", **settings)
    for on_bad_data in ("raise", "quarantine"):
        with nanofast.TokenLoader(
            path, tokenizer, lanes=1, invalid_utf8="replace", on_bad_data=on_bad_data, **settings
        ) as loader:
            assert following(loader, 20) == [digest(batch) for batch in itertools.islice(twin.batches(), 20)]
            assert loader.metrics()["quarantine"] == []
            state = loader.state_dict()
    with (
        nanofast.TokenLoader(path, tokenizer, lanes=1, on_bad_data="quarantine", **settings) as other,
        pytest.raises(ValueError, match="replaces_invalid_utf8 differs"),
    ):
        other.load_state_dict(state)


@pytest.mark.parametrize("epochs", [1, None])
@pytest.mark.parametrize("shuffle", [False, True])
def test_a_lane_of_which_everything_is_bad_raises(
    tokenizer: nanofast.Tokenizer, tmp_path: Path, shuffle: bool, epochs: int | None
) -> None:
    paths = write_marked(tmp_path, marked_texts(4, [[8, 8]]))
    settings: dict[str, Any] = {"lanes": 2, "unit_documents": 0, "epochs": epochs, "seed": 1, "shuffle": shuffle}
    bad_groups = (0, 1) if shuffle else (0,)  # unshuffled, row group 0 is lane 0's
    rewrite_without_checksums(paths[0], {group: set(range(8)) for group in bad_groups})
    with (
        nanofast.TokenLoader(paths, tokenizer, 2, 16, on_bad_data="quarantine", **settings) as loader,
        pytest.raises(ValueError, match=r"lane \d found no document in a whole epoch"),
    ):
        following(loader, 1000)


def test_unknown_ways_are_refused(tokenizer: nanofast.Tokenizer, damaged: Damaged) -> None:
    with pytest.raises(ValueError, match="on_bad_data = `skip`: expected `raise` or `quarantine`"):
        nanofast.TokenLoader(damaged.paths, tokenizer, 2, 16, on_bad_data="skip")
    with pytest.raises(ValueError, match="invalid_utf8 = `drop`: expected `refuse` or `replace`"):
        nanofast.TokenLoader(damaged.paths, tokenizer, 2, 16, invalid_utf8="drop")


def is_in_order(part: list[str], whole: list[str]) -> bool:
    """Whether `part` is `whole` but for some that are left out."""
    rest = iter(whole)
    return all(text in rest for text in part)


def test_a_flipped_bit_costs_what_is_listed_and_nothing_else(
    tokenizer: nanofast.Tokenizer, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """No checksum covers how many rows a page's header claims: where that is hit, names behind it may be off."""
    texts = marked_texts(5, [[60, 60]], longest=12)
    [path] = write_marked(tmp_path, texts)
    whole = path.read_bytes()
    expected = [(group, row, text) for group, rows in enumerate(texts[0]) for row, text in enumerate(rows)]
    generator = random.Random(9)
    num_listed = num_shifted = 0
    num_flips = 2000 if IS_LONG else 40
    record_property("flipped bits", num_flips)
    for _ in range(num_flips):
        content = bytearray(whole)
        position = generator.randrange(len(content))
        content[position] ^= 1 << generator.randrange(8)
        path.write_bytes(content)
        try:
            loader = nanofast.TokenLoader(
                path, tokenizer, 4, 64, packing="concat", lanes=1, epochs=1, num_threads=1, on_bad_data="quarantine"
            )
            with loader:
                stream = [token for batch in loader.numpy() for token in batch[1].ravel().tolist() if token >= 0]
                parts = loader.metrics()["quarantine"]
        except nanofast.Error:
            continue
        lost = {(part["row_group"], row) for part in parts for row in range(*part["rows"])}
        num_listed += len(lost)
        left = [text for group, row, text in expected if (group, row) not in lost]
        came = tokenizer.decode(stream).split("<|endoftext|>")
        num_shifted += came != left
        assert is_in_order(came, [text for _, _, text in expected]), f"byte {position}"
        assert len(expected) - len(came) <= len(lost), f"byte {position}"
    assert num_listed > PAGE_ROWS
    assert num_shifted <= num_flips // 100
