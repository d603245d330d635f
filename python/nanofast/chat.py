"""`python -m nanofast.chat RUN`: talk to a model in the terminal.

/tokens    the conversation's tokens so far     /context   how much of the model's context is used
/new       begin another conversation           /quit      leave (also Ctrl-D)
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from nanofast.answering import answer, prompt_ids
from nanofast.chat_template import ChatTemplate
from nanofast.command import exit_code, parse_settings
from nanofast.config import ConfigError
from nanofast.model import GPT

HELP = "/tokens shows the conversation's tokens, /context how much is used, /new begins anew, /quit leaves"


@dataclass(frozen=True)
class ChatCommandSettings:
    """Talk to a trained model."""

    model: Annotated[str, tyro.conf.Positional] = "auto"
    """Run or checkpoint folder; auto is the run that was written to last."""
    prompt: str = ""
    """Ask this and leave."""
    num_tokens: int = 200
    """Longest answer (tokens)."""
    temperature: float = 0.6
    """Sampling temperature; 0 takes the likeliest token."""
    top_k: int = 50
    """Sample among this many likeliest tokens; 0 means all."""
    top_p: float = 1.0
    """Sample among the fewest tokens that together have this probability (0 to 1)."""
    seed: int = 0
    """Seed of the draws."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    home: str | None = None
    """Folder of runs. Derived: NANOFAST_HOME, else ~/.cache/nanofast."""


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
        try:
            for token in answer(
                self.model,
                self.tokenizer,
                self.template,
                self.messages,
                settings.num_tokens,
                temperature=settings.temperature,
                top_k=settings.top_k,
                top_p=settings.top_p,
                seed=settings.seed + len(self.messages),
            ):
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
    for name, least in (("num_tokens", 1), ("temperature", 0), ("top_k", 0)):
        if not least <= getattr(settings, name) < float("inf"):
            raise ConfigError(f"{name} must be at least {least} and finite; found {getattr(settings, name)}")
    if not 0 < settings.top_p <= 1:
        raise ConfigError(f"top_p must be more than 0 and at most 1; found {settings.top_p}")
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


if __name__ == "__main__":
    sys.exit(main())
