"""`python -m nanofast.data inspect PATH --chat`: conversations as tokens, with what is learned in colour.

▏<|bos|><|user_start|>hi<|user_end|><|assistant_start|>hello<|assistant_end|>     17 tokens, 6 learned
                                                       green
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from nanofast import _nanofast
from nanofast.chat_template import ChatTemplate
from nanofast.errors import InvalidError

if TYPE_CHECKING:
    import argparse

    from nanofast.tokenizer import Tokenizer

LEARNED, OTHER, OFF = "\x1b[32m", "\x1b[2m", "\x1b[0m"  # green; dim


def coloured(tokenizer: Tokenizer, ids: Sequence[int], mask: Sequence[bool], colour: bool = True) -> str:
    """The text of a conversation, learned tokens green and others dim; without colour, learned ones in ⟦ ⟧."""
    begins, ends = ({True: LEARNED, False: OTHER}, OFF) if colour else ({True: "⟦", False: ""}, "")
    text = ""
    for learned, group in groupby(zip(ids, mask, strict=True), key=lambda pair: bool(pair[1])):
        said = tokenizer.decode([int(token) for token, _ in group])
        text += begins[learned] + said + (ends or ("⟧" if learned else ""))
    return text


def shown(
    path: str, tokenizer: Tokenizer, template: ChatTemplate, count: int, *, colour: bool, **source: Any
) -> Iterator[str]:
    """The first conversations of a data set, one after the other, each with its counts."""
    files = _nanofast.find_conversations(path)
    for file in files:
        rendered = _nanofast.render_rows(tokenizer._native, template.arguments(**source), file, count)
        for ids, mask in rendered:
            yield f"▏{coloured(tokenizer, ids.tolist(), mask.tolist(), colour)}"
            yield f"  {len(ids)} tokens, {int(mask.sum())} learned ({mask.mean():.0%})\n"
        count -= len(rendered)
        if count == 0:
            return


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The part of the command line that is about conversations."""
    group = parser.add_argument_group("conversations")
    group.add_argument("--chat", action="store_true", help="show conversations, and which of their tokens are learned")
    group.add_argument("--template", default="nanochat", help="nanochat, chatml or llama3 (nanochat)")
    group.add_argument("--layout", default="messages", help="messages, sharegpt or alpaca (messages)")
    group.add_argument("--messages-column", metavar="NAME", help="the column of the messages")
    group.add_argument("--count", type=int, default=3, metavar="N", help="conversations to show (3)")
    group.add_argument("--no-colour", action="store_true", help="mark learned tokens by ⟦ ⟧ instead")


def run(arguments: argparse.Namespace, tokenizer: Tokenizer | None) -> int:
    """The command."""
    if arguments.count < 1:
        raise InvalidError(f"--count must be at least 1; found {arguments.count}")
    if tokenizer is None:
        raise InvalidError("--chat takes a tokenizer: pass --tokenizer NAME_OR_FILE, for example r50k_base")
    template = ChatTemplate.from_name(arguments.template)
    lines = shown(
        arguments.path,
        tokenizer.with_special_tokens(template.special_tokens),
        template,
        arguments.count,
        colour=not arguments.no_colour and sys.stdout.isatty(),
        layout=arguments.layout,
        messages_column=arguments.messages_column,
    )
    for line in lines:
        print(line)
    return 0
