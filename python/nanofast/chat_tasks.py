"""Questions with known answers, asked of a chat model: multiple choice by letter, exact match by generation.

A task is a JSONL file of one kind:

    {"question": "2 + 2?", "choices": ["3", "4"], "answer": 1}       the place of the right choice
    {"question": "2 + 2?", "answer": "4"}                            the text of the right answer

A choice is taken by the likeliest of the letters A, B, C, … as the answer's first token; an answer matches when it is
equal up to case and white space around it, ended by the model itself or by its length.

    score = ask(model, tokenizer, template, read_task(path))
    score.accuracy, score.num_questions
"""

from __future__ import annotations

import json
import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nanofast.answering import answer_text, prompt_ids
from nanofast.chat_template import ChatTemplate
from nanofast.config import ConfigError
from nanofast.model import GPT

MOST_ANSWER_TOKENS = 64
LETTERS = string.ascii_uppercase


@dataclass(frozen=True)
class Question:
    """One question; with `choices` the answer is the letter of one of them."""

    question: str
    answer: str
    choices: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """What the model is asked."""
        if not self.choices:
            return self.question
        lines = [f"{letter}. {choice}" for letter, choice in zip(LETTERS, self.choices, strict=False)]
        return "\n".join([self.question, *lines, "Answer with the letter of the right choice alone."])


@dataclass(frozen=True)
class Task:
    """The questions of a file, all of a kind."""

    name: str
    questions: tuple[Question, ...]


@dataclass(frozen=True)
class Score:
    """How a task went; `chance` is what guessing would reach."""

    task: str
    accuracy: float
    chance: float
    num_questions: int
    num_too_long: int


def read_task(path: Path) -> Task:
    """The questions of a JSONL file. Raises ConfigError with the line of one that is none."""
    questions = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"task `{path}` cannot be read: {error}") from None
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                questions.append(_question(json.loads(line)))
            except (ValueError, TypeError, KeyError) as error:
                raise ConfigError(f"task `{path}`, line {number}: {error}; expected {EXPECTED}") from None
    if not questions:
        raise ConfigError(f"task `{path}` holds no questions; expected lines of {EXPECTED}")
    return Task(path.stem, tuple(questions))


EXPECTED = '{"question": text, "answer": text}, or {"question": text, "choices": [text, …], "answer": place}'


def _question(row: dict[str, Any]) -> Question:
    question, choices, found = row["question"], row.get("choices"), row["answer"]
    if not isinstance(question, str):
        raise TypeError("question is no text")
    if choices is None:
        if not isinstance(found, str):
            raise TypeError("answer is no text")
        return Question(question, found)
    if not 2 <= len(choices) <= len(LETTERS) or not all(isinstance(choice, str) for choice in choices):
        raise ValueError(f"{len(choices)} choices; between 2 and {len(LETTERS)} texts")
    if isinstance(found, bool) or not isinstance(found, int) or not 0 <= found < len(choices):
        raise ValueError(f"answer {found!r} is no place among {len(choices)} choices")
    return Question(question, LETTERS[found], tuple(choices))


@torch.no_grad()
def _letter(model: GPT, tokenizer: Any, ids: Sequence[int], num_choices: int) -> str:
    """The likeliest letter to begin the answer with."""
    letters = LETTERS[:num_choices]
    tokens = [int(tokenizer.encode(letter)[0]) for letter in letters]
    logits_V = model(torch.tensor([list(ids)], device=model.head.weight.device))[0, -1]
    return letters[int(logits_V[tokens].argmax())]


def ask(model: GPT, tokenizer: Any, template: ChatTemplate, task: Task) -> Score:
    """Put every question of a task; one that is longer than the model's context counts as wrong."""
    right, too_long = 0, 0
    for question in task.questions:
        messages = [{"role": "user", "content": question.text}]
        ids = prompt_ids(tokenizer, template, messages)
        if len(ids) > model.config.sequence_length:
            too_long += 1
        elif question.choices:
            right += _letter(model, tokenizer, ids, len(question.choices)) == question.answer
        else:
            found = answer_text(model, tokenizer, template, messages, MOST_ANSWER_TOKENS, temperature=0.0)
            right += found.strip().casefold() == question.answer.strip().casefold()
    chances = [1 / len(question.choices) if question.choices else 0.0 for question in task.questions]
    count = len(task.questions)
    return Score(task.name, right / count, sum(chances) / count, count, too_long)
