"""`python -m nanofast.data inspect PATH --chat`: conversations as tokens, with what is learned in colour.

▏<|bos|><|user_start|>hi<|user_end|><|assistant_start|>hello<|assistant_end|>     17 tokens, 6 learned
                                                       green
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from nanofast import _nanofast
from nanofast.chat_template import ChatTemplate
from nanofast.data import show
from nanofast.data.amounts import whole_number
from nanofast.errors import InvalidError
from nanofast.remote import remote_json

if TYPE_CHECKING:
    import argparse

    from nanofast.tokenizer import Tokenizer

Rendered = tuple[list[int], list[bool]]

LEARNED, OTHER, OFF = "\x1b[32m", "\x1b[2m", "\x1b[0m"  # green; dim


def coloured(tokenizer: Tokenizer, ids: Sequence[int], mask: Sequence[bool], colour: bool = True) -> str:
    """The text of a conversation, learned tokens green and others dim; without colour, learned ones in ⟦ ⟧."""
    begins, ends = ({True: LEARNED, False: OTHER}, OFF) if colour else ({True: "⟦", False: ""}, "")
    text = ""
    for learned, group in groupby(zip(ids, mask, strict=True), key=lambda pair: bool(pair[1])):
        said = tokenizer.decode([int(token) for token, _ in group])
        text += begins[learned] + said + (ends or ("⟧" if learned else ""))
    return text


def rendered(path: str, tokenizer: Tokenizer, template: ChatTemplate, count: int, **source: Any) -> Iterator[Rendered]:
    """The first conversations of a data set, one after the other: (ids, which of them are learned)."""
    for file in _nanofast.find_conversations(path, remote_json([str(path)], None)):
        found = _nanofast.render_rows(tokenizer._native, template.arguments(**source), file, count)
        yield from ((ids.tolist(), mask.tolist()) for ids, mask in found)
        count -= len(found)
        if count == 0:
            return


def shown(tokenizer: Tokenizer, conversations: Iterable[Rendered], *, colour: bool) -> Iterator[str]:
    """Conversations as text, each with its counts."""
    for ids, mask in conversations:
        yield f"▏{coloured(tokenizer, ids, mask, colour)}"
        yield f"  {len(ids)} tokens, {sum(mask)} learned ({sum(mask) / len(ids):.0%})\n"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The part of the command line that is about conversations."""
    group = parser.add_argument_group("conversations")
    group.add_argument("--chat", action="store_true", help="show conversations, and which of their tokens are learned")
    group.add_argument("--template", default="nanochat", help="nanochat, chatml or llama3 (nanochat)")
    group.add_argument("--layout", default="messages", help="messages, sharegpt or alpaca (messages)")
    group.add_argument("--messages-column", metavar="NAME", help="the column of the messages")
    group.add_argument("--count", type=whole_number, default=3, metavar="N", help="conversations to show (3)")
    group.add_argument("--no-colour", action="store_true", help="mark learned tokens by ⟦ ⟧ instead")


def run(arguments: argparse.Namespace, tokenizer: Tokenizer | None) -> int:
    """The command."""
    if tokenizer is None:
        raise InvalidError("--chat takes a tokenizer: pass --tokenizer NAME_OR_FILE, for example r50k_base")
    if arguments.batch is not None:
        raise InvalidError("--batch shows packed text; with --chat leave it out")
    template = ChatTemplate.from_name(arguments.template)
    tokenizer = tokenizer.with_special_tokens(template.special_tokens)
    source = {"layout": arguments.layout, "messages_column": arguments.messages_column}
    conversations = list(rendered(arguments.path, tokenizer, template, arguments.count, **source))
    if arguments.html is not None:
        from rich.text import Text

        lines = shown(tokenizer, conversations, colour=not arguments.no_colour)
        arguments.html.write_text(show.as_html(*map(Text.from_ansi, lines)), "utf-8")
    if arguments.json:
        found = [{"text": tokenizer.decode(ids), "ids": ids, "learned": mask} for ids, mask in conversations]
        print(json.dumps(found, indent=2))
        return 0
    for line in shown(tokenizer, conversations, colour=not arguments.no_colour and sys.stdout.isatty()):
        print(line)
    return 0
