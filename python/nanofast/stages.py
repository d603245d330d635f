"""What differs between the stages of training a model, as data. The loop is the same for all.

A stage is the first word of the command line.

    stage, words = take_stage(["pretrain", "--depth", "6"])
"""

from __future__ import annotations

from dataclasses import dataclass

from nanofast.config import ConfigError


@dataclass(frozen=True)
class Stage:
    """One stage: `name` is its word on the command line."""

    name: str
    description: str


STAGES = {
    "pretrain": Stage("pretrain", "every token of plain documents is learned, from freshly made weights"),
}


def take_stage(words: list[str]) -> tuple[Stage, list[str]]:
    """The stage that the first word names (pretrain when it is a flag), and the words that are left."""
    if not words or words[0].startswith("-"):
        return STAGES["pretrain"], words
    if words[0] not in STAGES:
        raise ConfigError(
            f"unknown stage `{words[0]}` (there is: {', '.join(STAGES)}); settings are given as --name value"
        )
    return STAGES[words[0]], words[1:]
