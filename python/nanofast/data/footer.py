"""Whether a parquet file is whole at both ends: magic bytes, and a footer that lies inside the file and can be read."""

from __future__ import annotations

from pathlib import Path

_MAGIC = b"PAR1"


def check_footer(path: Path) -> None:
    """Raises ValueError, saying what is wrong, when the file cannot be a whole parquet file."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(4)
        file.seek(max(0, size - 8))
        tail = file.read(8)
    if head != _MAGIC or tail[4:] != _MAGIC:
        raise ValueError(
            f"no parquet file: begins with {head!r} and ends with {tail[4:]!r}; expected {_MAGIC!r} at both ends"
        )
    length = int.from_bytes(tail[:4], "little")
    if not 0 < length <= size - 12:
        raise ValueError(f"no parquet file: a footer of {length} bytes in a file of {size}")
