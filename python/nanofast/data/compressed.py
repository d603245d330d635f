"""Files of text, plain, .gz or .zst, read from front to back; a damaged or cut one is an error, never an early end."""

from __future__ import annotations

import codecs
import gzip
import importlib
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from nanofast.errors import InvalidError


@contextmanager
def opened(path: str) -> Iterator[Any]:
    """A buffered binary reader of what the file holds, behind a byte order mark.

    Raises:
        InvalidError: within the block, where what is read is damaged or cut short.
    """
    damage: tuple[type[Exception], ...] = (EOFError, zlib.error, gzip.BadGzipFile)
    if path.lower().endswith(".gz"):
        file: Any = gzip.open(path, "rb")  # noqa: SIM115  # closed below
    elif path.lower().endswith(".zst"):
        zstd = zstd_module(path)
        damage = (EOFError, zstd.ZstdError)
        # Large dumps are packed with windows of up to 2 GiB, which a reader has to allow.
        window = zstd.DecompressionParameter.window_log_max
        file = zstd.open(path, "rb", options={window: window.bounds()[1]})
    else:
        file = Path(path).open("rb")  # noqa: SIM115  # closed below
    try:
        with file:
            if file.peek(3)[:3] == codecs.BOM_UTF8:
                file.read(3)
            yield file
    except damage as error:
        raise InvalidError(f"`{path}` is damaged or cut short ({error}); fetch it or pack it again") from error


def zstd_module(path: str) -> Any:
    """Python's own (3.14) where it has one; `path` needs it."""
    for name in ("compression.zstd", "backports.zstd"):
        with suppress(ImportError):
            return importlib.import_module(name)
    raise InvalidError(f"`{path}` needs backports.zstd; get it: pip install 'nanofast[prepare]'")
