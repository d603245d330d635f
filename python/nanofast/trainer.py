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
from typing import Any

import torch
from torch import Tensor

from nanofast import checkpoint
from nanofast.background import BackgroundWriter, Written
from nanofast.config import Config, ConfigError, to_dict
from nanofast.distributed import World, disconnect, gather_objects, is_connected, sum_over_ranks
from nanofast.evaluate import NUM_SUMS, TARGETS, Validation, batch_sums, bits_per_byte, sum_dtype
from nanofast.generate import continue_text
from nanofast.interrupts import StopRequest
from nanofast.journal import Counters, Journal, StepRecord
from nanofast.memory import Parts
from nanofast.model import GPT
from nanofast.optim import Optimizers
from nanofast.schedule import decay_fraction, lr_fraction, momentum

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
        self.num_quarantined = 0
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
        sums = self.parts.run(lambda count: self._accumulate(batches, count, phases), self.rows, self._tell_memory)
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
            batches=(self.counters.step * self.accumulation_steps - self.accumulation_steps, self.accumulation_steps),
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
                for inputs, targets in zip(inputs_BT.chunk(parts), targets_BT.chunk(parts), strict=True):
                    loss, loss_BT = self.model.loss(inputs, targets)
                    # divided by the positions of the step, so that sums stay small; put right by the factor later
                    torch.autograd.backward(loss / self.tokens_per_step)
                    sums[:NUM_SUMS] += batch_sums(loss_BT, targets, self.token_bytes_V)
        return sums

    def _tell_memory(self, message: str) -> None:
        self.journal.event(message, "warning")

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
        """What the loaders of all ranks have left out, once for each time that it grew."""
        found: list[dict[str, Any]] = []
        for part in itertools.chain.from_iterable(gather_objects(parts)):
            if part not in found:  # a whole file is on every rank's list
                found.append(part)
        if len(found) > self.num_quarantined:
            self.num_quarantined = len(found)
            rows = sum(part["rows"][1] - part["rows"][0] for part in found if "rows" in part)
            files = sum("rows" not in part for part in found)
            self.journal.write("quarantine", step=self.counters.step, parts=found)
            self.journal.event(f"left out as bad data so far: {rows} rows and {files} whole files", "warning")

    # ------------------------------------------------------------------ every so often

    def save(self) -> None:
        """Write a checkpoint beside training; a disk that refuses is told and does not end training."""
        self.flush()
        self.journal.progress.phase("saving")
        with self._timed("save"):
            snapshot = self._snapshot()  # gathers from all ranks
            if self.world.is_main:
                self._tell_written(self.writer.submit(snapshot, self.counters.step))

    def _tell_written(self, finished: list[Written]) -> None:
        for written in finished:
            fields = {"step": written.step, "path": str(written.path), "seconds": written.seconds}
            if written.error is None:
                self.journal.write("checkpoint", **fields, bytes=written.bytes)
                continue
            self.journal.write("checkpoint", **fields, error=written.error)
            self.journal.event(
                f"checkpoint at step {written.step} could not be written: {written.error}; training goes on", "warning"
            )

    def _snapshot(self) -> checkpoint.Snapshot:
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
                "loader": {"ranks": gather_objects(self.loader.state_dict())},
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
        self.journal.counters = Counters(**snapshot.values["state"]["counters"])

    def _total_seconds(self) -> float:
        return self.counters.total_seconds + time.perf_counter() - self.started

    def validate(self) -> None:
        """Bits per byte over the same validation tokens each time."""
        self.flush()
        self._tell_written(self.writer.wait())  # first on disk, then looked at
        self.journal.progress.phase("validation")
        step = self.counters.step
        with self._timed("validation"):
            start = time.perf_counter()
            self.model.eval()
            found = self.parts.run(self._measure, self.rows, self._tell_memory)
            seconds = time.perf_counter() - start
        self.last_validation = found
        self.journal.write(
            "validation",
            step=step,
            loss=found.loss,
            bpb=found.bpb,
            tokens=found.tokens,
            bytes=found.bytes,
            seconds=seconds,
        )
        self.journal.progress.say(
            f"step {step}: validation {found.bpb:.4f} bits/byte, loss {found.loss:.4f}, {seconds:.1f} s"
        )

    def _measure(self, parts: int) -> Validation:
        loader, num_batches = self.open_validation()
        with contextlib.closing(loader):
            return bits_per_byte(self.model, iter(loader), self.token_bytes_V, num_batches, parts)

    def sample(self) -> None:
        """A continuation of each prompt; on the main rank only."""
        self.flush()
        if not self.world.is_main:
            return
        self.journal.progress.phase("sampling")
        settings = self.config.evaluation
        self.model.eval()
        for seed, prompt in enumerate(settings.sample_prompts, start=self.config.run.seed):
            with self._timed("sample"), torch.compiler.set_stance("force_eager"):  # each length would compile anew
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
            self.journal.write(
                "sample",
                step=self.counters.step,
                prompt=prompt,
                text=text,
                temperature=settings.temperature,
                seed=seed,
                seconds=seconds,
            )
            if self.counters.step == self.num_iterations:
                self.journal.progress.say(f"\n--- {prompt!r}\n{prompt}{text}")

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

    def fit(self) -> str:
        """Train to the horizon, or until asked to stop; the reason for the end, `finished` or `interrupted`."""
        self.started = time.perf_counter()
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
            total_seconds=self._total_seconds(),
            phase_seconds={**self.phase_seconds, "other": max(0.0, seconds - known)},
        )

    def close(self) -> None:
        """Give back the loader's threads, the terminal, the log and the process group; idempotent."""
        self.writer.close()
        self.loader.close()
        self.journal.close()
        disconnect()
