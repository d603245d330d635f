"""Which optimizer, and which shape, reaches fewer bits per byte in the same processor time?

    python benches/python/bench_bits_per_byte.py calibrate                  # processor time of a step of each, in turns
    python benches/python/bench_bits_per_byte.py muon --steps 60 --seed 0   # one run; the others' steps by the ratio
    pytest benches/python/bench_bits_per_byte.py --smoke                    # that all of them train

The default run's model, data and schedule, one thread; the sample corpus is made where it is missing. Processor time,
not the clock: other work on the machine slows a clock, and would decide the comparison.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from nanofast.build import build, prepare
from nanofast.config import Config, EvaluationSettings, ModelSettings, OptimizerSettings, RunSettings, ScheduleSettings
from nanofast.muon import Muon
from nanofast.stages import STAGES
from nanofast.trainer import Trainer

CONTENDERS: dict[str, dict[str, Any]] = {
    "muon": {},
    "torch_muon": {},
    "adamw": {"optimizer": "adamw"},
    "nanochat_shape": {"shape": "nanochat"},
}
VALIDATION_TOKENS = 65_536
ROUNDS = 7  # of a calibration; the median of these


def made(name: str, steps: int, seed: int, folder: Path, **model: Any) -> Trainer:
    """The trainer of a contender, for `steps` steps."""
    settings = CONTENDERS[name]
    config = Config(
        model=ModelSettings(shape=settings.get("shape", "plain"), **model),
        optimizer=OptimizerSettings(optimizer=settings.get("optimizer", "muon")),
        schedule=ScheduleSettings(num_iterations=steps),
        evaluation=EvaluationSettings(eval_every=-1, sample_every=-1, eval_tokens=VALIDATION_TOKENS),
        run=RunSettings(seed=seed, run=str(folder), torch_threads=1, device="cpu", save_every=-1, dtype="bfloat16"),
    )
    prepared = prepare(replace(config), None)
    trainer = build(prepared, STAGES["pretrain"], None, None, ["bench"])
    if name == "torch_muon":
        use_torchs_muon(trainer)
    return trainer


def use_torchs_muon(trainer: Trainer) -> None:
    """torch.optim.Muon in place of ours, over the same matrices one by one."""
    optimizers = trainer.optimizers
    ours = optimizers.members[0]
    assert isinstance(ours, Muon)
    matrices = []
    for arena in optimizers.arenas:
        if any(arena.part is stack for group in ours.param_groups for stack in group["params"]):
            for weight, gradient in zip(arena.views(arena.weights), arena.views(arena.gradients), strict=True):
                weight.grad = gradient
                matrices.append(weight)
    (group,) = ours.param_groups
    theirs = torch.optim.Muon(matrices, lr=group["lr"], momentum=group["momentum"], weight_decay=0.0)
    theirs.param_groups[0].update(height=group["height"], full_decay=group["full_decay"])
    optimizers.members[0] = theirs


def calibrate(names: list[str], **model: Any) -> dict[str, float]:
    """Processor seconds of a step of each contender, measured in turns."""
    with tempfile.TemporaryDirectory() as folder:
        trainers = {name: made(name, 1000, 0, Path(folder) / name, **model) for name in names}
        seconds: dict[str, list[float]] = {name: [] for name in names}
        for number in range(ROUNDS + 1):
            for name, trainer in trainers.items():
                start = time.process_time()
                trainer.train_step()
                if number:  # the first step allocates
                    seconds[name].append(time.process_time() - start)
        for trainer in trainers.values():
            trainer.close()
    return {name: statistics.median(times) for name, times in seconds.items()}


def trained(name: str, steps: int, seed: int, **model: Any) -> dict[str, Any]:
    """Train one contender and validate it."""
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.closing(made(name, steps, seed, Path(folder) / "run", **model)) as trainer,
    ):
        start = time.process_time()
        for _ in range(steps):
            trainer.train_step()
            trainer.flush()
        seconds = time.process_time() - start
        trainer.validate()
        assert trainer.last_validation is not None
        return {
            "contender": name,
            "seed": seed,
            "steps": steps,
            "bpb": trainer.last_validation.bpb,
            "processor_seconds": seconds,
            "skipped": trainer.counters.skipped,
        }


@pytest.mark.parametrize("name", CONTENDERS)
def test_every_contender_trains(name: str, smoke: bool) -> None:
    found = trained(name, 3 if smoke else 60, 0, **({"depth": 1, "sequence_length": 64} if smoke else {}))
    assert found["skipped"] == 0
    assert 0 < found["bpb"] < 6


def main() -> None:
    """The command line of this process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["calibrate", *CONTENDERS])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    words = parser.parse_args()
    if words.what == "calibrate":
        print(json.dumps(calibrate(list(CONTENDERS))))
    else:
        print(json.dumps(trained(words.what, words.steps, words.seed)))


if __name__ == "__main__":
    main()
