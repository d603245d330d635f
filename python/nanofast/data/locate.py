"""`python -m nanofast.data locate RUN --step N`: which documents a run was trained on in a step.

    python -m nanofast.data locate d4-20261123-073000 --step 1234

From the run's log of documents, where it keeps one (`--log-documents`); else the data is read again from the checkpoint
before that step, or from the beginning. Told is a line for each piece of a document, which `TokenLoader(exclude=…)`
takes as it is up to the first space.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from nanofast import Tokenizer, checkpoint
from nanofast.command import local_path
from nanofast.config import Config, ConfigError, from_dict
from nanofast.data.amounts import whole_number
from nanofast.distributed import World, states_of
from nanofast.documents_log import LOG, read_step
from nanofast.resume import TOKENIZER_FILE, require
from nanofast.run_data import open_loader

State = dict[str, Any]


@dataclass(frozen=True)
class Piece:
    """Part of a document, as one step of one rank held it: `batch` counts the rank's micro-batches of the step."""

    document: str
    first_token: int
    num_tokens: int
    rank: int
    batch: int
    row: int
    column: int


def locate(run: str, step: int, home: str | None = None) -> Iterator[Piece]:
    """All pieces of a step, in the order in which the ranks saw them.

    Raises:
        ConfigError: no run, no checkpoint, or a step that the run has not come to.
    """
    found = require(run, home)
    last = checkpoint.step_of(found.path)
    if not 1 <= step <= last:
        raise ConfigError(f"step = {step}: the run has checkpoints up to step {last}")
    if logged := read_step(found.path.parent.parent / LOG, step):
        yield from (Piece(**piece) for piece in logged)
        return
    config, world_size, start, states = _before(found.path.parent, step)
    data, schedule, T = config.data.data, config.schedule, config.model.sequence_length
    assert data is not None
    assert config.data.lanes is not None
    assert schedule.total_batch_size is not None
    assert schedule.device_batch_size is not None
    tokenizer = Tokenizer.from_file(found.path.parent.parent / TOKENIZER_FILE)
    num_batches = schedule.total_batch_size // (schedule.device_batch_size * T * world_size)
    for rank in range(world_size):
        world = World(rank, world_size, rank, world_size, torch.device("cpu"))
        rows, lanes = schedule.device_batch_size, config.data.lanes
        loader = open_loader(config, data, tokenizer, world, "train", lanes, rows, return_documents=True)
        with closing(loader):
            if states is not None:
                loader.load_state_dict(states[rank])
            skipped = (step - 1 - start) * num_batches
            batches = islice(loader.numpy(), skipped, skipped + num_batches)
            for batch, (_, _, documents) in enumerate(batches):
                for number, piece in enumerate(documents.pieces):
                    first_token, num_tokens = int(piece["first_token"]), int(piece["num_tokens"])
                    place = (rank, batch, int(piece["row"]), int(piece["column"]))
                    yield Piece(documents.name(number), first_token, num_tokens, *place)


def _before(checkpoints: Path, step: int) -> tuple[Config, int, int, list[State] | None]:
    """Configuration, world size, steps done and each rank's state before a step; no state at the very beginning."""
    folders = sorted(filter(checkpoint.is_checkpoint_name, checkpoints.iterdir()), key=checkpoint.step_of)
    earlier = [folder for folder in folders if checkpoint.step_of(folder) < step]
    folder = earlier[-1] if earlier else folders[0]
    checkpoint.check(folder)
    state = json.loads((folder / "state.json").read_text("utf-8"))
    ranks = states_of(json.loads((folder / "loader.json").read_text("utf-8")))
    if earlier:
        return from_dict(state["config"]), len(ranks), checkpoint.step_of(folder), ranks
    return from_dict(state["config"]), len(ranks), 0, None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument("run", help="name or folder of the run, or auto for the one written to last")
    parser.add_argument("--step", type=whole_number, required=True, help="the step, counted from 1")
    parser.add_argument("--home", type=local_path, help="folder of runs; NANOFAST_HOME, else ~/.cache/nanofast")
    parser.add_argument("--json", action="store_true", help="a JSON object a line")


def run(arguments: argparse.Namespace) -> int:
    """Tell the pieces of a step."""
    for piece in locate(arguments.run, arguments.step, arguments.home):
        if arguments.json:
            print(json.dumps(vars(piece)))
        else:
            tokens = f"tokens {piece.first_token} to {piece.first_token + piece.num_tokens}"
            print(f"{piece.document} {tokens}, rank {piece.rank}, batch {piece.batch}, row {piece.row}")
    return 0
