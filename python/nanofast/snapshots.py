"""A trainer as a checkpoint's content, and back: weights, optimizer, random state, loader position, counters.

Whole tensors are the rule: one format at any world size, gathered and then written beside training. Sharded ones are
written by every rank while training waits (sharded.py).

    save(trainer)                # a collective; what has become of writes so far
    put_back(trainer, checkpoint.load(folder))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nanofast.background import Written
from nanofast.checkpoint import Snapshot
from nanofast.config import to_dict
from nanofast.distributed import gather_states, states_of
from nanofast.journal import Counters

if TYPE_CHECKING:
    from nanofast.trainer import Trainer


def random_states(device: torch.device) -> dict[str, Tensor]:
    """Torch's, by name."""
    states = {"rng/cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["rng/cuda"] = torch.cuda.get_rng_state(device)
    return states


def values(trainer: Trainer) -> dict[str, Any]:
    """All that is no tensor; a collective."""
    counters = dict(vars(trainer.counters), total_seconds=trainer.total_seconds())
    return {
        "state": {"counters": counters, "config": to_dict(trainer.config), **trainer.facts},
        "loader": gather_states(trainer.loader),
    }


def save(trainer: Trainer) -> list[Written]:
    """Write a checkpoint of this moment; what has become of writes so far. A collective."""
    if trainer.config.run.checkpoint_format == "sharded":
        from nanofast.sharded import save_shards

        return save_shards(trainer)
    weights = trainer.model.state_dict()
    if trainer.model.is_cut:
        from nanofast.fsdp import whole_weights

        weights = whole_weights(trainer.model)
    optimizer = {**trainer.optimizers.state_tensors(), **random_states(trainer.world.device)}
    snapshot = Snapshot({"model": dict(weights), "optimizer": optimizer}, values(trainer))
    return trainer.writer.submit(snapshot, trainer.counters.step) if trainer.world.is_main else []


def put_back(trainer: Trainer, snapshot: Snapshot) -> None:
    """Make a trainer go on from a snapshot, at whatever world size it was taken."""
    stored = snapshot.tensors
    if snapshot.shards is not None:
        from nanofast.sharded import read_for

        stored = read_for(trainer.model, snapshot.shards)
    tensors = dict(stored["optimizer"])
    torch.set_rng_state(tensors.pop("rng/cpu"))
    cuda_state = tensors.pop("rng/cuda", None)
    if cuda_state is not None and trainer.world.device.type == "cuda":
        torch.cuda.set_rng_state(cuda_state, trainer.world.device)
    if trainer.model.is_cut:
        from nanofast.fsdp import load_weights

        load_weights(trainer.model, stored["model"])
    else:
        trainer.model.load_state_dict(stored["model"])
    trainer.optimizers.load_state_tensors(tensors)
    states = states_of(snapshot.values["loader"])
    if len(states) == trainer.world.world_size:
        trainer.loader.load_state_dict(states[trainer.world.rank])
    else:
        from nanofast import merge_states

        trainer.loader.load_state_dict(merge_states(states))
    trainer.journal.counters = Counters(**snapshot.values["state"]["counters"])
