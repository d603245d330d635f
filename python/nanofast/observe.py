"""Looking at a model while it trains: validation, and what xz and unigrams reach on the same text; samples.

Nothing here moves weights or random state.

    validate(trainer); sample(trainer)
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from nanofast.answering import answer_text
from nanofast.baselines import baselines
from nanofast.chat_tasks import ask, read_task
from nanofast.conversations import template_of
from nanofast.evaluate import Validation, bits_per_byte
from nanofast.generate import continue_text

if TYPE_CHECKING:
    from nanofast.trainer import Trainer


def validate(trainer: Trainer) -> Validation:
    """Bits per byte over the same validation tokens each time; told and logged."""
    journal, step = trainer.journal, trainer.counters.step
    journal.progress.phase("validation")
    if trainer.last_validation is None:
        _tell_baselines(trainer)
    start = time.perf_counter()
    trainer.model.eval()
    found = trainer.in_parts(lambda parts: _measure(trainer, parts))
    seconds = time.perf_counter() - start
    journal.write("validation", step=step, **_figures(found), seconds=seconds)
    journal.progress.say(f"step {step}: validation {found.bpb:.4f} bits/byte, loss {found.loss:.4f}, {seconds:.1f} s")
    return found


def _figures(found: Validation) -> dict[str, float]:
    return {"loss": found.loss, "bpb": found.bpb, "tokens": found.tokens, "bytes": found.bytes}


def _measure(trainer: Trainer, parts: int) -> Validation:
    loader, num_batches = trainer.open_validation()
    with contextlib.closing(loader):
        return bits_per_byte(trainer.model, iter(loader), trainer.token_bytes_V, num_batches, parts)


def _tell_baselines(trainer: Trainer) -> None:
    """Once a process: what the validation text takes without a language model."""
    loader, num_batches = trainer.open_validation()
    with contextlib.closing(loader):
        found = baselines(iter(loader), num_batches, trainer.tokenizer, trainer.token_bytes_V.cpu().numpy())
    if found is not None:
        trainer.journal.write("baselines", step=trainer.counters.step, **asdict(found))
        trainer.journal.progress.say(
            f"for comparison: xz reaches {found.xz_bpb:.4f} bits/byte on this text, "
            f"the best unigram model {found.unigram_bpb:.4f}"
        )


def sample(trainer: Trainer) -> None:
    """A continuation of each prompt, on the main rank; where a model is cut over the ranks, all take part."""
    if not trainer.world.is_main and not trainer.model.is_cut:
        return
    journal, step, settings = trainer.journal, trainer.counters.step, trainer.config.evaluation
    journal.progress.phase("sampling")
    trainer.model.eval()
    is_chat = trainer.config.data.documents == "conversations"
    prompts = trainer.config.chat.questions if is_chat else settings.sample_prompts
    for seed, prompt in enumerate(prompts, start=trainer.config.run.seed):
        start = time.perf_counter()
        how = {"temperature": settings.temperature, "top_k": settings.top_k, "seed": seed}
        with torch.compiler.set_stance("force_eager"):  # each length would compile anew
            text = (_answer if is_chat else _continuation)(trainer, prompt, **how)
        fields = {"is_answer": is_chat, "text": text, "temperature": settings.temperature, "seed": seed}
        journal.write("sample", step=step, prompt=prompt, **fields, seconds=time.perf_counter() - start)
        if step == trainer.num_iterations:
            journal.progress.say(f"\n--- {prompt!r}\n{text if is_chat else prompt + text}")


def _continuation(trainer: Trainer, prompt: str, **how: Any) -> str:
    return continue_text(trainer.model, trainer.tokenizer, prompt, trainer.config.evaluation.sample_tokens, **how)


def _answer(trainer: Trainer, prompt: str, **how: Any) -> str:
    template = template_of(trainer.config.chat)
    question = [{"role": "user", "content": prompt}]
    num_tokens = trainer.config.evaluation.sample_tokens
    return answer_text(trainer.model, trainer.tokenizer, template, question, num_tokens, **how)


def ask_tasks(trainer: Trainer) -> None:
    """The questions of the tasks that the settings name, on the main rank (cut models: on all); told and logged."""
    tasks = [read_task(Path(path)) for path in trainer.config.chat.tasks]
    if not trainer.world.is_main and not trainer.model.is_cut:
        return
    journal, step = trainer.journal, trainer.counters.step
    trainer.model.eval()
    for task in tasks:
        journal.progress.phase(f"task {task.name}")
        start = time.perf_counter()
        with torch.compiler.set_stance("force_eager"):
            score = ask(trainer.model, trainer.tokenizer, template_of(trainer.config.chat), task)
        journal.write("task", step=step, **asdict(score), seconds=time.perf_counter() - start)
        journal.progress.say(
            f"task {score.task}: {score.accuracy:.1%} of {score.num_questions} questions right "
            f"(guessing: {score.chance:.1%})"
        )
