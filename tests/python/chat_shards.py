"""Conversations for tests, their files (parquet in the usual shapes, and JSONL), and batches to compare."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

MESSAGE = pa.struct([("role", pa.string()), ("content", pa.string())])
PART = pa.struct([("type", pa.string()), ("text", pa.string())])
MESSAGE_OF_PARTS = pa.struct([("role", pa.string()), ("content", pa.list_(PART))])

PACKINGS: dict[str, dict[str, Any]] = {
    "pad": {},
    "one_per_row": {"packing": "one_per_row"},
    "concat": {"packing": "concat"},
}


def say(question: str, answer: str) -> list[dict[str, Any]]:
    """One turn of each side."""
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def as_lists(batches: Any, count: int | None = None) -> list[tuple[Any, Any]]:
    """The first `count` batches, or all."""
    return [(inputs.tolist(), targets.tolist()) for inputs, targets in itertools.islice(batches, count)]


def write_parquet(
    path: Path, conversations: list[Any], *, message: pa.DataType = MESSAGE, column: str = "messages", **options: Any
) -> Path:
    array = pa.array(conversations, pa.list_(message))
    options = {"row_group_size": 7, "compression": "zstd", **options}
    pq.write_table(pa.table({column: array, "id": list(range(len(array)))}), path, **options)
    return path


def write_shards(folder: Path, shards: list[list[Any]]) -> list[Path]:
    return [write_parquet(folder / f"{index:02}.parquet", rows) for index, rows in enumerate(shards)]


def write_jsonl(path: Path, conversations: list[Any]) -> Path:
    lines = [json.dumps({"messages": conversation}, ensure_ascii=False) for conversation in conversations]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def as_parts(conversation: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same conversation with every content a list of parts."""
    return [
        {**message, "content": [{"type": "text", "text": message["content"]}]}
        if isinstance(message["content"], str)
        else message
        for message in conversation
    ]
