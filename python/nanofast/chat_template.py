"""Chat templates: what stands around the messages of a conversation, and which of it is learned. Data, no code.

    nanochat  <|bos|><|user_start|>hi<|user_end|><|assistant_start|>hello<|assistant_end|>
                                                                    learned
A template is a value: `dataclasses.replace(NANOCHAT, only_last_turn=True)` is another one.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from nanofast.errors import InvalidError


@dataclass(frozen=True)
class Turn:
    """What stands around a message."""

    start: str
    """In front of it; never learned."""
    end: str
    """Behind it; learned where the message is."""
    after: str = ""
    """Behind that; never learned."""


@dataclass(frozen=True)
class Part:
    """What stands around a part of an assistant's message that is no text."""

    start: str
    """In front of it."""
    end: str
    """Behind it."""
    learned: bool
    """Whether it is learned, with what stands around it, where the message is."""


@dataclass(frozen=True)
class ChatTemplate:
    """How a conversation becomes tokens. Strings may hold special tokens: those that `special_tokens` lists."""

    name: str
    """Its name in messages."""
    special_tokens: tuple[str, ...]
    """What is a special token in the other fields; the tokenizer has to have them all."""
    turns: Mapping[str, Turn]
    """What stands around a message, by role: user, assistant, system. Without system, its message is put in front of
    the first user's, with an empty line between."""
    pad: str
    """The special token that fills rows."""
    bos: str = ""
    """In front of each conversation; may be empty."""
    parts: Mapping[str, Part] = field(default_factory=dict)
    """What stands around parts of an assistant's message: python, python_output."""
    trim: bool = False
    """Whether white space around what is said is taken off."""
    learned_roles: tuple[str, ...] = ("assistant",)
    """Roles whose messages are learned."""
    only_last_turn: bool = False
    """Whether only the last message of a learned role is learned."""

    @classmethod
    def from_name(cls, name: str) -> ChatTemplate:
        """One of `TEMPLATES`: nanochat, chatml or llama3."""
        if name not in TEMPLATES:
            raise InvalidError(f"template = `{name}`: expected one of {', '.join(TEMPLATES)}, or a ChatTemplate")
        return TEMPLATES[name]

    def arguments(
        self,
        *,
        layout: str = "messages",
        messages_column: str | None = None,
        text_column: str | None = None,
        too_long: str = "cut_end",
        index_folder: str | os.PathLike[str] | None = None,
    ) -> str:
        """What the extension is told of conversations, as JSON (see `ChatLoader`)."""
        arguments = {
            "template": dataclasses.asdict(self),
            "layout": layout,
            "messages_column": messages_column,
            "text_column": text_column,
            "too_long": too_long,
            "index_folder": None if index_folder is None else os.fspath(index_folder),
        }
        return json.dumps(arguments)

    @property
    def part_tokens(self) -> tuple[str, ...]:
        """Special tokens that may stand within an assistant's message; any other ends it."""
        around = [text for part in self.parts.values() for text in (part.start, part.end)]
        return tuple(token for token in self.special_tokens if any(token in text for text in around))


NANOCHAT = ChatTemplate(
    name="nanochat",
    special_tokens=(
        "<|bos|>",
        "<|user_start|>",
        "<|user_end|>",
        "<|assistant_start|>",
        "<|assistant_end|>",
        "<|python_start|>",
        "<|python_end|>",
        "<|output_start|>",
        "<|output_end|>",
    ),
    bos="<|bos|>",
    turns={
        "user": Turn("<|user_start|>", "<|user_end|>"),
        "assistant": Turn("<|assistant_start|>", "<|assistant_end|>"),
    },
    parts={
        "python": Part("<|python_start|>", "<|python_end|>", learned=True),
        "python_output": Part("<|output_start|>", "<|output_end|>", learned=False),
    },
    pad="<|assistant_end|>",
)
"""nanochat's: each side has its tokens, and tool calls and their outputs theirs."""

CHATML = ChatTemplate(
    name="chatml",
    special_tokens=("<|im_start|>", "<|im_end|>"),
    turns={role: Turn(f"<|im_start|>{role}\n", "<|im_end|>", "\n") for role in ("user", "assistant", "system")},
    pad="<|im_end|>",
)
"""ChatML, as Qwen and others use it: no BOS, roles are words."""

LLAMA3 = ChatTemplate(
    name="llama3",
    special_tokens=("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    bos="<|begin_of_text|>",
    turns={
        role: Turn(f"<|start_header_id|>{role}<|end_header_id|>\n\n", "<|eot_id|>")
        for role in ("user", "assistant", "system")
    },
    pad="<|eot_id|>",
    trim=True,
)
"""Llama 3's: headers, an empty line, and what is said without white space around it."""

TEMPLATES = {template.name: template for template in (NANOCHAT, CHATML, LLAMA3)}
