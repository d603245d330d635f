"""An assistant's answer to a conversation, token by token.

for token in answer(model, tokenizer, template, [{"role": "user", "content": "hi"}], num_tokens=100): ...
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nanofast.chat_template import ChatTemplate
from nanofast.config import ConfigError
from nanofast.generate import sample
from nanofast.model import GPT

Messages = Sequence[Mapping[str, Any]]


def prompt_ids(tokenizer: Any, template: ChatTemplate, messages: Messages) -> list[int]:
    """The tokens of a conversation up to where the assistant begins to speak."""
    ids, _ = tokenizer.render(list(messages), template, add_generation_prompt=True)
    return [int(token) for token in ids]


def end_tokens(tokenizer: Any, template: ChatTemplate) -> set[int]:
    """Ids that end an answer: every special token but those around the parts of one.

    A small model does not always close its message; when it goes on with another's turn, the answer is over too.
    """
    return {number for token, number in tokenizer.special_tokens.items() if token not in template.part_tokens}


def answer(
    model: GPT,
    tokenizer: Any,
    template: ChatTemplate,
    messages: Messages,
    num_tokens: int,
    *,
    temperature: float = 0.8,
    top_k: int = 50,
    top_p: float = 1.0,
    seed: int = 0,
) -> Iterator[int]:
    """Yield the answer's tokens until the model ends its message (see `end_tokens`).

    There are at most `num_tokens`, and no more than the model's context holds.

    Raises ConfigError when the conversation alone is longer than the context.
    """
    ids = prompt_ids(tokenizer, template, messages)
    if len(ids) > model.config.sequence_length:
        raise ConfigError(
            f"the conversation has {len(ids)} tokens; the model's context holds {model.config.sequence_length}; begin "
            "another one"
        )
    ends = end_tokens(tokenizer, template)
    for ids_B in sample(model, ids, num_tokens, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed):
        token = int(ids_B[0])
        if token in ends:
            return
        yield token


def answer_text(
    model: GPT, tokenizer: Any, template: ChatTemplate, messages: Messages, num_tokens: int, **how: Any
) -> str:
    """The whole answer as text; special tokens that the model put into it are shown as such."""
    return str(tokenizer.decode(list(answer(model, tokenizer, template, messages, num_tokens, **how))))
