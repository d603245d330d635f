"""Checkpoints that are not gathered, for models whose whole tensors fit nowhere: torch.distributed.checkpoint (DCP).

Each rank writes what it holds; any number of ranks reads it back. Unlike all else in a checkpoint, DCP keeps its table
of contents as a pickle, and reading a pickle runs what it says: load such a checkpoint only from whom you trust.

Imported only where such a checkpoint is written or read, since it takes its time.

    save_shards(trainer)                                 # a collective
    read_for(trainer.model, folder)["model"]             # cut as the model is; a collective
    read_whole(folder)["model"]                          # whole, in this process alone
"""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.tensor import DTensor, distribute_tensor

from nanofast import checkpoint
from nanofast.background import Written
from nanofast.checkpoint import Snapshot
from nanofast.distributed import is_connected, object_from_main
from nanofast.model import GPT
from nanofast.snapshots import random_states, values

if TYPE_CHECKING:
    from nanofast.trainer import Trainer

FOLDER = "shards"  # in a checkpoint's

Files = dict[str, dict[str, Tensor]]  # as a checkpoint of whole tensors sorts them: `model`, `optimizer`


def save_shards(trainer: Trainer) -> list[Written]:
    """Every rank writes its part aside; then the main one makes it whole, or nobody. What became of it."""
    start, step, is_main = time.perf_counter(), trainer.counters.step, trainer.world.is_main
    state = {**trainer.optimizers.state_tensors(cut=True), **random_states(trainer.world.device)}
    tensors = {f"model/{name}": tensor for name, tensor in trainer.model.state_dict().items()}
    tensors |= {f"optimizer/{name}": tensor for name, tensor in state.items()}
    plain, path, error, kept = values(trainer), trainer.writer.folder, None, None
    try:
        aside = object_from_main(_begun(trainer) if is_main else None)
        if isinstance(aside, Exception):
            raise aside
        with _meant_to_be_alone():
            save(tensors, storage_writer=FileSystemWriter(aside / FOLDER), no_dist=not is_connected())
        if is_main:
            path = checkpoint.finish(Snapshot(values=plain), aside, step)
            kept = trainer.writer.retain(step)
    except Exception as problem:  # told; training and later checkpoints go on
        error = f"{type(problem).__name__}: {str(problem).splitlines()[0]}"
    if not is_main:
        return []
    size = 0 if error else sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return [Written(step, path, size, time.perf_counter() - start, error, kept)]


@contextlib.contextmanager
def _meant_to_be_alone() -> Iterator[None]:
    """DCP warns where there is no process group."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield


def _begun(trainer: Trainer) -> Path | OSError:
    try:
        return checkpoint.begin(trainer.writer.folder, trainer.counters.step)
    except OSError as error:  # the other ranks wait to hear of it
        return error


def _read(folder: Path, empty: Callable[[str, torch.Size, torch.dtype], Tensor], *, alone: bool) -> Files:
    """All tensors of a folder, each read into what `empty` makes for its name."""
    reader = FileSystemReader(folder)
    found = {
        name: empty(name.partition("/")[2], entry.size, entry.properties.dtype)
        for name, entry in reader.read_metadata().state_dict_metadata.items()
        if isinstance(entry, TensorStorageMetadata)
    }
    with _meant_to_be_alone():
        load(found, storage_reader=reader, no_dist=alone or not is_connected())
    files: Files = {}
    for name, tensor in found.items():
        file, _, key = name.partition("/")
        files.setdefault(file, {})[key] = tensor
    return files


def read_whole(folder: Path) -> Files:
    """Whole tensors in this process's memory."""
    return _read(folder, lambda name, size, dtype: torch.empty(size, dtype=dtype), alone=True)


def read_for(model: GPT, folder: Path) -> Files:
    """Tensors cut as the model's parameters are, whole where it is whole; a collective."""
    parameters = dict(model.named_parameters())

    def empty(name: str, size: torch.Size, dtype: torch.dtype) -> Tensor:
        made = torch.empty(size, dtype=dtype)
        like = parameters.get(name, parameters.get(name.rpartition("/")[0]))  # optimizer state ends in its quantity
        if isinstance(like, DTensor) and like.shape == size:
            return distribute_tensor(made.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
        return made

    return _read(folder, empty, alone=False)
