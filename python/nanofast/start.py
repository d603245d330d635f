"""Beginning from a checkpoint: weights, and if wished optimizer state, of a vocabulary that may have grown.

Rows of special tokens that the checkpoint did not know: embeddings as freshly made, brought to the size of the trained
ones; the head's the mean of the trained ones, so that no new token is likelier than others at first.

    tensors = read_tensors(found.path)
    load_weights(model, tensors["model"], num_known=4096)
    require_same_optimizer(found.config.optimizer, config.optimizer)
    warm_start(optimizers, model, tensors["optimizer"])
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from nanofast import checkpoint
from nanofast.config import ConfigError, OptimizerSettings
from nanofast.model import GPT
from nanofast.optim import Optimizers


def read_tensors(path: Path) -> dict[str, dict[str, Tensor]]:
    """All tensors of a checkpoint by file, whole, whichever format it has."""
    snapshot = checkpoint.load(path)
    if snapshot.shards is None:
        return snapshot.tensors
    from nanofast.sharded import read_whole

    return read_whole(snapshot.shards)


def grown(name: str, saved: Tensor, fresh: Tensor, num_known: int) -> Tensor:
    """A saved tensor with as many rows as the fresh one has; rows from `num_known` on were never trained."""
    if saved.shape[1:] != fresh.shape[1:] or saved.shape[0] < num_known or fresh.shape[0] < num_known:
        raise ConfigError(
            f"the checkpoint's `{name}` is {list(saved.shape)}, the model's {list(fresh.shape)}; leave the settings of "
            "the model as they were"
        )
    rows = fresh.clone()
    rows[:num_known] = saved[:num_known]
    trained = saved[:num_known].float()
    if name == "head.weight":
        rows[num_known:] = trained.mean(dim=0).to(rows)
    elif num_known < rows.shape[0]:
        rows[num_known:] *= (trained.std() / fresh.float().std()).to(rows)
    return rows


@torch.no_grad()
def load_weights(model: GPT, tensors: dict[str, Tensor], num_known: int) -> None:
    """Take over a checkpoint's weights; `num_known` is how many ids its vocabulary had."""
    parameters = dict(model.named_parameters())
    if parameters.keys() != tensors.keys():
        names = ", ".join(sorted(parameters.keys() ^ tensors.keys()))
        raise ConfigError(f"the checkpoint is of another model: {names}; leave the settings of the model as they were")
    for name, parameter in parameters.items():
        is_vocabulary = name.endswith(("embedding.weight", "head.weight")) or name.startswith("value_embeddings.")
        known = num_known if is_vocabulary else parameter.shape[0] if parameter.ndim else 0
        if not is_vocabulary and tensors[name].shape == parameter.shape:
            parameter.copy_(tensors[name])
        else:
            parameter.copy_(grown(name, tensors[name], parameter, known))


def require_same_optimizer(before: OptimizerSettings, now: OptimizerSettings) -> None:
    """Raises ConfigError where the state of the one means nothing to the other."""
    if before.optimizer != now.optimizer:
        raise ConfigError(
            f"--warm-optimizer takes over the state of `{before.optimizer}`, and this stage moves its matrices by "
            f"`{now.optimizer}`; pass --optimizer {before.optimizer}, or leave out --warm-optimizer"
        )


def warm_start(optimizers: Optimizers, model: GPT, tensors: dict[str, Tensor]) -> None:
    """Take over a checkpoint's optimizer state; rows that it does not know begin at zero."""
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    state = {}
    for name, tensor in tensors.items():
        shape = shapes.get(name.rpartition("/")[0])
        if shape is not None and tensor.ndim == len(shape) and tensor.ndim and tensor.shape != shape:
            rows = tensor.new_zeros(shape)
            kept = min(tensor.shape[0], shape[0])
            rows[:kept] = tensor[:kept]
            tensor = rows
        if not name.startswith("rng/"):
            state[name] = tensor
    optimizers.load_state_tensors(state)
