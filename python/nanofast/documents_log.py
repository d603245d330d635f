"""Which documents were in which step, kept beside a run (`--log-documents`): some bytes a piece, as parquet.

    loader = DocumentsLog(loader, run_dir / "documents", rank, batches_a_step)   # stands in for the loader
    inputs_BT, targets_BT = next(loader)
    loader.state_dict()        # writes RUN/documents/00000100-00000200.rank0.parquet: steps 101 to 200
    read_step(run_dir / "documents", 150)

A file is written whenever a state is taken, so before the checkpoint that holds the state, and has its name when it is
whole. So every step that a checkpoint knows is in the log, and steps that are trained again after a crash are in it
once.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nanofast.config import ConfigError
from nanofast.data.aside import publish

LOG = "documents"  # in a run's folder

_NAME = re.compile(r"(\d+)-(\d+)\.rank(\d+)\.parquet")
_INT32 = ("step", "batch", "row", "column", "row_group", "document_row", "num_tokens")
_log = logging.getLogger("nanofast")


def _pyarrow() -> Any:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ConfigError("log_documents: parquet is written through pyarrow: pip install pyarrow") from error
    return pyarrow


class DocumentsLog:
    """A `TokenLoader` with `return_documents=True`: its batches are `(inputs, targets)`, their documents are kept."""

    def __init__(self, loader: Any, folder: Path, rank: int, batches_a_step: int) -> None:
        _pyarrow()  # better said now than at the first checkpoint
        self.loader = loader
        self.folder = folder
        self.rank = rank
        self.batches_a_step = batches_a_step
        self.written = 0  # steps whose documents are in files
        self.pieces: list[np.ndarray[Any, Any]] = []  # of each batch since then
        self.files: tuple[str, ...] = ()

    def __iter__(self) -> DocumentsLog:
        return self

    def __next__(self) -> tuple[Any, Any]:
        inputs_BT, targets_BT, documents = next(self.loader)
        self.pieces.append(documents.pieces)
        self.files = documents.files
        return inputs_BT, targets_BT

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)

    def begin_at(self, step: int) -> None:
        """So many steps are done. What the log has of later ones belongs to a run that was not saved, and goes."""
        self.written, self.pieces = step, []
        for path, _, last, rank in _files(self.folder):
            if rank == self.rank and last > step:
                path.unlink()

    def state_dict(self) -> dict[str, Any]:
        """The loader's, once the documents up to it are written."""
        try:
            self._write()
        except OSError as error:  # the pieces stay for the next time
            _log.warning("the documents of the last steps could not be written down yet: %s", error)
        state: dict[str, Any] = self.loader.state_dict()
        return state

    def _write(self) -> None:
        num_steps = len(self.pieces) // self.batches_a_step
        if num_steps == 0:
            return
        pyarrow = _pyarrow()
        batches = self.pieces[: num_steps * self.batches_a_step]
        counts = [len(pieces) for pieces in batches]
        number, pieces = np.repeat(np.arange(len(batches)), counts), np.concatenate(batches)
        columns: dict[str, Any] = {name: pieces[name] for name in pieces.dtype.names or ()}
        columns["step"] = self.written + 1 + number // self.batches_a_step
        columns["batch"] = number % self.batches_a_step
        arrays = {name: pyarrow.array(columns[name].astype(np.int32)) for name in _INT32}
        arrays["first_token"] = pyarrow.array(columns["first_token"])
        arrays["file"] = pyarrow.DictionaryArray.from_arrays(columns["file"].astype(np.int32), list(self.files))
        last = self.written + num_steps
        final = self.folder / f"{self.written:08d}-{last:08d}.rank{self.rank}.parquet"
        aside = final.with_name(f".{final.name}.partial")
        self.folder.mkdir(parents=True, exist_ok=True)
        encodings = dict.fromkeys((*_INT32, "first_token"), "DELTA_BINARY_PACKED")
        options = {"compression": "zstd", "use_dictionary": ["file"], "column_encoding": encodings}
        pyarrow.parquet.write_table(pyarrow.table(arrays), aside, **options)
        publish(aside, final)
        self.written, self.pieces = last, self.pieces[len(batches) :]


def _files(folder: Path) -> Iterator[tuple[Path, int, int, int]]:
    """Each file with the steps behind which it begins and ends, and its rank; in order."""
    if folder.is_dir():
        for path in sorted(folder.iterdir()):
            if found := _NAME.fullmatch(path.name):
                first, last, rank = map(int, found.groups())
                yield path, first, last, rank


def read_step(folder: Path, step: int) -> list[dict[str, Any]]:
    """The pieces of a step, rank by rank in the order of its batches; nothing where the log does not have it.

    Of each: `document` (FILE:ROW_GROUP:ROW), `first_token`, `num_tokens`, `rank`, `batch`, `row`, `column`.
    """
    found = []
    for path, first, last, rank in sorted(_files(folder), key=lambda file: file[3]):
        if first < step <= last:
            rows = _pyarrow().parquet.read_table(path, filters=[("step", "=", step)]).to_pylist()
            for row in rows:
                document = f"{row['file']}:{row['row_group']}:{row['document_row']}"
                kept = {name: row[name] for name in ("first_token", "num_tokens", "batch", "row", "column")}
                found.append({"document": document, "rank": rank, **kept})
    return found
