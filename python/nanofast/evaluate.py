"""How good is the model: bits per byte, exact in bytes.

A loss in nats per token depends on how the tokenizer cuts text; bits per byte does not. Special tokens stand for no
byte of text, so neither their losses nor their lengths count. Sums are kept in float64 on the device and read once at
the end.

    python -m nanofast.evaluate RUN --core BUNDLE

    found = bits_per_byte(model, loader, token_bytes, num_batches=8)
    found.bpb, found.tokens, found.bytes
"""

from __future__ import annotations

import contextlib
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

if __name__ == "__main__":  # here already, since what follows loads torch
    from nanofast.command import run_module
    from nanofast.distributed import leave

    leave(run_module("nanofast.evaluate"))

import torch
import tyro
from torch import Tensor

from nanofast.checkpoint import step_of
from nanofast.command import exit_code, parse_settings
from nanofast.config import ConfigError
from nanofast.distributed import connect, disconnect, leave, rank_and_world_size, sum_over_ranks
from nanofast.model import GPT
from nanofast.runlog import RunLog

# Places in the tensor that `batch_sums` gives.
LOSS, TARGETS, TEXT_LOSS, BYTES, NUM_SUMS = 0, 1, 2, 3, 4


@dataclass(frozen=True)
class Validation:
    """Means over a set of targets: `loss` in nats per target, `bpb` in bits per byte; and how much was counted."""

    loss: float
    bpb: float
    tokens: int
    bytes: int

    @staticmethod
    def from_sums(sums: list[float]) -> Validation:
        """Means from the sums of `batch_sums`; NaN where nothing was counted."""
        targets, num_bytes = int(sums[TARGETS]), int(sums[BYTES])
        loss = sums[LOSS] / targets if targets else math.nan
        bpb = sums[TEXT_LOSS] / math.log(2) / num_bytes if num_bytes else math.nan
        return Validation(loss, bpb, targets, num_bytes)


def sum_dtype(device: torch.device) -> torch.dtype:
    """float64, except on MPS, which has none."""
    return torch.float32 if device.type == "mps" else torch.float64


def batch_sums(loss_BT: Tensor, targets_BT: Tensor, token_bytes_V: Tensor) -> Tensor:
    """[loss, targets, loss of targets that are text, bytes of those] of one batch; stays on the device."""
    learned = targets_BT >= 0
    bytes_BT = token_bytes_V[targets_BT.clamp(min=0)] * learned
    loss_BT = loss_BT.detach().to(sum_dtype(loss_BT.device))
    text_loss = (loss_BT * (bytes_BT > 0)).sum()
    return torch.stack([loss_BT.sum(), learned.sum().to(loss_BT), text_loss, bytes_BT.sum().to(loss_BT)])


@torch.no_grad()
def bits_per_byte(
    model: GPT, batches: Iterator[tuple[Tensor, Tensor]], token_bytes_V: Tensor, num_batches: int, parts: int = 1
) -> Validation:
    """Mean loss and bits per byte over the next `num_batches` batches of every rank; the same answer on all ranks.

    Each batch passes through the model in `parts` parts.
    """
    device = token_bytes_V.device
    sums = torch.zeros(NUM_SUMS, dtype=sum_dtype(device), device=device)
    for _ in range(num_batches):
        inputs_BT, targets_BT = next(batches)
        for inputs, targets in zip(inputs_BT.chunk(parts), targets_BT.chunk(parts), strict=True):
            sums += batch_sums(model.loss(inputs, targets)[1], targets, token_bytes_V)
    return Validation.from_sums(sum_over_ranks(sums).tolist())


@dataclass(frozen=True)
class EvaluateSettings:
    """Bits per byte of a trained model on validation text, and CORE where a bundle is given."""

    model: Annotated[str, tyro.conf.Positional] = "auto"
    """Run or checkpoint folder; auto is the run that was written to last."""
    data: str | None = None
    """Parquet file, folder or glob. Derived: what the model was trained on."""
    tokens: int = 131_072
    """Validation tokens, rounded up to whole rows of every lane (tokens)."""
    core: str | None = None
    """Folder of the unpacked CORE bundle; nothing is downloaded."""
    tasks: tuple[str, ...] = ()
    """JSONL files of questions to ask a chat model (see chat_tasks.py)."""
    max_per_task: int = 0
    """Items of each CORE task; 0 means all."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    home: str | None = None
    """Folder of runs. Derived: NANOFAST_HOME, else ~/.cache/nanofast."""


def evaluate(settings: EvaluateSettings) -> dict[str, Any]:
    """What the command line prints, as plain values; every rank gets the same."""
    from nanofast.chat_tasks import ask, read_task
    from nanofast.conversations import template_of, with_template
    from nanofast.core_metric import core, read_tasks
    from nanofast.run_data import open_validation_loader
    from nanofast.saved import load_model

    if settings.tokens < 1 or settings.max_per_task < 0:
        raise ConfigError(
            f"tokens must be at least 1 and max_per_task at least 0; found {settings.tokens} and "
            f"{settings.max_per_task}"
        )
    tasks = read_tasks(Path(settings.core)) if settings.core else []
    questions = [read_task(Path(path)) for path in settings.tasks]
    world = connect(settings.device)
    saved = load_model(settings.model, settings.home, str(world.device))
    token_bytes_V = torch.from_numpy(saved.tokenizer.token_bytes()).to(world.device)
    loader, num_batches = open_validation_loader(saved.config, settings.data, saved.tokenizer, world, settings.tokens)
    with contextlib.closing(loader):
        found = bits_per_byte(saved.model, iter(loader), token_bytes_V, num_batches)
    result: dict[str, Any] = {"checkpoint": str(saved.path), **asdict(found)}
    if questions:
        template = template_of(saved.config.chat)
        scores = [
            ask(saved.model, with_template(saved.tokenizer, saved.config.chat), template, task) for task in questions
        ]
        result["questions"] = [asdict(score) for score in scores]
    if tasks:
        tell = print if world.is_main else lambda line: None
        scored = core(tasks, saved.model, saved.tokenizer, max_per_task=settings.max_per_task, tell=tell)
        result |= {"core_v1": scored.core_v1, "core_v2": scored.core_v2, "tasks": scored.tasks}
        if world.is_main:  # where the report finds it
            with contextlib.closing(RunLog(saved.path.parent.parent)) as log:
                log.write("core", step=step_of(saved.path), max_per_task=settings.max_per_task, **result)
    return result


def _evaluate_and_print(words: list[str]) -> None:
    settings = parse_settings(EvaluateSettings, words, "python -m nanofast.evaluate")
    try:
        found = evaluate(settings)
        if rank_and_world_size()[0] == 0:
            print(json.dumps(found, indent=1))
    finally:
        disconnect()


def main() -> int:
    """The command line of this process."""
    return exit_code(lambda: _evaluate_and_print(sys.argv[1:]))
