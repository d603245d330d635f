"""The text of a step that was skipped, kept for whoever wants to know why: `RUN/skipped/step_…_rank_….jsonl`.

One line a document or piece of one, as it lay in the rows of this rank: micro-batch, row, place in the row, text.

    path, count = write_documents(run_dir, step, rank, inputs, tokenizer)
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor


def documents(inputs: Sequence[Tensor], tokenizer: Any) -> Iterator[dict[str, Any]]:
    """The pieces between BOS tokens of all rows [B, T] of a step's micro-batches."""
    for batch, inputs_BT in enumerate(inputs):
        for row, ids in enumerate(inputs_BT.cpu().tolist()):
            starts = [0, *(place for place, token in enumerate(ids) if token == tokenizer.bos_id and place > 0)]
            for start, end in zip(starts, [*starts[1:], len(ids)], strict=True):
                piece = [token for token in ids[start:end] if token != tokenizer.bos_id]
                if piece:
                    yield {"batch": batch, "row": row, "token": start, "text": tokenizer.decode(piece)}


def write_documents(run_dir: Path, step: int, rank: int, inputs: Sequence[Tensor], tokenizer: Any) -> tuple[Path, int]:
    """Write them down; the file and how many there are."""
    path = run_dir / "skipped" / f"step_{step:08d}_rank_{rank}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(piece, ensure_ascii=False) for piece in documents(inputs, tokenizer)]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path, len(lines)
