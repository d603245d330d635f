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
import itertools
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from nanofast import checkpoint, observe, snapshots
from nanofast.background import BackgroundWriter, Written
from nanofast.compiling import compile_now
from nanofast.config import Config, ConfigError
from nanofast.distributed import World, disconnect, gather_objects, is_connected, sum_over_ranks
from nanofast.evaluate import NUM_SUMS, TARGETS, Validation, batch_sums, sum_dtype
from nanofast.interrupts import StopRequest
from nanofast.journal import Counters, Journal, StepRecord
from nanofast.memory import Parts
from nanofast.model import GPT
from nanofast.optim import Optimizers
from nanofast.schedule import decay_fraction, lr_fraction, momentum
from nanofast.skipped import write_documents

T = TypeVar("T")

LEDGER_EVERY = 20  # steps between token ledgers in the log; a ledger is one more line, so this is taste
MOST_SKIPPED = 5  # steps in a row without a finite gradient: the weights are beyond help, or the data is


class DivergedError(ConfigError):
    """Training went nowhere for several steps; the message names the checkpoint to go back to."""


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
    journal: Journal
    is_compiled: bool = False
    facts: dict[str, Any] = field(default_factory=dict)
    phase_seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    last_validation: Validation | None = None

    def __post_init__(self) -> None:
        schedule = self.config.schedule
        assert schedule.num_iterations is not None
        assert schedule.total_batch_size is not None
        assert schedule.device_batch_size is not None
        assert self.config.run.log_every is not None
        self.num_iterations = schedule.num_iterations
        assert self.config.optimizer.matrix_lr is not None
        self.tokens_per_step = schedule.total_batch_size
        self.rows = schedule.device_batch_size
        self.parts = Parts()
        run = self.config.run
        folder = self.run_dir / "checkpoints"
        self.writer = BackgroundWriter(folder, keep_last=run.keep_last, keep_every=run.keep_every)
        self.matrix_lr = self.config.optimizer.matrix_lr
        self.log_every = self.config.run.log_every
        batch_tokens = schedule.device_batch_size * self.config.model.sequence_length
        self.accumulation_steps = self.tokens_per_step // (batch_tokens * self.world.world_size)
        self.quarantined: list[dict[str, Any]] = []
        self.journal.keep_documents = self._keep_documents
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
        self.model.train()
        batches: list[tuple[Tensor, Tensor]] = []  # kept for the case that memory runs out and the step begins again
        sums = self.in_parts(lambda count: self._accumulate(batches, count, phases))
        with self._timed("optimizer", phases):
            sums[NUM_SUMS] = float(self.stop.signal_number)
            sum_over_ranks(sums)
            factor = self.tokens_per_step / sums[TARGETS].clamp(min=1.0).float()
            grad_norm = self.optimizers.finish_gradients(factor, self.config.optimizer.grad_clip)
            schedule = self.config.schedule
            fraction = lr_fraction(
                self.counters.step,
                self.num_iterations,
                schedule.warmup_ratio,
                schedule.warmdown_ratio,
                schedule.final_lr_frac,
            )
            momentum_now = momentum(self.counters.step, self.num_iterations, self.config.optimizer.momentum)
            self.optimizers.set(
                lr_fraction=fraction,
                momentum=momentum_now,
                decay_fraction=decay_fraction(self.counters.step, self.num_iterations),
            )
            skip = (~grad_norm.isfinite() | (sums[TARGETS] == 0)).float()
            self.optimizers.step(skip)
            self.optimizers.zero_grad()
        self.counters.step += 1
        record = StepRecord(
            step=self.counters.step,
            lr=fraction * self.matrix_lr,
            lr_fraction=fraction,
            momentum=momentum_now if self.config.optimizer.optimizer == "muon" else None,
            sums=sums,
            grad_norm=grad_norm,
            seconds=time.perf_counter() - start,
            phase_seconds=phases,
            inputs=[inputs for inputs, _ in batches],
        )
        self.journal.add(record)

    def _accumulate(self, batches: list[tuple[Tensor, Tensor]], parts: int, phases: dict[str, float]) -> Tensor:
        """Gradients of the step's batches, fetched where they are not there yet; their sums and room for a flag."""
        device = self.world.device
        self.optimizers.zero_grad()
        sums = torch.zeros(NUM_SUMS + 1, dtype=sum_dtype(device), device=device)
        for number in range(self.accumulation_steps):
            if number == len(batches):
                with self._timed("data", phases):
                    batches.append(next(self.loader))
            with self._timed("forward_backward", phases):
                inputs_BT, targets_BT = batches[number]
                pieces = list(zip(inputs_BT.chunk(parts), targets_BT.chunk(parts), strict=True))
                for place, (inputs, targets) in enumerate(pieces, start=1):
                    if self.model.is_cut:
                        from nanofast.fsdp import sum_gradients_next

                        is_last = number + 1 == self.accumulation_steps and place == len(pieces)
                        sum_gradients_next(self.model, is_last)
                    loss, loss_BT = self.model.loss(inputs, targets)
                    # divided by the positions of the step, so that sums stay small; put right by the factor later
                    torch.autograd.backward(loss / self.tokens_per_step)
                    sums[:NUM_SUMS] += batch_sums(loss_BT, targets, self.token_bytes_V)
        return sums

    def in_parts(self, work: Callable[[int], T]) -> T:
        """`work(count)`, with each batch cut into more parts when memory runs out.

        Where a model is cut over the ranks, one of them cannot begin again by itself, and the error is raised.
        """
        return self.parts.run(work, 1 if self.model.is_cut else self.rows, self._tell_memory)

    def _tell_memory(self, message: str) -> None:
        self.journal.event(message, "warning")

    def _keep_documents(self, step: int, inputs: list[Tensor]) -> str:
        """Write down what a skipped step had read; where, in words."""
        rank = self.world.rank
        try:
            path, count = write_documents(self.run_dir, step, rank, inputs, self.tokenizer)
        except OSError as error:
            return f"its documents could not be written down: {error}"
        return f"the {count} documents that process {rank} had in it are in `{path}`"

    @property
    def counters(self) -> Counters:
        """What the run remembers from step to step."""
        return self.journal.counters

    def flush(self) -> bool:
        """Tell what the device knows of the last steps; True when some rank was asked to stop."""
        return self.journal.flush() or (bool(self.stop.signal_number) and not is_connected())

    def _write_ledger(self) -> None:
        metrics = self.loader.metrics()
        self._tell_quarantine(metrics.pop("quarantine", []))
        self.journal.write("ledger", step=self.counters.step, ledger=metrics.get("ledger"), loader=metrics)

    def _tell_quarantine(self, parts: list[dict[str, Any]]) -> None:
        """What the loaders of all ranks have left out, each time that there is more of it."""
        found: list[dict[str, Any]] = []
        for part in itertools.chain.from_iterable(gather_objects(parts)):
            if part not in found:  # ranks come to the same rows in other epochs, and a whole file is on every list
                found.append(part)
        if found == self.quarantined:
            return
        self.quarantined = found
        rows = {
            (part["file"], part["row_group"], row) for part in found if "rows" in part for row in range(*part["rows"])
        }
        files = sum("rows" not in part for part in found)
        self.journal.write("quarantine", step=self.counters.step, parts=found)
        self.journal.event(f"left out as bad data so far: {len(rows)} rows and {files} whole files", "warning")

    # ------------------------------------------------------------------ every so often

    def save(self) -> None:
        """Write a checkpoint beside training; a disk that refuses is told and does not end training."""
        self.flush()
        self.journal.progress.phase("saving")
        with self._timed("save"):
            self._tell_written(snapshots.save(self))

    def _tell_written(self, finished: list[Written]) -> None:
        for written in finished:
            fields = {"step": written.step, "path": str(written.path), "seconds": written.seconds}
            if written.error is None:
                self.journal.write("checkpoint", **fields, bytes=written.bytes)
                if written.kept is not None:
                    self.journal.event(f"older checkpoints could not be deleted: {written.kept}", "warning")
                continue
            self.journal.write("checkpoint", **fields, error=written.error)
            self.journal.event(
                f"checkpoint at step {written.step} could not be written: {written.error}; training goes on", "warning"
            )

    def restore(self, snapshot: checkpoint.Snapshot) -> None:
        """Take over a checkpoint's weights, optimizer, random state, loader position and counters."""
        snapshots.put_back(self, snapshot)

    def total_seconds(self) -> float:
        """Time of the whole run so far, of earlier processes too."""
        return self.counters.total_seconds + time.perf_counter() - self.started

    def validate(self) -> None:
        """Bits per byte over the same validation tokens each time."""
        self.flush()
        self._tell_written(self.writer.wait())  # first on disk, then looked at
        with self._timed("validation"):
            self.last_validation = observe.validate(self)

    def sample(self) -> None:
        """A continuation of each prompt."""
        self.flush()
        with self._timed("sample"):
            observe.sample(self)

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
            self.journal.event(f"{name} at step {self.counters.step} failed: {error}; training goes on", "warning")

    def _compile(self) -> None:
        """Compile in a phase of its own, so that no step is as slow as that."""
        self.journal.progress.phase("compiling")
        with self._timed("compile"):
            device = self.world.device
            self.in_parts(lambda parts: compile_now(self.model, -(-self.rows // parts), device))
            self.optimizers.zero_grad()

    def fit(self) -> str:
        """Train to the horizon, or until asked to stop; the reason for the end, `finished` or `interrupted`."""
        self.started = time.perf_counter()
        if self.is_compiled:
            self._compile()
        self.journal.restart_clock()
        first_step = self.counters.step
        reason, message = "error", "the process ended unexpectedly"
        try:
            with self.stop:
                reason = self._loop(first_step)
            message = ""
            gather_objects(None)  # no rank takes the process group down while another still talks to it
        except BaseException as error:
            message = f"{type(error).__name__}: {error}"
            raise
        finally:
            self._end(reason, message)
        return reason

    def _loop(self, first_step: int) -> str:
        evaluation = self.config.evaluation
        while self.counters.step < self.num_iterations:
            self.train_step()
            stopping = len(self.journal) >= self.log_every and self.flush()
            stopping = stopping or (bool(self.stop.signal_number) and not is_connected())
            self._tell_written(self.writer.poll())
            if self.counters.skipped_in_a_row >= MOST_SKIPPED:
                raise DivergedError(self._where_to_go_back())
            if self.counters.step % LEDGER_EVERY == 0 or self.counters.step == self.num_iterations:
                self._write_ledger()
            if self.counters.step == first_step + 1:
                gc.collect()
                gc.freeze()  # what is alive after one step lives to the end; collecting it again would only stall steps
                gc.disable()
            is_sound = self.counters.skipped_in_a_row == 0  # a checkpoint among lost steps is none to go back to
            if stopping or (is_sound and self._due(self.config.run.save_every)):
                self.save()
            if stopping:
                self.journal.event(f"asked to stop: step {self.counters.step} is finished")
                return "interrupted"
            if self._due(evaluation.eval_every):
                self._guarded(self.validate, "validation")
                gc.collect()
            if self._due(evaluation.sample_every):
                self._guarded(self.sample, "sampling")
        if self.config.chat.tasks:
            self.flush()
            self._guarded(lambda: observe.ask_tasks(self), "asking the tasks' questions")
        self.flush()
        return "finished"

    def _where_to_go_back(self) -> str:
        self._tell_written(self.writer.wait())
        newest, _ = checkpoint.newest_complete(self.run_dir / "checkpoints")
        go_back = f"the last good checkpoint is `{newest}`" if newest else "no checkpoint was written"
        return (
            f"{MOST_SKIPPED} steps in a row had no finite loss and gradient, up to step {self.counters.step}; "
            f"{go_back}; lower the learning rates (--matrix-lr, --embedding-lr, --head-lr) and --resume from it"
        )

    def _end(self, reason: str, message: str) -> None:
        gc.enable()
        gc.unfreeze()
        with self._timed("save"):
            self._tell_written(self.writer.wait())
        seconds = time.perf_counter() - self.started
        loss, _ = self.journal.means()
        known = sum(self.phase_seconds.values()) - self.phase_seconds.get("setup", 0.0)
        self.journal.write(
            "end",
            step=self.counters.step,
            reason=reason,
            message=message,
            loss=loss,
            bpb=self.last_validation.bpb if self.last_validation else None,
            tokens=self.counters.tokens,
            seconds=seconds,
            total_seconds=self.total_seconds(),
            phase_seconds={**self.phase_seconds, "other": max(0.0, seconds - known)},
        )

    def close(self) -> None:
        """Give back the loader's threads, the terminal, the log and the process group; idempotent."""
        self.writer.close()
        self.loader.close()
        self.journal.close()
        disconnect()
