"""ChatLoader: conversations in, batches of tokens out, through the pipeline of `TokenLoader`.

    messages ──▶ rendered by a template: ids, each learned or not ──▶ packed as documents that bring their own BOS
    inputs_BT int32, targets_BT int64, -1 wherever the loss mask is 0 and on padding

What `TokenLoader` promises holds: the stream is a function, resume is exact and elastic, epochs end together.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nanofast import _nanofast
from nanofast.chat_template import ChatTemplate
from nanofast.errors import InvalidError, WrongTypeError
from nanofast.home import home_folder
from nanofast.loader import TokenLoader
from nanofast.mixture import Data, Mixture
from nanofast.remote import Remote, remote_json

if TYPE_CHECKING:
    from nanofast.tokenizer import Tokenizer

ChatData = Data | Mapping[str, int] | Mixture


class ChatLoader(TokenLoader):
    """An iterator of `(inputs, targets)`: int32 `[B, T]` and int64 `[B, T]` on `device`; with `one_per_row`, T is the
    longest conversation of the batch less one.

    Args:
        data: parquet or JSONL files, folders, globs, or a list of these; or a mapping of these to how often each is
            listed in an epoch; or a `Mixture`. JSONL is taken as row groups of 1,000 lines.
        tokenizer: a `nanofast.Tokenizer` that has the template's special tokens (see `with_special_tokens`).
        batch_size: rows a batch, B.
        sequence_length: inputs a row, T; with one_per_row the most there are.
        template: a `ChatTemplate`, or the name of one: nanochat, chatml, llama3.
        layout: "messages" (a list of role and content, content a text or a list of parts), "sharegpt" (a list of from
            and value) or "alpaca" (columns instruction, input, output). A text column of the list's name holds JSON.
        messages_column: the list's column; None: messages, or conversations with sharegpt.
        text_column: with concat, shards without messages join as plain text of this column.
        packing: "best_fit" (whole conversations, the rest of a row padded), "one_per_row", or "concat" (one endless
            stream for mid-training; every token is learned, whoever speaks).
        overflow: "pad", the only one for conversations.
        too_long: what becomes of a conversation longer than a row (with concat none is): "cut_end", "cut_left" (its
            BOS stays) or "leave_out". One without a learned token in what is left of it is left out. `metrics()`
            counts and lists them.
        split: "train", "val" or None, as for `TokenLoader`; data sets that count more than once are not split.
        index_folder: where indexes of JSONL files are kept; None: in NANOFAST_HOME.
        **options: as for `TokenLoader`, `pad_id` being the template's by default; with `return_documents` a
            conversation begins wherever a piece's first token is its token 0, and `cu_seqlens` has the borders for
            varlen attention.

    Raises:
        nanofast.Error: as `TokenLoader`; a row that is no conversation names file, row and message.
    """

    def __init__(
        self,
        data: ChatData,
        tokenizer: Tokenizer,
        batch_size: int,
        sequence_length: int,
        *,
        template: ChatTemplate | str = "nanochat",
        layout: str = "messages",
        messages_column: str | None = None,
        text_column: str = "text",
        packing: str = "best_fit",
        overflow: str = "pad",
        too_long: str = "cut_end",
        split: str | None = None,
        index_folder: str | os.PathLike[str] | None = None,
        **options: Any,
    ) -> None:
        own = {name: value for name, value in locals().items() if name not in ("self", "options", "__class__")}
        self.template = template if isinstance(template, ChatTemplate) else ChatTemplate.from_name(template)
        folder = home_folder() / "line_indexes" if index_folder is None else index_folder
        self._chat_json = self.template.arguments(
            layout=layout,
            messages_column=messages_column,
            text_column=text_column if packing == "concat" else None,
            too_long=too_long,
            index_folder=folder,
        )
        paths, split = _listed(data, split, options.get("remote"))
        super().__init__(
            paths,
            tokenizer,
            batch_size,
            sequence_length,
            packing=packing,
            overflow=overflow,
            split=split,
            **options,
        )
        self._arguments = {**self._arguments, **own}

    def _bos_and_pad(self, tokenizer: Tokenizer, bos_token: str | None, pad_id: int | None) -> tuple[int, int]:
        """Conversations bring their own BOS. A token that is missing is refused later, with all that are."""
        if bos_token is not None:
            raise InvalidError(f"bos_token = `{bos_token}`: conversations have the BOS of their template")
        template_pad = tokenizer.special_tokens.get(self.template.pad, 0)
        return template_pad, template_pad if pad_id is None else pad_id

    def metrics(self) -> dict[str, Any]:
        """As `TokenLoader.metrics`, and of the positions delivered `learned_share` and `padding_share`.

        `ledger` counts conversations that were `cut`, `left_out_long` and `left_out_unlearned`; `left_out` lists the
        first of the latter two as (place, reason), read-ahead included.
        """
        metrics = super().metrics()
        ledger = metrics["ledger"]
        positions = max(1, sum(ledger[kind] for kind in ("learned", "masked", "bos", "padding")))
        metrics["learned_share"] = ledger["learned"] / positions
        metrics["padding_share"] = ledger["padding"] / positions
        return metrics


def _listed(data: ChatData, split: str | None, remote: Remote | None) -> tuple[list[str] | Mixture, str | None]:
    """Every shard as often as it counts, and the split that is left for the plan to make.

    The last shard is the validation split, so it is counted once and is in no other.
    """
    if isinstance(data, Mixture):
        return data, split
    if not isinstance(data, Mapping):
        paths = [os.fspath(data)] if isinstance(data, str | os.PathLike) else [os.fspath(path) for path in data]
        return paths, split
    counted: list[tuple[str, int]] = []
    for path, count in data.items():
        if isinstance(count, bool) or not isinstance(count, int):
            raise WrongTypeError(f"data[{path!r}] = {count!r}: expected how often it is listed, a whole number")
        if count < 1:
            raise InvalidError(f"data[{path!r}] = {count}: must be at least 1; leave the data set out instead")
        found = _nanofast.find_conversations(os.fspath(path), remote_json([os.fspath(path)], remote))
        counted += [(str(shard), count) for shard in found]
    if split is not None and len(counted) == 1 and counted[0][1] > 1:
        raise InvalidError(
            f"split = `{split}`: a single shard that is listed {counted[0][1]} times cannot be split; list it once, or "
            "give the validation data apart"
        )
    if split == "val" and len(counted) > 1:
        counted, split = [(counted[-1][0], 1)], None
    elif split == "train" and len(counted) > 1:
        counted, split = counted[:-1], None
    return [path for path, count in counted for _ in range(count)], split
