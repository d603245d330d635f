"""Checkpoints that are not gathered, for models whose whole tensors fit nowhere: torch.distributed.checkpoint (DCP).

Each rank writes what it holds; any number of ranks reads it back. Unlike all else in a checkpoint, DCP keeps its table
of contents as a pickle, and reading a pickle runs what it says: load such a checkpoint only from whom you trust.

    write_shards(folder, {"model/embedding.weight": cut_tensor, …})     # a collective
    tensors = read_shards(folder, empty)       # `empty(name, size, dtype)` makes the tensor to read into
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from nanofast.distributed import is_connected

FOLDER = "shards"  # in a checkpoint's


def write_shards(folder: Path, tensors: dict[str, Tensor]) -> None:
    """Write every rank's parts of the tensors into a folder; a collective."""
    save(dict(tensors), storage_writer=FileSystemWriter(folder), no_dist=not is_connected())


def read_shards(
    folder: Path, empty: Callable[[str, torch.Size, torch.dtype], Tensor], *, alone: bool = False
) -> dict[str, Tensor]:
    """Read all tensors of a folder, each into what `empty` makes for it. A collective, unless `alone`."""
    reader = FileSystemReader(folder)
    found: dict[str, Tensor] = {
        name: empty(name, entry.size, entry.properties.dtype)
        for name, entry in reader.read_metadata().state_dict_metadata.items()
        if isinstance(entry, TensorStorageMetadata)
    }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # meant so
        load(found, storage_reader=reader, no_dist=alone or not is_connected())
    return found


def whole(name: str, size: torch.Size, dtype: torch.dtype) -> Tensor:
    """For `read_shards`: a whole tensor in this process's memory."""
    return torch.empty(size, dtype=dtype)


def by_file(tensors: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """`model/embedding.weight` → `model`, `embedding.weight`: as a checkpoint of whole tensors sorts them."""
    files: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        file, _, key = name.partition("/")
        files.setdefault(file, {})[key] = tensor
    return files
