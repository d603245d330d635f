"""What lies where in a batch and where it came from: for attention within documents, for logs, and for leaving out.

    for inputs_BT, targets_BT, documents in TokenLoader(…, return_documents=True):
        documents.cu_seqlens[: documents.num_segments + 1], documents.max_seqlen  # varlen attention
        documents.document_ids_BT  # flex attention's mask
        documents.positions_BT  # rotary positions
        documents.pieces[n], documents.name(n)  # where piece n came from

A segment is a stretch of a row that is one piece of a document, its BOS included, or padding. Segments tile every row:
none crosses the end of one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nanofast.errors import InvalidError, WrongTypeError

PADDING = -1

_FIELDS = "row column num_positions has_bos file row_group document_row first_token num_tokens".split()
PIECE = np.dtype([(name, np.int64) for name in _FIELDS])
"""Of a piece: its row in the batch, first column, positions (its BOS among them), and whether a BOS of the loader's is
the first; then index of the file, row group, row, first token and number of tokens of the document."""

DocumentName = tuple[str, int, int]
Excluded = str | os.PathLike[str] | Iterable[str | DocumentName]


@dataclass(frozen=True)
class BatchDocuments:
    """The documents of one batch of B rows and T inputs; tensors where the batch is one, else numpy arrays.

    `cu_seqlens` int32 [B·T + 1]: where segments begin among the B·T inputs, row by row; behind the last segment it is
    filled with B·T. `num_segments`, `max_seqlen`: how many there are, and the longest.
    `positions_BT` int32: position within its segment. `document_ids_BT` int32: number of its piece, -1 for padding.
    `pieces`: a numpy array of `PIECE`, in the order of their ids; `files`: names of the files that they count.
    """

    cu_seqlens: Any
    num_segments: int
    max_seqlen: int
    positions_BT: Any
    document_ids_BT: Any
    pieces: np.ndarray[Any, Any]
    files: tuple[str, ...]

    def name(self, piece: int) -> str:
        """The document of a piece as `FILE:ROW_GROUP:ROW`, which `exclude=` takes."""
        found = self.pieces[piece]
        return f"{self.files[found['file']]}:{found['row_group']}:{found['document_row']}"

    def to(self, device: Any) -> BatchDocuments:
        """The same as tensors on a device of torch."""
        import torch

        def moved(array: Any) -> Any:
            return torch.as_tensor(array).to(device, non_blocking=True)

        return replace(
            self,
            cu_seqlens=moved(self.cu_seqlens),
            positions_BT=moved(self.positions_BT),
            document_ids_BT=moved(self.document_ids_BT),
        )


def batch_documents(numbers: np.ndarray[Any, Any], shape: tuple[int, int], files: tuple[str, ...]) -> BatchDocuments:
    """From the native loader's numbers, `len(PIECE)` a piece, and the shape [B, T] of the inputs."""
    B, T = shape
    pieces = np.ascontiguousarray(numbers, np.int64).view(PIECE)
    ids_BC = np.full((B, T + 1), PADDING, np.int32)
    starts_BC = np.zeros((B, T + 1), np.bool_)
    starts_BC[:, 0] = True
    for number, piece in enumerate(pieces):
        row, column, end = piece["row"], piece["column"], piece["column"] + piece["num_positions"]
        ids_BC[row, column:end] = number
        starts_BC[row, column] = True
        if end <= T:
            starts_BC[row, end] = True  # of the next piece, or of padding
    ids_BT, starts = ids_BC[:, :T], np.flatnonzero(starts_BC[:, :T])
    cu_seqlens = np.full(B * T + 1, B * T, np.int32)
    cu_seqlens[: len(starts)] = starts
    lengths = np.diff(starts, append=B * T)
    positions = np.arange(B * T) - np.repeat(starts, lengths)
    return BatchDocuments(
        cu_seqlens=cu_seqlens,
        num_segments=len(starts),
        max_seqlen=int(lengths.max()),
        positions_BT=positions.reshape(B, T).astype(np.int32),
        document_ids_BT=np.ascontiguousarray(ids_BT),
        pieces=pieces,
        files=files,
    )


def document_names(exclude: Excluded | None) -> list[DocumentName]:
    """What `exclude=` names: names as `FILE:ROW_GROUP:ROW` or as (file, row group, row), or a file of such lines.

    Raises:
        nanofast.Error: a file that cannot be read, or a name that is none.
    """
    if exclude is None:
        return []
    if isinstance(exclude, str | os.PathLike):
        path = Path(exclude)
        try:
            names: Sequence[str | DocumentName] = [
                line for line in map(str.strip, path.read_text("utf-8").splitlines()) if line
            ]
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidError(f"exclude: cannot read `{path}`: {error}") from error
    else:
        names = list(exclude)
    return [_document_name(name) for name in names]


def _document_name(name: str | DocumentName) -> DocumentName:
    parts: tuple[Any, ...] = tuple(name.rsplit(":", 2)) if isinstance(name, str) else tuple(name)
    if len(parts) != 3:
        raise InvalidError(f"exclude: `{name}` names no document; expected FILE:ROW_GROUP:ROW")
    file, row_group, row = parts
    try:
        numbers = int(row_group), int(row)
    except ValueError as error:
        raise InvalidError(f"exclude: `{name}` names no document; expected FILE:ROW_GROUP:ROW") from error
    if not isinstance(file, str) or min(numbers) < 0:
        raise WrongTypeError(f"exclude: {name!r} names no document; expected a file's name, a row group and a row")
    return (file, *numbers)
