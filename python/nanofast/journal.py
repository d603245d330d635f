"""What is told of the steps: reads their losses from the device, keeps running means, marks what stands out, writes and
shows.

Steps wait here with their sums still on the device; `flush` reads all of them in one go. Means and counts that a
resumed run needs are in `Counters`, which a checkpoint holds.

    journal.add(StepRecord(…)); journal.flush()
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from nanofast.environment import memory_in_use_bytes
from nanofast.evaluate import BYTES, NUM_SUMS, TARGETS, Validation
from nanofast.progress import Progress, StepView
from nanofast.runlog import RunLog
from nanofast.tracking import Tracker

SMOOTHING = 0.95  # of the shown loss: about the last twenty steps
SPIKE_SIGMAS = 6.0
SPIKE_WINDOW = 128  # steps that a loss is compared with
SPIKE_LEAST = 16  # fewer say nothing about the spread


@dataclass
class Counters:
    """What a run remembers from step to step and over a resume, besides weights, optimizer and loader."""

    step: int = 0
    tokens: int = 0
    total_seconds: float = 0.0
    smooth_loss: float = 0.0
    smooth_bpb: float = 0.0
    smooth_weight: float = 0.0
    skipped: int = 0
    skipped_in_a_row: int = 0
    recent_losses: list[float] = field(default_factory=list)


@dataclass
class StepRecord:
    """One step on its way to the log.

    `sums` (see evaluate.py, and a stop flag), `grad_norm` and the micro-batches' `inputs` are on the device.
    """

    step: int
    lr: float
    lr_fraction: float
    momentum: float | None
    sums: Tensor
    grad_norm: Tensor
    seconds: float
    phase_seconds: dict[str, float]
    inputs: list[Tensor]


def is_spike(loss: float, recent: list[float]) -> bool:
    """True when a loss lies more than six standard deviations above the mean of the last 128."""
    if len(recent) < SPIKE_LEAST:
        return False
    return loss > statistics.fmean(recent) + SPIKE_SIGMAS * max(statistics.pstdev(recent), 1e-6)


class Journal:
    """The told history of a run's steps."""

    def __init__(
        self,
        log: RunLog | None,
        progress: Progress,
        *,
        num_iterations: int,
        tokens_per_step: int,
        device: torch.device,
        flops_per_token: int = 0,
        peak_flops: float | None = None,
        tracker: Tracker | None = None,
    ) -> None:
        self.log, self.progress, self.tracker, self.counters = log, progress, tracker, Counters()
        self._num_iterations, self._tokens_per_step, self._device = num_iterations, tokens_per_step, device
        self._flops_per_token, self._peak_flops = flops_per_token, peak_flops
        self._pending: list[StepRecord] = []
        self.keep_documents: Callable[[int, list[Tensor]], str] = lambda step, inputs: ""  # the trainer knows how
        self.restart_clock()

    def restart_clock(self) -> None:
        """Count time left from here: this process begins to train."""
        self._started, self._first_step = time.perf_counter(), self.counters.step

    def __len__(self) -> int:
        """Steps that wait to be read."""
        return len(self._pending)

    def add(self, record: StepRecord) -> None:
        """Take in a step without reading it."""
        self._pending.append(record)

    def flush(self) -> bool:
        """Read, log and show the waiting steps; True when some rank had been asked to stop by the last of them."""
        if not self._pending:
            return False
        rows = torch.stack([record.sums for record in self._pending]).tolist()
        norms = torch.stack([record.grad_norm for record in self._pending]).tolist()
        for record, sums, norm in zip(self._pending, rows, norms, strict=True):
            self._tell(record, sums, norm)
        self._pending.clear()
        return bool(rows[-1][NUM_SUMS] > 0)

    def write(self, kind: str, **fields: Any) -> None:
        """Append to the log, on the rank that has one."""
        if self.log is not None:
            self.log.write(kind, **fields)
        if self.tracker is not None:
            self.tracker.write(kind, fields)

    def event(self, message: str, level: str = "info") -> None:
        """Tell the user and the log."""
        self.progress.say(message)
        self.write("event", step=self.counters.step, level=level, message=message)

    def _skipped(self, record: StepRecord, sums: list[float], grad_norm: float) -> str | None:
        """Why the step moved nothing, if so; tells it."""
        counters = self.counters
        if sums[TARGETS] == 0:
            why = "no target was to be learned in it"
        elif not math.isfinite(sums[0]):
            why = f"its loss is {sums[0]}"
        elif not math.isfinite(grad_norm):
            why = f"its gradient norm is {grad_norm}"
        else:
            counters.skipped_in_a_row = 0
            return None
        counters.skipped += 1
        counters.skipped_in_a_row += 1
        self.event(
            f"step {record.step} was skipped: {why}; {self.keep_documents(record.step, record.inputs)}", "warning"
        )
        return why

    def _tell(self, record: StepRecord, sums: list[float], grad_norm: float) -> None:
        found, counters = Validation.from_sums(sums), self.counters
        counters.tokens += self._tokens_per_step
        skipped = self._skipped(record, sums, grad_norm)
        spike = skipped is None and is_spike(found.loss, counters.recent_losses)
        if skipped is None:
            counters.smooth_loss = SMOOTHING * counters.smooth_loss + (1 - SMOOTHING) * found.loss
            counters.smooth_bpb = SMOOTHING * counters.smooth_bpb + (1 - SMOOTHING) * (
                found.bpb if found.bytes else 0.0
            )
            counters.smooth_weight = SMOOTHING * counters.smooth_weight + (1 - SMOOTHING)
            counters.recent_losses = [*counters.recent_losses, found.loss][-SPIKE_WINDOW:]
        if spike:
            self.event(
                f"step {record.step}: loss {found.loss:.3f} is over 6 sigma above the last {SPIKE_WINDOW}", "warning"
            )
        weight = counters.smooth_weight or 1.0
        rate = self._tokens_per_step / record.seconds
        view = StepView(
            step=record.step,
            loss=counters.smooth_loss / weight,
            bpb=counters.smooth_bpb / weight,
            tokens_per_second=rate,
            wait_fraction=record.phase_seconds.get("data", 0.0) / record.seconds,
            seconds_left=self._seconds_left(record.step),
        )
        self.write(
            "step",
            step=record.step,
            loss=found.loss,
            loss_smooth=view.loss,
            bpb=found.bpb,
            lr=record.lr,
            lr_fraction=record.lr_fraction,
            grad_norm=grad_norm,
            momentum=record.momentum,
            tokens=counters.tokens,
            targets=int(sums[TARGETS]),
            bytes=int(sums[BYTES]),
            seconds=record.seconds,
            phase_seconds=record.phase_seconds,
            tokens_per_second=rate,
            wait_fraction=view.wait_fraction,
            memory_bytes=memory_in_use_bytes(self._device),
            mfu=rate * self._flops_per_token / self._peak_flops if self._peak_flops else None,
            spike=spike,
            skipped=skipped,
        )
        self.progress.step(view)

    def _seconds_left(self, step: int) -> float:
        """What is left at the pace of this process so far, evaluation and saving included."""
        seconds_each = (time.perf_counter() - self._started) / max(step - self._first_step, 1)
        return seconds_each * (self._num_iterations - step)

    def close(self) -> None:
        """Close the log, the tracker and the progress line."""
        self.progress.close()
        if self.log is not None:
            self.log.close()
        if self.tracker is not None:
            self.tracker.close()

    def means(self) -> tuple[float, float]:
        """Smoothed loss and bits per byte."""
        weight = self.counters.smooth_weight or 1.0
        return self.counters.smooth_loss / weight, self.counters.smooth_bpb / weight
