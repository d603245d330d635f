"""`python -m nanofast.chat RUN`: talk to a model in the terminal.

/tokens    the conversation's tokens so far     /context   how much of the model's context is used
/new       begin another conversation           /quit      leave (also Ctrl-D)
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

if __name__ == "__main__":  # here already, since what follows loads torch
    from nanofast.command import run_module

    sys.exit(run_module("nanofast.chat"))

from nanofast.answering import answer, prompt_ids
from nanofast.chat_template import ChatTemplate
from nanofast.command import exit_code, parse_settings
from nanofast.config import ConfigError
from nanofast.generate import SamplingSettings
from nanofast.model import GPT

HELP = "/tokens shows the conversation's tokens, /context how much is used, /new begins anew, /quit leaves"


@dataclass(frozen=True)
class ChatCommandSettings(SamplingSettings):
    """Talk to a trained model."""

    prompt: str = ""
    """Ask this and leave."""
    temperature: float = 0.6
    """Sampling temperature; 0 takes the likeliest token."""


@dataclass
class Conversation:
    """What was said so far, and the model that answers."""

    model: GPT
    tokenizer: Any
    template: ChatTemplate
    settings: ChatCommandSettings

    def __post_init__(self) -> None:
        self.messages: list[dict[str, str]] = []

    def say(self, text: str, show: Callable[[str], None]) -> None:
        """Say something and show the answer as it comes. Where there is no room for it, nothing is said."""
        self.messages.append({"role": "user", "content": text})
        settings, decoder, tokens = self.settings, self.tokenizer.decoder(), []
        how = {**settings.how, "seed": settings.seed + len(self.messages)}
        try:
            for token in answer(self.model, self.tokenizer, self.template, self.messages, settings.num_tokens, **how):
                tokens.append(token)
                show(decoder.push([token]))
        except ConfigError:
            self.messages.pop()
            raise
        show(decoder.finish() + "\n")
        self.messages.append({"role": "assistant", "content": self.tokenizer.decode(tokens)})

    def ids(self) -> list[int]:
        """The tokens of the conversation, up to where the next answer would begin."""
        return prompt_ids(self.tokenizer, self.template, self.messages) if self.messages else []

    def command(self, word: str) -> str:
        """What a word with a slash shows."""
        if word == "/tokens":
            return " ".join(repr(self.tokenizer.decode([token])) for token in self.ids()) or "nothing was said"
        if word == "/context":
            used, room = len(self.ids()), self.model.config.sequence_length
            return f"{used} of {room} tokens used ({used / room:.0%}), {len(self.messages)} messages"
        if word == "/new":
            self.messages.clear()
            return "a new conversation"
        return HELP


def talk(conversation: Conversation, lines: Iterable[str], show: Callable[[str], None]) -> None:
    """Answer line after line; until /quit or the last one."""
    for line in lines:
        text = line.strip()
        if text == "/quit":
            return
        if text.startswith("/"):
            show(conversation.command(text) + "\n")
        elif text:
            try:
                conversation.say(text, show)
            except ConfigError as error:  # no room left, most often
                show(f"{error} (/new)\n")


def _typed() -> Iterable[str]:
    while True:
        try:
            yield input("> ")
        except EOFError:
            print()
            return


def _chat(words: list[str]) -> None:
    from nanofast.conversations import template_of
    from nanofast.saved import load_model

    settings = parse_settings(ChatCommandSettings, words, "python -m nanofast.chat")
    settings.check()
    saved = load_model(settings.model, settings.home, settings.device)
    template = template_of(saved.config.chat)
    missing = [token for token in template.special_tokens if token not in saved.tokenizer.special_tokens]
    if missing:
        raise ConfigError(
            f"`{saved.path}` does not know conversations: its vocabulary lacks {', '.join(missing)}; train it with "
            "`python -m nanofast.train sft --from …` first, or use `python -m nanofast.generate`"
        )
    conversation = Conversation(saved.model, saved.tokenizer, template, settings)

    def show(text: str) -> None:
        print(text, end="", flush=True)

    if settings.prompt:
        conversation.say(settings.prompt, show)
        return
    show(f"{saved.path}: {HELP}\n")
    talk(conversation, _typed() if sys.stdin.isatty() else sys.stdin, show)


def main() -> int:
    """The command line of this process."""
    return exit_code(lambda: _chat(sys.argv[1:]))
