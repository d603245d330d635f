"""What differs between the stages of training a model, as data. The loop is the same for all.

    pretrain ──▶ midtrain ──▶ sft          each but the first begins from a checkpoint (--from)

A stage is the first word of the command line. One that continues inherits the checkpoint's settings, with some changes.

    stage, words = take_stage(["sft", "--from", "d4-20260101-120000"])
    defaults = inherited(stage, config_of_the_checkpoint)
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from nanofast.config import Config, ConfigError, RunSettings


@dataclass(frozen=True)
class Stage:
    """One stage: `name` is its word on the command line."""

    name: str
    description: str
    packing: Literal["best_fit", "concat"] | None = None
    """How conversations become rows; None: the stage learns from plain text."""
    rate_factor: float = 1.0
    """Learning rates as a fraction of the checkpoint's."""

    @property
    def continues(self) -> bool:
        """Whether it begins from a checkpoint, with conversations."""
        return self.packing is not None


# Rate factors are a first guess, not tuned: nanochat's are 1 and 0.02, behind a pretraining of billions of tokens.
STAGES = {
    "pretrain": Stage("pretrain", "every token of plain documents is learned, from freshly made weights"),
    "midtrain": Stage(
        "midtrain", "every token of conversations is learned, in one endless stream", packing="concat", rate_factor=0.5
    ),
    "sft": Stage(
        "sft", "the assistant's tokens of whole conversations are learned", packing="best_fit", rate_factor=0.25
    ),
}


def take_stage(words: list[str]) -> tuple[Stage, list[str]]:
    """The stage that the first word names (pretrain when it is a flag), and the words that are left."""
    if not words or words[0].startswith("-"):
        return STAGES["pretrain"], words
    if words[0] not in STAGES:
        raise ConfigError(
            f"unknown stage `{words[0]}` (there are: {', '.join(STAGES)}); settings are given as --name value"
        )
    return STAGES[words[0]], words[1:]


def inherited(stage: Stage, config: Config, tokenizer: str) -> Config:
    """A checkpoint's settings as a stage takes them over: model, batch and rates, but not data, horizon and run."""

    def scaled(rate: float | None) -> float | None:
        return None if rate is None else rate * stage.rate_factor

    names = ("matrix_lr", "embedding_lr", "head_lr")
    rates: dict[str, Any] = {name: scaled(getattr(config.optimizer, name)) for name in names}
    data: dict[str, Any] = {
        "documents": "conversations",
        "data": None,
        "packing": stage.packing,
        "overflow": "pad",
        "shuffle": True,
        "tokenizer": tokenizer,
    }
    horizon: dict[str, Any] = dict.fromkeys(("num_iterations", "tokens_per_parameter", "target_flops"))
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, **data),
        optimizer=dataclasses.replace(config.optimizer, **rates),
        schedule=dataclasses.replace(config.schedule, **horizon, warmup_ratio=0.0, warmdown_ratio=1.0),
        run=RunSettings(),
    )
