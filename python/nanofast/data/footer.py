"""Whether a parquet file is whole: magic bytes at both ends, and a footer that can be read."""

from __future__ import annotations

from pathlib import Path


def check_footer(path: Path) -> None:
    """Raises ValueError, saying what is wrong, when the file is no whole parquet file."""
    from nanofast._nanofast import read_footer

    with path.open("rb") as file:
        head = file.read(4)
    if head != b"PAR1":
        raise ValueError(f"bad parquet data in `{path}`: it begins with {head!r} instead of `PAR1`")
    read_footer(path)
