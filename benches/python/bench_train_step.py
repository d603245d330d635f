"""How many tokens a second does a whole training step take in, beside the same step in plain float32 eager torch?

    pytest benches/python/bench_train_step.py -s            # the table, in a minute or two
    pytest benches/python/bench_train_step.py --smoke       # each once, very small

Same model, batch, optimizer and text, by depth. The plain step has torch's own attention, norm, head and loss, in
float32; then each of ours comes on top. Processor time of one thread, in turns, the fastest round of each: other work
on the machine slows a round, and never speeds one up. Losses are compared before anything is timed.

Then real runs of the trainer by depth: how much of a step is spent waiting for data.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench_bits_per_byte import made
from nanofast.compiling import compile_blocks
from nanofast.config import OptimizerSettings
from nanofast.model import GPT, GPTConfig
from nanofast.optim import Optimizers
from results import Results, Table, spread

DEPTHS = (2, 4, 6)
ROUNDS = 6
SETTINGS = OptimizerSettings(matrix_lr=0.04, embedding_lr=0.2, head_lr=0.004)


def plain_norm(x: Tensor) -> Tensor:
    """RMSNorm as torch has it."""
    return F.rms_norm(x, (x.size(-1),), eps=1e-12)


def plain_attention(query: Tensor, key: Tensor, value: Tensor, window: int | None, kernel: str) -> Tensor:
    """Scaled dot product attention as torch has it."""
    assert window is None
    return F.scaled_dot_product_attention(query, key, value, is_causal=True)


def plain_loss(x_NC: Tensor, weight_VC: Tensor, targets_N: Tensor, cap: float) -> tuple[Tensor, Tensor]:
    """Head, soft cap and cross-entropy, one after the other."""
    logits = F.linear(x_NC, weight_VC.to(x_NC.dtype)).float()
    losses = F.cross_entropy(cap * torch.tanh(logits / cap), targets_N, ignore_index=-1, reduction="none")
    return losses.sum(), losses.detach()


@contextlib.contextmanager
def plain() -> Iterator[None]:
    """The model with torch's own parts."""
    with (
        mock.patch("nanofast.model.rms_norm", plain_norm),
        mock.patch("nanofast.model.attend", plain_attention),
        mock.patch("nanofast.model.capped_loss", plain_loss),
    ):
        yield


@dataclass(frozen=True)
class Variant:
    """One way to take the same step."""

    name: str
    dtype: torch.dtype
    is_plain: bool = False
    is_compiled: bool = False


VARIANTS = (
    Variant("float32, torch's own parts", torch.float32, is_plain=True),
    Variant("float32", torch.float32),
    Variant("bfloat16, torch's own parts", torch.bfloat16, is_plain=True),
    Variant("bfloat16 (the default)", torch.bfloat16),
    Variant("bfloat16, compiled", torch.bfloat16, is_compiled=True),
)


class Stepper:
    """A model and its optimizer, taking steps of two micro-batches on the same tokens."""

    def __init__(self, variant: Variant, config: GPTConfig, rows: int) -> None:
        self.variant, self.rows, self.config = variant, rows, config
        self.model = GPT(config, variant.dtype)
        self.model.initialize(torch.Generator().manual_seed(0))
        if variant.is_compiled:
            is_on, reason = compile_blocks(self.model, "on", torch.device("cpu"))
            assert is_on, reason
        self.optimizers = Optimizers(self.model, SETTINGS)
        generator = torch.Generator().manual_seed(1)
        shape = (2, rows, config.sequence_length + 1)
        self.ids = torch.randint(0, config.vocab_size, shape, generator=generator)

    def step(self) -> float:
        """The loss before the step, nats a token."""
        total, tokens = 0.0, 2 * self.rows * self.config.sequence_length
        with plain() if self.variant.is_plain else contextlib.nullcontext():
            for ids in self.ids:
                loss, losses = self.model.loss(ids[:, :-1], ids[:, 1:].contiguous())
                torch.autograd.backward(loss / tokens)
                total += float(losses.sum())
        self.optimizers.finish_gradients(torch.tensor(1.0), 1.0)
        self.optimizers.step(torch.tensor(0.0))
        self.optimizers.zero_grad()
        return total / tokens


def model_of(depth: int, sequence_length: int, vocab_size: int) -> GPTConfig:
    """As wide as the trainer makes a model of this depth."""
    return GPTConfig(vocab_size, sequence_length, depth, depth, 64 * depth)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch's compiler looks at every tensor's
def test_tokens_a_second(depth: int, smoke: bool, results: Results) -> None:
    if smoke and depth != DEPTHS[0]:
        pytest.skip("one depth is enough to see that it runs")
    config = GPTConfig(64, 32, 1, 1, 32) if smoke else model_of(depth, 256, 4096)
    rows, rounds = (2, 1) if smoke else (8, ROUNDS)
    variants = [variant for variant in VARIANTS if not (smoke and variant.is_compiled)]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        steppers = [Stepper(variant, config, rows) for variant in variants]
        losses = [[stepper.step() for _ in range(2)] for stepper in steppers]  # allocates and compiles, too
        for found in losses[1:]:
            assert found == pytest.approx(losses[0], rel=0.01)
        seconds: list[list[float]] = [[] for _ in steppers]
        for _ in range(rounds):
            for number, stepper in enumerate(steppers):
                start = time.thread_time()
                stepper.step()
                seconds[number].append(time.thread_time() - start)
    finally:
        torch.set_num_threads(threads)
    tokens = 2 * rows * config.sequence_length
    results.add(
        Table(
            f"A training step, depth {depth}",
            ("step", "tokens/s", "×"),
            [
                (variant.name, tokens / min(found), min(seconds[0]) / min(found))
                for variant, found in zip(variants, seconds, strict=True)
            ],
            (
                f"{tokens:,} tokens a step, {config.n_embd} wide, vocabulary of {config.vocab_size:,}; Muon and AdamW "
                f"included; one thread, by its processor time, the fastest of {rounds}",
            ),
            seconds,
        )
    )


def test_waiting_for_data(smoke: bool, results: Results, tmp_path: Path) -> None:
    num_steps, sequence_length = (3, 64) if smoke else (10, 512)
    rows = []
    for depth in DEPTHS[:1] if smoke else DEPTHS:
        sizes = {"depth": depth, "sequence_length": sequence_length}
        trainer = made("nanochat_shape", num_steps, 0, tmp_path / str(depth), **sizes)
        with contextlib.closing(trainer):
            trainer.train_step()  # allocates
            trainer.phase_seconds.clear()
            waits, steps = [], []
            for _ in range(num_steps - 1):
                before, start = trainer.phase_seconds["data"], time.perf_counter()
                trainer.train_step()
                steps.append(1e3 * (time.perf_counter() - start))
                waits.append(1e3 * (trainer.phase_seconds["data"] - before))
        tokens = trainer.config.schedule.total_batch_size
        assert tokens is not None
        rows.append((depth, tokens, spread(steps), spread(waits), 100 * sum(waits) / sum(steps)))
    results.add(
        Table(
            "Waiting for data in a training step",
            ("depth", "tokens a step", "step, ms", "wait for data, ms", "wait, % of the steps"),
            rows,
            (
                f"the default run on the sample corpus, rows of {sequence_length}, one thread for torch; "
                f"{num_steps - 1} steps; the first of the run, which waits for the loader to begin, is left out",
            ),
        )
    )
