"""Texts of files in batches, for those who count them rather than keep them.

>>> for batch in read_texts(["shards/", "more.jsonl"]):     # doctest: +SKIP
...     print(len(batch), sum(map(len, batch)))

Order is that of the paths given, and of names within a folder or glob. Nothing is held but the batch at hand.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from nanofast.data.documents import Reading, documents
from nanofast.data.inputs import find_inputs

BATCH_BYTES = 4 << 20
"""Bytes of text in a batch, about: enough work for a thread, and little to hold."""


def read_texts(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]], *, text_column: str = "text"
) -> Iterator[list[bytes]]:
    """Yield the texts of files, folders and globs as UTF-8, in batches of about 4 MB; nulls are left out.

    Files are those that `prepare` reads: parquet, JSON lines and CSV with the text in `text_column`, and .txt, which is
    one text whatever its size.

    Raises:
        NotFoundError: A path names nothing.
        InvalidError: A file is of another kind, or a document of it is no text; `nanofast.Error` from parquet.
    """
    if isinstance(paths, (str, os.PathLike)):
        paths = [paths]
    reading = Reading(text_column, most_bytes=None)
    inputs = find_inputs([os.fspath(path) for path in paths])
    found = (text for source in inputs for text in documents(source, reading))
    yield from batches(text for text in found if text is not None)


def batches(texts: Iterable[bytes]) -> Iterator[list[bytes]]:
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
