"""Figures of a run in TensorBoard or Weights & Biases, beside the run's own log. Optional, offline too, never in the
way.

Both are extras (`nanofast[tensorboard]`, `nanofast[wandb]`) and are imported only when asked for. A tracker that fails
is told once and left alone from then on; training does not depend on it. WANDB_MODE=offline keeps W&B off the network.

    tracker = Tracker("tensorboard", run_dir, config)
    tracker.write("step", {"step": 1, "loss": 8.3}); tracker.close()
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

logger = logging.getLogger("nanofast")

TRACKED_KINDS = {"step": "train", "validation": "validation"}


def _tensorboard(
    run_dir: Path, config: dict[str, Any]
) -> tuple[Callable[[dict[str, float], int], None], Callable[[], None]]:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(run_dir / "tensorboard"))

    def put(figures: dict[str, float], step: int) -> None:
        for name, value in figures.items():
            writer.add_scalar(name, value, step)

    return put, writer.close


def _wandb(run_dir: Path, config: dict[str, Any]) -> tuple[Callable[[dict[str, float], int], None], Callable[[], None]]:
    import wandb

    run = wandb.init(project="nanofast", name=run_dir.name, dir=str(run_dir), config=config, resume="allow")
    return (lambda figures, step: run.log(figures, step=step)), run.finish


class Tracker:
    """Sends the numbers of steps and validations on; `name` is tensorboard or wandb."""

    def __init__(self, name: str, run_dir: Path, config: dict[str, Any]) -> None:
        self._name = name
        self._put: Callable[[dict[str, float], int], None] | None = None
        self._close: Callable[[], None] | None = None
        self._guard(lambda: self._open(run_dir, config))

    def _open(self, run_dir: Path, config: dict[str, Any]) -> None:
        self._put, self._close = {"tensorboard": _tensorboard, "wandb": _wandb}[self._name](run_dir, config)

    def _guard(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            self._put = self._close = None
            logger.warning("tracking by %s ends here: %s: %s", self._name, type(error).__name__, error)

    def write(self, kind: str, fields: dict[str, Any]) -> None:
        """Send a log line's numbers, under `train/` or `validation/`."""
        put = self._put
        if put is None or kind not in TRACKED_KINDS:
            return
        numbers = {
            f"{TRACKED_KINDS[kind]}/{name}": float(value)
            for name, value in fields.items()
            if isinstance(value, (int, float)) and not isinstance(value, bool) and name != "step"
        }
        self._guard(lambda: put(numbers, fields["step"]))

    def close(self) -> None:
        """Finish what was begun."""
        if self._close is not None:
            self._guard(self._close)
        self._put = self._close = None
