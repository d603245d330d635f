"""Conversations rendered slowly, in plain Python: what every id and mask must be by nanochat's rules.

`render(conversation, tokenizer)` gives (ids, mask) with one call of the tokenizer for each thing said. Written from the
rules, apart from the Rust code, so that the two can disagree.
"""

from __future__ import annotations

import random
from typing import Any

import nanofast

Rendered = tuple[list[int], list[bool]]


def nanochat_tokenizer(base: str = "r50k_base") -> nanofast.Tokenizer:
    return nanofast.Tokenizer.from_name(base).with_special_tokens(
        nanofast.ChatTemplate.from_name("nanochat").special_tokens
    )


def render(conversation: list[dict[str, Any]], tokenizer: Any) -> Rendered:
    ids: list[int] = []
    mask: list[bool] = []

    def special(name: str, learned: bool) -> None:
        ids.append(tokenizer.special_tokens[f"<|{name}|>"])
        mask.append(learned)

    def text(said: str, learned: bool) -> None:
        found = tokenizer.encode(said).tolist()
        ids.extend(found)
        mask.extend([learned] * len(found))

    messages = list(conversation)
    if messages[0]["role"] == "system":
        merged = messages[0]["content"] + "\n\n" + messages[1]["content"]
        messages = [{"role": "user", "content": merged}, *messages[2:]]
    special("bos", False)
    for index, message in enumerate(messages):
        assert message["role"] == ("user", "assistant")[index % 2]
        learned = message["role"] == "assistant"
        special(f"{message['role']}_start", False)
        if isinstance(message["content"], str):
            text(message["content"], learned)
        else:
            for part in message["content"]:
                if part["type"] == "text":
                    text(part["text"], learned)
                elif part["type"] == "python":
                    special("python_start", True)
                    text(part["text"], True)
                    special("python_end", True)
                else:
                    special("output_start", False)
                    text(part["text"], False)
                    special("output_end", False)
        special(f"{message['role']}_end", learned)
    return ids, mask


WORDS = ["tree", " of", " data", "\n", "  ", "<|bos|>", "<|user_end|>", "é", "名前", "🙂", "1234", "\x1c", "don't", ""]


def random_conversation(rng: random.Random, num_words: int = 12, parts: bool = False) -> list[dict[str, Any]]:
    """One to four turns, at times a system message, a last word of the user, or parts."""

    def said() -> str:
        return "".join(rng.choice(WORDS) for _ in range(rng.randint(0, num_words)))

    messages: list[dict[str, Any]] = []
    if rng.random() < 0.2:
        messages.append({"role": "system", "content": said()})
    for _ in range(rng.randint(1, 4)):
        messages.append({"role": "user", "content": said()})
        content: Any = said()
        if parts:
            kinds = [rng.choice(["text", "python", "python_output"]) for _ in range(rng.randint(0, 4))]
            content = [{"type": kind, "text": said()} for kind in kinds]
        messages.append({"role": "assistant", "content": content})
    if rng.random() < 0.1:
        messages.append({"role": "user", "content": said()})
    return messages


def random_conversations(seed: int, count: int, **options: Any) -> list[list[dict[str, Any]]]:
    rng = random.Random(seed)
    return [random_conversation(rng, **options) for _ in range(count)]


def stream_of(
    conversations: list[Any], tokenizer: Any, packing: str, length: int, group: int = 7
) -> list[list[Rendered | None]]:
    """Row groups of rendered conversations, for the stream's twin; None where a row of `length` tokens could not learn
    from one, or it is None itself."""
    rendered = [None if conversation is None else render(conversation, tokenizer) for conversation in conversations]
    if packing == "concat":
        rendered = [found and (found[0], [True] * len(found[0])) for found in rendered]
    kept = [found if found and any(found[1][1:length]) else None for found in rendered]
    return [kept[start : start + group] for start in range(0, len(kept), group)]
