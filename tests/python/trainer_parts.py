"""Tiny trainers over the stand-in loader, for tests in this process and in others.

python trainer_parts.py RUN_DIR NUM_ITERATIONS [resume]     # trains, prints the losses as hex floats
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any, Literal

import torch

from nanofast import checkpoint
from nanofast.build import model_config
from nanofast.config import (
    Config,
    EvaluationSettings,
    ModelSettings,
    OptimizerSettings,
    RunSettings,
    ScheduleSettings,
)
from nanofast.derive import derive
from nanofast.distributed import connect
from nanofast.journal import Journal
from nanofast.model import GPT
from nanofast.optim import Optimizers
from nanofast.progress import Progress
from nanofast.runlog import RunLog, read_log
from nanofast.trainer import Trainer
from stand_in import ByteTokenizer, RowLoader

SEQUENCE_LENGTH = 32


def tiny_trainer(
    run_dir: Path,
    *,
    device_batch_size: int = 4,
    total_batch_size: int = 256,
    num_iterations: int = 6,
    masked_every: int = 0,
    optimizer: OptimizerSettings | None = None,
    shape: Literal["plain", "nanochat"] = "plain",
    **run: Any,
) -> Trainer:
    """A two-layer GPT of width 32 over the stand-in's rows."""
    world = connect("cpu")
    config = derive(
        Config(
            model=ModelSettings(depth=2, shape=shape, sequence_length=SEQUENCE_LENGTH, n_embd=32, n_head=2),
            optimizer=optimizer or OptimizerSettings(),
            schedule=ScheduleSettings(
                num_iterations=num_iterations, total_batch_size=total_batch_size, device_batch_size=device_batch_size
            ),
            evaluation=EvaluationSettings(eval_every=-1, sample_every=-1, sample_tokens=8),
            run=RunSettings(**{"save_every": -1, **run}),
        ),
        world_size=world.world_size,
        device_type="cpu",
    )
    torch.manual_seed(config.run.seed)
    model = GPT(model_config(config, ByteTokenizer.vocab_size))
    model.initialize(torch.Generator().manual_seed(config.run.seed))
    if config.run.parallel == "fsdp":
        from nanofast.fsdp import shard_model

        shard_model(model, world.device)
    tokenizer = ByteTokenizer()
    place = {"rank": world.rank, "world_size": world.world_size}
    return Trainer(
        config=config,
        world=world,
        model=model,
        optimizers=Optimizers(model, config.optimizer, rank=world.rank, world_size=world.world_size),
        loader=RowLoader(device_batch_size, SEQUENCE_LENGTH, masked_every=masked_every, **place),
        open_validation=lambda: (RowLoader(device_batch_size, SEQUENCE_LENGTH, seed=1, **place), 4 // world.world_size),
        tokenizer=tokenizer,
        token_bytes_V=torch.from_numpy(tokenizer.token_bytes()),
        run_dir=run_dir,
        journal=Journal(
            RunLog(run_dir) if world.is_main else None,
            Progress(num_iterations, quiet=True),
            num_iterations=num_iterations,
            tokens_per_step=total_batch_size,
            device=world.device,
        ),
    )


def poison(trainer: Trainer, step: int) -> None:
    """Let the gradients of one step be not a number."""
    head = trainer.model.head.weight
    head.register_hook(lambda gradient: gradient * math.nan if trainer.counters.step == step - 1 else gradient)


def losses(run_dir: Path) -> list[float]:
    """The losses of all steps that count."""
    return [entry["loss"] for entry in read_log(run_dir) if entry["kind"] == "step"]


def main(run_dir: Path, num_iterations: int, resume: bool) -> None:
    """Train in this process; a resumed run continues from its newest complete checkpoint."""
    torch.set_num_threads(1)
    trainer = tiny_trainer(run_dir, num_iterations=num_iterations, save_every=3)
    if resume:
        found, _ = checkpoint.newest_complete(run_dir / "checkpoints")
        assert found is not None
        trainer.restore(checkpoint.load(found))
        trainer.journal.write("run", step=trainer.counters.step, resumed_from=str(found))
    trainer.fit()
    trainer.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:] == ["resume"])
