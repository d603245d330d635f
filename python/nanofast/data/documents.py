"""Documents of inputs as UTF-8: .txt, .jsonl, .csv (plain, .gz, .zst), parquet, Hugging Face data sets, source code.

An input is read from front to back with bounded memory. Its documents have numbers; the same input gives the same ones,
so a number is a place to go on from.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanofast.data.compressed import opened
from nanofast.data.inputs import HUB_PREFIX, Input
from nanofast.errors import InvalidError

# A file of text without a separator is one document; what is larger is a corpus in a file.
MOST_BYTES = 64 << 20
READ_BYTES = 1 << 20


class DocumentError(InvalidError):
    """An input that cannot be read, in one line."""


@dataclass(frozen=True)
class Reading:
    """How documents are taken from files."""

    column: str = "text"
    """Field of JSON lines, header of CSV, column of parquet and data sets."""
    separator: str | None = None
    """What stands between the documents of a text file; None: a file is a document."""
    split: str = "train"
    """Split of a data set."""
    skip_bad: bool = False
    """Leave out what is no valid text, where it is an error otherwise."""
    most_bytes: int | None = MOST_BYTES
    """Largest text file, line or part between separators, which is held in memory whole; None: as large as it is."""


def documents(source: Input, reading: Reading) -> Iterator[bytes | None]:
    """The documents of an input; None stands for one that was left out (null, or not valid text and `skip_bad`).

    Raises:
        DocumentError: names the file and the line or document. InvalidError: a file that is damaged.
    """
    yield from _READERS[source.format](source, reading)


def _checked(text: Any, place: str, reading: Reading) -> bytes | None:
    """The text in UTF-8, if there is one."""
    if text is None:
        return None
    if not isinstance(text, (str, bytes)):
        raise DocumentError(f"{place}: `{reading.column}` is {type(text).__name__}; expected text; pass --column")
    try:
        if isinstance(text, str):
            return text.encode()
        text.decode()
        return text
    except (UnicodeEncodeError, UnicodeDecodeError) as error:
        if reading.skip_bad:
            return None
        unit = "character" if isinstance(text, str) else "byte"
        raise DocumentError(
            f"{place}: no valid UTF-8 at {unit} {error.start}; re-encode it, or have `prepare --skip-bad` leave it out"
        ) from None


def _text(source: Input, reading: Reading) -> Iterator[bytes | None]:
    most = reading.most_bytes
    with opened(source.path) as file:
        if reading.separator is None:
            text = file.read(-1 if most is None else most + 1)
            if most is not None and len(text) > most:
                raise DocumentError(
                    f"`{source.path}` has more than {most >> 20} MiB and would be one document; pass "
                    r"--separator, such as '\n\n' or '<|endoftext|>'"
                )
            yield _checked(text, f"`{source.path}`", reading)
            return
        number, rest, separator = 0, b"", reading.separator.encode()
        while chunk := file.read(READ_BYTES):
            # The rest holds no separator but perhaps the beginning of one, so it is searched with what comes behind it.
            *whole, rest = (rest + chunk).split(separator)
            for text in whole:
                yield _checked(text, f"`{source.path}`, document {number}", reading)
                number += 1
            if most is not None and len(rest) > most:
                raise DocumentError(
                    f"`{source.path}`, document {number}: more than {most >> 20} MiB without a separator"
                )
        if rest:
            yield _checked(rest, f"`{source.path}`, document {number}", reading)


def _lines(source: Input, reading: Reading) -> Iterator[str]:
    """Lines with their ends; bytes that are no UTF-8 come as lone surrogates."""
    most = -1 if reading.most_bytes is None else reading.most_bytes
    with opened(source.path) as file:
        number = 0
        while line := file.readline(most + 1 if most >= 0 else -1):
            number += 1
            if 0 <= most < len(line):
                raise DocumentError(f"`{source.path}`, line {number}: more than {most >> 20} MiB; split it into lines")
            yield line.decode("utf-8", "surrogateescape")


def _json(source: Input, reading: Reading) -> Iterator[bytes | None]:
    for number, line in enumerate(_lines(source, reading), 1):
        if line.isspace():
            continue
        place = f"`{source.path}`, line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DocumentError(f"{place}: no JSON ({error}); repair the line, or take it out") from None
        yield _checked(_field(row, place, reading), place, reading)


def _csv(source: Input, reading: Reading) -> Iterator[bytes | None]:
    csv.field_size_limit(1 << 30)
    rows = csv.DictReader(_lines(source, reading), strict=True)
    try:
        for row in rows:
            place = f"`{source.path}`, line {rows.line_num}"
            yield _checked(_field(row, place, reading), place, reading)
    except csv.Error as error:
        raise DocumentError(f"`{source.path}`, behind line {rows.line_num}: no CSV ({error})") from None


def _field(row: Any, place: str, reading: Reading) -> Any:
    if not isinstance(row, dict) or reading.column not in row:
        there = ", ".join(f"`{name}`" for name in row if name) if isinstance(row, dict) else type(row).__name__
        raise DocumentError(f"{place}: no `{reading.column}` (has: {there or 'nothing'}); pass --column")
    return row[reading.column]


def _parquet(source: Input, reading: Reading) -> Iterator[bytes | None]:
    from nanofast._nanofast import DocumentReader

    for number, text in enumerate(DocumentReader(source.path, reading.column)):
        yield _checked(text, f"`{source.path}`, document {number}", reading)


def _code(source: Input, reading: Reading) -> Iterator[bytes | None]:
    """A source file; what is binary, or too large to have been written by hand, is no document."""
    if reading.most_bytes is not None and (source.size_bytes or 0) > reading.most_bytes:
        yield None
        return
    content = Path(source.path).read_bytes()
    try:
        content.decode()
    except UnicodeDecodeError:
        yield None
    else:
        yield None if b"\0" in content else content


def _dataset(source: Input, reading: Reading) -> Iterator[bytes | None]:
    """Through `datasets`: one that was saved to disk, or one of the hub, streamed."""
    try:
        import datasets
    except ImportError:
        raise DocumentError(f"`{source.path}` needs datasets; get it: pip install 'nanofast[prepare]'") from None
    if source.path.startswith(HUB_PREFIX):
        name, _, config = source.path.removeprefix(HUB_PREFIX).partition(":")
        rows: Any = datasets.load_dataset(name, config or None, split=reading.split, streaming=True)
    else:
        rows = datasets.load_from_disk(source.path)
        if isinstance(rows, dict):
            if reading.split not in rows:
                raise DocumentError(
                    f"`{source.path}` has no split `{reading.split}`; pass --split, {' or '.join(rows)}"
                )
            rows = rows[reading.split]
    for number, row in enumerate(rows):
        place = f"`{source.path}`, document {number}"
        yield _checked(_field(row, place, reading), place, reading)


_READERS = {
    "text": _text,
    "json": _json,
    "csv": _csv,
    "parquet": _parquet,
    "code": _code,
    "dataset": _dataset,
}
