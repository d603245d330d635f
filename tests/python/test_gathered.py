"""States gathered over real gloo ranks, and kept by torch.distributed.checkpoint, for any number of ranks."""

from __future__ import annotations

import json
from pathlib import Path

import nanofast
from gathered import ROUNDS
from resumed import following
from shards import random_texts, write_shards
from test_distributed import run_ranks


def rounds(folder: Path, name: str, world_size: int) -> list[list[str]]:
    """Four rounds of four lanes each, whoever has them."""
    parts = [json.loads((folder / f"{name}_{rank}.json").read_text()) for rank in range(world_size)]
    turns = 4 // world_size
    return [[parts[lane % world_size][number * turns + lane // world_size] for lane in range(4)] for number in range(4)]


def test_a_gathered_state_goes_on_on_any_number_of_ranks(tmp_path: Path) -> None:
    [data] = write_shards(tmp_path, random_texts(7, [[70, 50]]))
    with nanofast.TokenLoader(data, nanofast.Tokenizer.from_name("r50k_base"), 2, 32, lanes=4, shuffle=True) as loader:
        following(loader, ROUNDS * 4)
        expected = [following(loader, 4) for _ in range(4)]
    run_ranks("gathered.py", 2, str(tmp_path), data)
    assert rounds(tmp_path, "first", 2) == expected
    states = [json.loads((tmp_path / f"state_{rank}.json").read_text()) for rank in range(2)]
    assert states[0] == states[1]
    assert (states[0]["rank"], states[0]["round"], list(states[0]["lanes"])) == (None, ROUNDS, ["0", "1", "2", "3"])
    for then in (1, 4):
        run_ranks("gathered.py", then, str(tmp_path), data)
        assert rounds(tmp_path, "then", then) == expected
