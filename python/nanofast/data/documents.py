"""Documents from what people have: .txt, .jsonl, .csv (plain, .gz, .zst), parquet, Hugging Face datasets, source code.

    path ──▶ inputs, in the order of their names ──▶ the documents of each, in order, one at a time

An input is read from front to back with bounded memory. Its documents have numbers; the same input gives the same ones,
so a number is a place to go on from.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import TextIO

COMPRESSIONS = (".gz", ".zst")
FORMATS = {".txt": "text", ".md": "text", ".jsonl": "json", ".ndjson": "json", ".csv": "csv", ".parquet": "parquet"}
HUB_PREFIX = "hub:"
SAVED_FILES = ("state.json", "dataset_info.json")  # what a folder of `Dataset.save_to_disk` holds
# A file of text without a separator is one document; what is larger is a corpus in a file.
MOST_BYTES = 64 << 20
READ_CHARACTERS = 1 << 20
# Folders of a source tree that hold no sources of its own.
SKIPPED_FOLDERS = {"__pycache__", "node_modules", "venv", "target", "build", "dist"}


class DocumentError(ValueError):
    """An input that cannot be read, in one line."""


@dataclass(frozen=True)
class Reading:
    """How documents are taken from files."""

    column: str = "text"
    """Field of JSON lines, header of CSV, column of parquet and datasets."""
    separator: str | None = None
    """What stands between the documents of a text file; None: a file is a document."""
    hub_split: str = "train"
    """Split of a dataset."""
    skip_bad: bool = False
    """Leave out what is no valid text, where it is an error otherwise."""


@dataclass(frozen=True)
class Input:
    """A file, or a dataset."""

    path: str
    format: str
    size_bytes: int | None = None


def find_inputs(paths: list[str], *, code: bool = False) -> list[Input]:
    """The inputs that paths name: files, folders (walked in the order of names), saved datasets, `hub:OWNER/NAME`.

    Raises:
        DocumentError: a path that is not there, or nothing to read in it.
    """
    found: list[Input] = []
    for path in paths:
        if path.startswith(HUB_PREFIX) or all((Path(path) / name).is_file() for name in SAVED_FILES):
            found.append(Input(path, "dataset"))
        elif Path(path).is_dir():
            walked = [
                Input(str(file), kind, file.stat().st_size)
                for file in _walk(Path(path))
                if (kind := "code" if code else _format_of(file)) is not None
            ]
            if not walked:
                raise DocumentError(
                    f"`{path}` holds no {_known()}; pass --code to take every text file of a source tree"
                )
            found += walked
        elif Path(path).is_file():
            kind = _format_of(Path(path))
            if kind is None:
                raise DocumentError(f"`{path}` is of no known kind; expected {_known()}, plain or with .gz or .zst")
            found.append(Input(path, kind, Path(path).stat().st_size))
        else:
            raise DocumentError(f"no such file or folder: `{path}`; check the path, or write hub:OWNER/NAME")
    return found


def documents(source: Input, reading: Reading) -> Iterator[str | None]:
    """The documents of an input; None stands for one that was left out (null, or not valid text and `skip_bad`).

    Raises:
        DocumentError: names the file and the line or document.
    """
    yield from _READERS[source.format](source, reading)


def _walk(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in SKIPPED_FOLDERS)
        for name in sorted(files):
            path = Path(place, name)
            if not name.startswith((".", "_")) and path.is_file() and not path.is_symlink():
                yield path


def _format_of(path: Path) -> str | None:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    return FORMATS.get(suffixes[-1]) if suffixes else None


def _known() -> str:
    return ", ".join(FORMATS)


def _opened(path: str) -> TextIO:
    """Text of a file that may be compressed; bytes that are no UTF-8 come as lone surrogates."""
    if path.endswith(".gz"):
        binary: Any = gzip.open(path, "rb")  # noqa: SIM115  # the text wrapper closes it
    elif path.endswith(".zst"):
        binary = _zstd(path)
    else:
        binary = Path(path).open("rb")  # noqa: SIM115  # the text wrapper closes it
    return io.TextIOWrapper(binary, encoding="utf-8", errors="surrogateescape", newline="")


def _zstd(path: str) -> Any:
    try:
        from compression import zstd  # type: ignore[import-not-found,unused-ignore]  # Python 3.14

        return zstd.open(path, "rb")
    except ImportError:
        pass
    try:
        import zstandard
    except ImportError:
        raise DocumentError(f"`{path}` needs zstandard; get it: pip install 'nanofast[prepare]'") from None
    return zstandard.open(path, "rb")


def _checked(text: Any, place: str, reading: Reading) -> str | None:
    """The text, if it is one that UTF-8 can hold."""
    if text is None:
        return None
    if not isinstance(text, str):
        raise DocumentError(f"{place}: `{reading.column}` is {type(text).__name__}; expected text; pass --column")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        if reading.skip_bad:
            return None
        raise DocumentError(
            f"{place}: no valid UTF-8 at character {error.start}; re-encode it, or pass --skip-bad to leave it out"
        ) from None
    return text


def _text(source: Input, reading: Reading) -> Iterator[str | None]:
    with _opened(source.path) as file:
        if reading.separator is None:
            text = file.read(MOST_BYTES + 1)
            if len(text) > MOST_BYTES:
                raise DocumentError(
                    f"`{source.path}` has more than {MOST_BYTES >> 20} MiB and would be one document; pass "
                    r"--separator, such as '\n\n' or '<|endoftext|>'"
                )
            yield _checked(text, f"`{source.path}`", reading)
            return
        number, rest = 0, ""
        while chunk := file.read(READ_CHARACTERS):
            # The rest holds no separator but perhaps the beginning of one, so it is searched with what comes behind it.
            *whole, rest = (rest + chunk).split(reading.separator)
            for text in whole:
                yield _checked(text, f"`{source.path}`, document {number}", reading)
                number += 1
            if len(rest) > MOST_BYTES:
                raise DocumentError(
                    f"`{source.path}`, document {number}: more than {MOST_BYTES >> 20} MiB without a separator"
                )
        if rest:
            yield _checked(rest, f"`{source.path}`, document {number}", reading)


def _json(source: Input, reading: Reading) -> Iterator[str | None]:
    with _opened(source.path) as file:
        for number, line in enumerate(file, 1):
            if line.isspace():
                continue
            place = f"`{source.path}`, line {number}"
            try:
                row = json.loads(line)
            except ValueError as error:
                raise DocumentError(f"{place}: no JSON ({error}); repair the line, or take it out") from None
            yield _checked(_field(row, place, reading), place, reading)


def _csv(source: Input, reading: Reading) -> Iterator[str | None]:
    csv.field_size_limit(1 << 30)
    with _opened(source.path) as file:
        try:
            for row in (rows := csv.DictReader(file, strict=True)):
                place = f"`{source.path}`, line {rows.line_num}"
                yield _checked(_field(row, place, reading), place, reading)
        except csv.Error as error:
            raise DocumentError(f"`{source.path}`, behind line {rows.line_num}: no CSV ({error})") from None


def _field(row: Any, place: str, reading: Reading) -> Any:
    if not isinstance(row, dict) or reading.column not in row:
        there = ", ".join(f"`{name}`" for name in row if name) if isinstance(row, dict) else type(row).__name__
        raise DocumentError(f"{place}: no `{reading.column}` (has: {there or 'nothing'}); pass --column")
    return row[reading.column]


def _parquet(source: Input, reading: Reading) -> Iterator[str | None]:
    from nanofast._nanofast import DocumentReader

    for number, text in enumerate(DocumentReader(source.path, reading.column)):
        place = f"`{source.path}`, document {number}"
        yield _checked(text.decode("utf-8", "surrogateescape"), place, reading)


def _code(source: Input, reading: Reading) -> Iterator[str | None]:
    """A source file; what is binary, or too large to have been written by hand, is no document."""
    if source.size_bytes is not None and source.size_bytes > MOST_BYTES:
        yield None
        return
    content = Path(source.path).read_bytes()
    try:
        yield None if b"\0" in content else content.decode()
    except UnicodeDecodeError:
        yield None


def _dataset(source: Input, reading: Reading) -> Iterator[str | None]:
    """Through `datasets`: one that was saved to disk, or one of the hub, streamed."""
    try:
        import datasets
    except ImportError:
        raise DocumentError(f"`{source.path}` needs datasets; get it: pip install 'nanofast[prepare]'") from None
    if source.path.startswith(HUB_PREFIX):
        name, _, config = source.path.removeprefix(HUB_PREFIX).partition(":")
        rows = datasets.load_dataset(name, config or None, split=reading.hub_split, streaming=True)
    else:
        rows = datasets.load_from_disk(source.path)
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
