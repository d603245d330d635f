"""A trainer as a checkpoint's content, and back: weights, optimizer, random state, loader position, counters.

Whole tensors are the rule: one format at any world size, gathered and then written beside training. `sharded` ones are
written by every rank while training waits (sharded.py).

    save(trainer)                # a collective; what became of it is in trainer.writer
    put_back(trainer, checkpoint.load(folder))
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from nanofast import checkpoint
from nanofast.background import Written
from nanofast.checkpoint import Snapshot
from nanofast.config import to_dict
from nanofast.distributed import gather_objects, object_from_main
from nanofast.fsdp import load_weights, whole_weights
from nanofast.journal import Counters
from nanofast.sharded import FOLDER, by_file, read_shards, write_shards

if TYPE_CHECKING:
    from nanofast.trainer import Trainer


def _random_states(device: torch.device) -> dict[str, Tensor]:
    states = {"rng/cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["rng/cuda"] = torch.cuda.get_rng_state(device)
    return states


def _values(trainer: Trainer) -> dict[str, Any]:
    counters = dict(vars(trainer.counters), total_seconds=trainer.total_seconds())
    return {
        "state": {"counters": counters, "config": to_dict(trainer.config), **trainer.facts},
        "loader": {"ranks": gather_objects(trainer.loader.state_dict())},
    }


def save(trainer: Trainer) -> list[Written]:
    """Write a checkpoint of this moment; what has become of writes so far. A collective."""
    step, world = trainer.counters.step, trainer.world
    if trainer.config.run.checkpoint_format == "sharded":
        return _save_sharded(trainer)
    optimizer = {**trainer.optimizers.state_tensors(), **_random_states(world.device)}
    snapshot = Snapshot({"model": whole_weights(trainer.model), "optimizer": optimizer}, _values(trainer))
    return trainer.writer.submit(snapshot, step) if world.is_main else []


def _save_sharded(trainer: Trainer) -> list[Written]:
    """Every rank writes its part aside; then the main one makes it whole, or nobody."""
    start, step, folder = time.perf_counter(), trainer.counters.step, trainer.writer.folder
    values, is_main = _values(trainer), trainer.world.is_main
    tensors = {f"model/{name}": tensor for name, tensor in trainer.model.state_dict().items()}
    state = {**trainer.optimizers.state_tensors(cut=True), **_random_states(trainer.world.device)}
    tensors |= {f"optimizer/{name}": tensor for name, tensor in state.items()}
    path, error = folder, None
    try:
        aside = object_from_main(_begun(trainer) if is_main else None)
        if isinstance(aside, Exception):
            raise aside
        write_shards(aside / FOLDER, tensors)
        if is_main:
            path = checkpoint.finish(Snapshot(values=values), aside, step)
            trainer.writer.retain(step)
    except Exception as problem:  # told; training and later checkpoints go on
        error = f"{type(problem).__name__}: {str(problem).splitlines()[0]}"
    if not is_main:
        return []
    size = 0 if error else sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return [Written(step, path, size, time.perf_counter() - start, error)]


def _begun(trainer: Trainer) -> Any:
    try:
        return checkpoint.begin(trainer.writer.folder, trainer.counters.step)
    except OSError as error:  # the other ranks wait to hear of it
        return error


def _stored(trainer: Trainer, snapshot: Snapshot) -> dict[str, dict[str, Tensor]]:
    """The tensors of a snapshot by file; sharded ones are read cut as this trainer's are."""
    if snapshot.shards is None:
        return snapshot.tensors
    parameters = dict(trainer.model.named_parameters())

    def empty(name: str, size: torch.Size, dtype: torch.dtype) -> Tensor:
        made, key = torch.empty(size, dtype=dtype), name.partition("/")[2]
        like = parameters.get(key, parameters.get(key.rpartition("/")[0]))
        if isinstance(like, DTensor) and like.shape == size:
            return distribute_tensor(made.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
        return made

    return by_file(read_shards(snapshot.shards, empty))


def put_back(trainer: Trainer, snapshot: Snapshot) -> None:
    """Make a trainer go on from a snapshot, at whatever world size it was taken."""
    stored = _stored(trainer, snapshot)
    tensors = dict(stored["optimizer"])
    torch.set_rng_state(tensors.pop("rng/cpu"))
    cuda_state = tensors.pop("rng/cuda", None)
    if cuda_state is not None and trainer.world.device.type == "cuda":
        torch.cuda.set_rng_state(cuda_state, trainer.world.device)
    load_weights(trainer.model, stored["model"])
    trainer.optimizers.load_state_tensors(tensors)
    states = snapshot.values["loader"]["ranks"]
    if len(states) == trainer.world.world_size:
        trainer.loader.load_state_dict(states[trainer.world.rank])
    else:
        from nanofast import merge_states

        trainer.loader.load_state_dict(merge_states(states))
    trainer.journal.counters = Counters(**snapshot.values["state"]["counters"])
