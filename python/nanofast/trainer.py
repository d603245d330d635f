"""The loop: a step is micro-batches, one update and a line in the log; now and then it saves, validates, samples.

    micro-batches  →  gradients summed over ranks  →  ÷ valid targets of the whole step  →  clip  →  update

Gradients are sums over targets until the step's end and are then divided by the number of targets that were learned on
all ranks together: a masked batch weighs what it should, and the result does not depend on how the step was cut into
micro-batches. Nothing is read back from the device inside a step; losses wait there until `log_every` steps are due.

The loader prefetches, so `next` is called when the batch is wanted, and its state at a step's end is that of what was
trained. Order at a step's end: save, then validate, then sample: what fails later costs nothing that was learned.

    trainer = Trainer(...)        # see build.py
    reason = trainer.fit()        # "finished" or "interrupted"
"""

from __future__ import annotations

import contextlib
import gc
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nanofast import checkpoint
from nanofast.config import Config, to_dict
from nanofast.distributed import World, disconnect, gather_objects, is_connected, sum_over_ranks
from nanofast.environment import memory_in_use_bytes
from nanofast.evaluate import BYTES, NUM_SUMS, TARGETS, Validation, batch_sums, bits_per_byte, sum_dtype
from nanofast.generate import continue_text
from nanofast.interrupts import StopRequest
from nanofast.model import GPT
from nanofast.optim import Optimizers, finish_gradients
from nanofast.progress import Progress, StepView
from nanofast.runlog import RunLog
from nanofast.schedule import lr_fraction

SMOOTHING = 0.95  # of the shown loss: about the last twenty steps
LEDGER_EVERY = 20  # steps between token ledgers in the log; a ledger is one more line, so this is taste


@dataclass
class Counters:
    """What a run remembers from step to step and over a resume, besides weights, optimizer and loader."""

    step: int = 0
    tokens: int = 0
    total_seconds: float = 0.0
    smooth_loss: float = 0.0
    smooth_bpb: float = 0.0
    smooth_weight: float = 0.0


@dataclass
class StepRecord:
    """One step on its way to the log; `sums` (see evaluate.py, and a stop flag) and `grad_norm` are on the device."""

    step: int
    lr_fraction: float
    lr: float
    sums: Tensor
    grad_norm: Tensor
    seconds: float
    phase_seconds: dict[str, float]


@dataclass
class Trainer:
    """All parts of a run, built elsewhere, and the loop over them."""

    config: Config
    world: World
    model: GPT
    optimizers: Optimizers
    loader: Any
    open_validation: Callable[[], tuple[Any, int]]
    tokenizer: Any
    token_bytes_V: Tensor
    run_dir: Path
    log: RunLog | None
    progress: Progress
    facts: dict[str, Any] = field(default_factory=dict)
    counters: Counters = field(default_factory=Counters)
    phase_seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    last_validation: Validation | None = None

    def __post_init__(self) -> None:
        schedule = self.config.schedule
        assert schedule.num_iterations is not None
        assert schedule.total_batch_size is not None
        assert schedule.device_batch_size is not None
        assert self.config.run.log_every is not None
        self.num_iterations = schedule.num_iterations
        self.tokens_per_step = schedule.total_batch_size
        self.log_every = self.config.run.log_every
        batch_tokens = schedule.device_batch_size * self.config.model.sequence_length
        self.accumulation_steps = self.tokens_per_step // (batch_tokens * self.world.world_size)
        self.first_step = 0  # of this process: where a resumed run took over
        self.pending: list[StepRecord] = []
        self.stop = StopRequest()
        self.started = time.perf_counter()

    @contextlib.contextmanager
    def _timed(self, phase: str, into: dict[str, float] | None = None) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - start
            self.phase_seconds[phase] += seconds
            if into is not None:
                into[phase] = into.get(phase, 0.0) + seconds

    # ------------------------------------------------------------------ one step

    def train_step(self) -> None:
        """One optimizer step over `accumulation_steps` micro-batches of every rank."""
        start = time.perf_counter()
        phases: dict[str, float] = {}
        device = self.world.device
        sums = torch.zeros(NUM_SUMS + 1, dtype=sum_dtype(device), device=device)
        self.model.train()
        for _ in range(self.accumulation_steps):
            with self._timed("data", phases):
                inputs_BT, targets_BT = next(self.loader)
            with self._timed("forward_backward", phases):
                loss_BT = self.model(inputs_BT, targets_BT)
                # divided by the positions of the step, so that sums stay small; put right by the factor below
                (loss_BT.sum() / self.tokens_per_step).backward()
                sums[:NUM_SUMS] += batch_sums(loss_BT, targets_BT, self.token_bytes_V)
        with self._timed("optimizer", phases):
            sums[NUM_SUMS] = float(self.stop.signal_number)
            sum_over_ranks(sums)
            self._sum_gradients()
            factor = self.tokens_per_step / sums[TARGETS].clamp(min=1.0).float()
            grad_norm = finish_gradients(self.model.parameters(), factor, self.config.optimizer.grad_clip)
            schedule = self.config.schedule
            fraction = lr_fraction(
                self.counters.step,
                self.num_iterations,
                schedule.warmup_ratio,
                schedule.warmdown_ratio,
                schedule.final_lr_frac,
            )
            self.optimizers.set_lr(fraction)
            self.optimizers.step()
            self.optimizers.zero_grad()
        self.counters.step += 1
        record = StepRecord(
            self.counters.step,
            fraction,
            fraction * self.config.optimizer.matrix_lr,
            sums,
            grad_norm,
            time.perf_counter() - start,
            phases,
        )
        self.pending.append(record)

    def _sum_gradients(self) -> None:
        """Add up the gradients of all ranks in one message. Called once a step, after the last micro-batch."""
        if not is_connected():
            return
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        flat = sum_over_ranks(torch.cat([g.flatten() for g in gradients]))
        for gradient, part in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    # ------------------------------------------------------------------ the log

    def flush(self) -> bool:
        """Read the pending steps' losses from the device, log and show them; True when some rank was asked to stop."""
        if not self.pending:
            return bool(self.stop.signal_number)
        rows = torch.stack([record.sums for record in self.pending]).tolist()
        norms = torch.stack([record.grad_norm for record in self.pending]).tolist()
        stop = bool(self.stop.signal_number) and not is_connected()
        for record, sums, norm in zip(self.pending, rows, norms, strict=True):
            self._log_step(record, sums, norm)
            stop = stop or sums[NUM_SUMS] > 0
        self.pending.clear()
        return stop

    def _log_step(self, record: StepRecord, sums: list[float], grad_norm: float) -> None:
        found = Validation.from_sums(sums)
        counters = self.counters
        counters.tokens += self.tokens_per_step
        if math.isfinite(found.loss) and math.isfinite(found.bpb):
            counters.smooth_loss = SMOOTHING * counters.smooth_loss + (1 - SMOOTHING) * found.loss
            counters.smooth_bpb = SMOOTHING * counters.smooth_bpb + (1 - SMOOTHING) * found.bpb
            counters.smooth_weight = SMOOTHING * counters.smooth_weight + (1 - SMOOTHING)
        weight = counters.smooth_weight or 1.0
        wait = record.phase_seconds.get("data", 0.0) / record.seconds
        rate = self.tokens_per_step / record.seconds
        view = StepView(
            step=record.step,
            loss=counters.smooth_loss / weight,
            bpb=counters.smooth_bpb / weight,
            tokens_per_second=rate,
            wait_fraction=wait,
            seconds_left=self._seconds_left(record),
        )
        self._write(
            "step",
            step=record.step,
            loss=found.loss,
            loss_smooth=view.loss,
            bpb=found.bpb,
            lr=record.lr,
            lr_fraction=record.lr_fraction,
            grad_norm=grad_norm,
            momentum=None,
            tokens=counters.tokens,
            targets=int(sums[TARGETS]),
            bytes=int(sums[BYTES]),
            seconds=record.seconds,
            phase_seconds=record.phase_seconds,
            tokens_per_second=rate,
            wait_fraction=wait,
            memory_bytes=memory_in_use_bytes(self.world.device),
            mfu=None,
        )
        if record.step % LEDGER_EVERY == 0 or record.step == self.num_iterations:
            metrics = self.loader.metrics()
            self._write("ledger", step=record.step, ledger=metrics.get("ledger"), loader=metrics)
        self.progress.step(view)

    def _seconds_left(self, record: StepRecord) -> float:
        """What is left at the pace of this process so far, evaluation and saving included."""
        done = record.step - self.first_step
        seconds_each = (time.perf_counter() - self.started) / max(done, 1)
        return seconds_each * (self.num_iterations - record.step)

    def _write(self, kind: str, **fields: Any) -> None:
        if self.log is not None:
            self.log.write(kind, **fields)

    def event(self, message: str, level: str = "info") -> None:
        """Tell the user and the log."""
        self.progress.say(message)
        self._write("event", step=self.counters.step, level=level, message=message)

    # ------------------------------------------------------------------ every so often

    def save(self) -> None:
        """Write a checkpoint; a disk that refuses is told and does not end training."""
        self.flush()
        loader_states = gather_objects(self.loader.state_dict())
        if not self.world.is_main:
            return
        self.progress.phase("saving")
        step = self.counters.step
        with self._timed("save"):
            start = time.perf_counter()
            folder = self.run_dir / "checkpoints"
            try:
                path = checkpoint.save(self._snapshot(loader_states), folder, step)
            except OSError as error:
                self._write(
                    "checkpoint", step=step, path=str(folder), error=str(error), seconds=time.perf_counter() - start
                )
                self.event(f"checkpoint at step {step} could not be written: {error}; training goes on", "warning")
                return
            size = sum(file.stat().st_size for file in path.iterdir())
        self._write("checkpoint", step=step, path=str(path), bytes=size, seconds=time.perf_counter() - start)

    def _snapshot(self, loader_states: list[Any]) -> checkpoint.Snapshot:
        random_states = {"rng/cpu": torch.get_rng_state()}
        if self.world.device.type == "cuda":
            random_states["rng/cuda"] = torch.cuda.get_rng_state(self.world.device)
        counters = dict(vars(self.counters), total_seconds=self._total_seconds())
        return checkpoint.Snapshot(
            tensors={
                "model": dict(self.model.state_dict()),
                "optimizer": {**self.optimizers.state_tensors(), **random_states},
            },
            values={
                "state": {"counters": counters, "config": to_dict(self.config), **self.facts},
                "loader": {"ranks": loader_states},
            },
        )

    def restore(self, snapshot: checkpoint.Snapshot) -> None:
        """Take over a checkpoint's weights, optimizer, random state, loader position and counters."""
        tensors = dict(snapshot.tensors["optimizer"])
        torch.set_rng_state(tensors.pop("rng/cpu"))
        cuda_state = tensors.pop("rng/cuda", None)
        if cuda_state is not None and self.world.device.type == "cuda":
            torch.cuda.set_rng_state(cuda_state, self.world.device)
        self.model.load_state_dict(snapshot.tensors["model"])
        self.optimizers.load_state_tensors(tensors)
        states = snapshot.values["loader"]["ranks"]
        if len(states) == self.world.world_size:
            self.loader.load_state_dict(states[self.world.rank])
        else:
            from nanofast import merge_states

            self.loader.load_state_dict(merge_states(states))
        self.counters = Counters(**snapshot.values["state"]["counters"])
        self.first_step = self.counters.step

    def _total_seconds(self) -> float:
        return self.counters.total_seconds + time.perf_counter() - self.started

    def validate(self) -> None:
        """Bits per byte over the same validation tokens each time."""
        self.flush()
        self.progress.phase("validation")
        step = self.counters.step
        with self._timed("validation"):
            start = time.perf_counter()
            self.model.eval()
            loader, num_batches = self.open_validation()
            with contextlib.closing(loader):
                found = bits_per_byte(self.model, iter(loader), self.token_bytes_V, num_batches)
            seconds = time.perf_counter() - start
        self.last_validation = found
        self._write(
            "validation",
            step=step,
            loss=found.loss,
            bpb=found.bpb,
            tokens=found.tokens,
            bytes=found.bytes,
            seconds=seconds,
        )
        self.progress.say(f"step {step}: validation {found.bpb:.4f} bits/byte, loss {found.loss:.4f}, {seconds:.1f} s")

    def sample(self) -> None:
        """A continuation of each prompt; on the main rank only."""
        self.flush()
        if not self.world.is_main:
            return
        self.progress.phase("sampling")
        settings = self.config.evaluation
        self.model.eval()
        for seed, prompt in enumerate(settings.sample_prompts, start=self.config.run.seed):
            with self._timed("sample"):
                start = time.perf_counter()
                text = continue_text(
                    self.model,
                    self.tokenizer,
                    prompt,
                    settings.sample_tokens,
                    temperature=settings.temperature,
                    top_k=settings.top_k,
                    seed=seed,
                )
                seconds = time.perf_counter() - start
            self._write(
                "sample",
                step=self.counters.step,
                prompt=prompt,
                text=text,
                temperature=settings.temperature,
                seed=seed,
                seconds=seconds,
            )
            if self.counters.step == self.num_iterations:
                self.progress.say(f"\n--- {prompt!r}\n{prompt}{text}")

    # ------------------------------------------------------------------ all steps

    def _due(self, every: int) -> bool:
        """True at multiples of `every` and at the end; with -1 never."""
        if every < 0:
            return False
        return self.counters.step == self.num_iterations or (every > 0 and self.counters.step % every == 0)

    def _guarded(self, work: Callable[[], None], name: str) -> None:
        """Looking at the model must not end its training, unless ranks would lose each other."""
        try:
            work()
        except Exception as error:
            if is_connected():
                raise
            self.event(f"{name} at step {self.counters.step} failed: {error}; training goes on", "warning")

    def fit(self) -> str:
        """Train to the horizon, or until asked to stop; the reason for the end, `finished` or `interrupted`."""
        self.started = time.perf_counter()
        reason, message = "error", "the process ended unexpectedly"
        try:
            with self.stop:
                reason = self._loop()
            message = ""
        except BaseException as error:
            message = f"{type(error).__name__}: {error}"
            raise
        finally:
            self._end(reason, message)
        return reason

    def _loop(self) -> str:
        evaluation = self.config.evaluation
        while self.counters.step < self.num_iterations:
            self.train_step()
            stopping = len(self.pending) >= self.log_every and self.flush()
            stopping = stopping or (bool(self.stop.signal_number) and not is_connected())
            if self.counters.step == self.first_step + 1:
                gc.collect()
                gc.freeze()  # what is alive after one step lives to the end; collecting it again would only stall steps
                gc.disable()
            if stopping or self._due(self.config.run.save_every):
                self.save()
            if stopping:
                self.event(f"asked to stop: step {self.counters.step} is finished")
                return "interrupted"
            if self._due(evaluation.eval_every):
                self._guarded(self.validate, "validation")
                gc.collect()
            if self._due(evaluation.sample_every):
                self._guarded(self.sample, "sampling")
        self.flush()
        return "finished"

    def _end(self, reason: str, message: str) -> None:
        gc.enable()
        gc.unfreeze()
        seconds = time.perf_counter() - self.started
        weight = self.counters.smooth_weight or 1.0
        known = sum(self.phase_seconds.values()) - self.phase_seconds.get("setup", 0.0)
        self._write(
            "end",
            step=self.counters.step,
            reason=reason,
            message=message,
            loss=self.counters.smooth_loss / weight,
            bpb=self.last_validation.bpb if self.last_validation else None,
            tokens=self.counters.tokens,
            seconds=seconds,
            total_seconds=self._total_seconds(),
            phase_seconds={**self.phase_seconds, "other": max(0.0, seconds - known)},
        )

    def close(self) -> None:
        """Give back the loader's threads, the terminal, the log and the process group; idempotent."""
        self.loader.close()
        self.progress.close()
        if self.log is not None:
            self.log.close()
        disconnect()
