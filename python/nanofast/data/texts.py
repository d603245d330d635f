"""Texts of files, a batch at a time: parquet shards, JSON lines, plain text.

>>> for batch in read_texts(["shards/", "more.jsonl"]):     # doctest: +SKIP
...     print(len(batch), sum(map(len, batch)))

Order is that of the paths given, and of names within a folder or glob. Nothing is held but the batch at hand.
"""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

BATCH_BYTES = 4 << 20
"""Bytes of text in a batch, about: enough work for a thread, and little to hold."""

SUFFIXES = (".parquet", ".jsonl", ".txt")


def read_texts(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]], *, text_column: str = "text"
) -> Iterator[list[bytes]]:
    """Yield the texts of files, folders and globs as UTF-8, in batches of about 4 MB.

    A `.parquet` file has one text a row, in `text_column`; a `.jsonl` file one JSON object a line, with the text under
    that name; a `.txt` file is one text.

    Raises:
        FileNotFoundError: A path names nothing.
        ValueError: A file is of another kind, or a line of it is no such object; `nanofast.Error` from parquet.
    """
    if isinstance(paths, (str, os.PathLike)):
        paths = [paths]
    for path in paths:
        for file in find_files(path):
            yield from batches(_texts(file, text_column))


def find_files(path: str | os.PathLike[str]) -> list[Path]:
    """Return the text files that a file, folder or glob names, in the order of their names."""
    place = Path(path)
    if place.is_dir():
        files = [file for file in place.iterdir() if file.suffix in SUFFIXES and not file.name.startswith((".", "_"))]
    elif place.exists():
        files = [place]
    else:
        files = [Path(name) for name in glob.glob(str(path), recursive=True)]  # noqa: PTH207 - absolute ones, too
    if not files:
        raise FileNotFoundError(f"no texts in `{path}`; expected files that end in {', '.join(SUFFIXES)}")
    return sorted(files)


def _texts(file: Path, text_column: str) -> Iterator[bytes]:
    if file.suffix == ".parquet":
        yield from _parquet(file, text_column)
    elif file.suffix == ".jsonl":
        yield from _json_lines(file, text_column)
    elif file.suffix == ".txt":
        yield file.read_bytes()
    else:
        raise ValueError(f"`{file}` is of no known kind; expected a file that ends in {', '.join(SUFFIXES)}")


def _parquet(file: Path, text_column: str) -> Iterator[bytes]:
    from nanofast._nanofast import read_footer, read_row_group

    for index in range(len(json.loads(read_footer(file))["row_groups"])):
        yield from read_row_group(file, index, text_column)


def _json_lines(file: Path, text_column: str) -> Iterator[bytes]:
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                text = json.loads(line)[text_column]
            except (ValueError, TypeError, KeyError, RecursionError) as error:
                reason = f"no `{text_column}` in it" if isinstance(error, KeyError) else error
                raise ValueError(f'`{file}`, line {number}: {reason}; expected {{"{text_column}": …}}') from error
            if not isinstance(text, str):
                raise ValueError(
                    f"`{file}`, line {number}: `{text_column}` is {type(text).__name__}; expected a string"
                )
            # JSON may hold lone surrogates, which have no UTF-8.
            yield text.encode("utf-8", "replace")


def batches(texts: Iterator[bytes]) -> Iterator[list[bytes]]:
    """Yield the texts in batches of about 4 MB."""
    batch, num_bytes = [], 0
    for text in texts:
        batch.append(text)
        num_bytes += len(text)
        if num_bytes >= BATCH_BYTES:
            yield batch
            batch, num_bytes = [], 0
    if batch:
        yield batch
