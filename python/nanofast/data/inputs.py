"""What paths mean as inputs: files, folders, globs, saved data sets, `hub:OWNER/NAME`; source trees with `code`.

path ──▶ inputs, in the order of their names: (path, format, size)
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from nanofast.errors import InvalidError, NotFoundError
from nanofast.remote import is_remote, require_local, shown

COMPRESSIONS = (".gz", ".zst")
FORMATS = {".txt": "text", ".jsonl": "json", ".ndjson": "json", ".csv": "csv", ".parquet": "parquet"}
HUB_PREFIX = "hub:"
# What lies in a folder that `save_to_disk` of `datasets` wrote: a data set, or one a split.
SAVED_FILES = (("state.json", "dataset_info.json"), ("dataset_dict.json",))
# Folders of a source tree that hold no sources of its own.
SKIPPED_FOLDERS = {"__pycache__", "node_modules", "venv", "target", "build", "dist"}


@dataclass(frozen=True)
class Input:
    """A file, or a data set."""

    path: str
    format: str
    size_bytes: int | None = None


def find_inputs(paths: Sequence[str], *, code: bool = False, without: Path | None = None) -> list[Input]:
    """The inputs that paths name, folders walked in the order of names; hidden files (`.`, of data also `_`) stay out.

    Args:
        code: take every file but links: source code.
        without: a folder to stay out of.

    Raises:
        NotFoundError: a path that is not there, or nothing to read in it.
        InvalidError: a file of no known kind, or one that two paths name.
    """
    named: dict[str, int] = {}  # by which of the paths
    found = []
    for number, path in enumerate(paths):
        for source in _named(path, code, without):
            place = source.path if source.path.startswith(HUB_PREFIX) else os.path.abspath(source.path)  # noqa: PTH100  # links stay
            if (before := named.setdefault(place, number)) != number:
                raise InvalidError(f"`{source.path}` is named twice, by `{paths[before]}` and `{path}`; name it once")
            found.append(source)
    return found


def require_shards(path: str, otherwise: str = "") -> None:
    """Refuse a file of text that is no parquet, saying what makes shards of it.

    Raises:
        InvalidError: it is one.
    """
    is_named = is_remote(path) or Path(path).is_file()
    if is_named and _format(PurePath(shown(path)), code=False) not in (None, "parquet"):
        advice = f", or {otherwise}" if otherwise else ""
        first, file = ("fetch it and ", "FILE") if is_remote(path) else ("", path)
        raise InvalidError(
            f"`{shown(path)}` is no parquet; {first}make shards of it: nanofast.data prepare {file} FOLDER{advice}"
        )


def _named(path: str, code: bool, without: Path | None) -> list[Input]:
    require_local("input", path, "fetch it first, or write hub:OWNER/NAME; loaders read parquet from URLs as it is")
    place = Path(path)
    if path.startswith(HUB_PREFIX) or any(all((place / name).is_file() for name in names) for names in SAVED_FILES):
        return [Input(path, "dataset")]
    if place.is_dir():
        found = [entry for file in _walk(place, code, without) if (entry := _input(file, code)) is not None]
        if not found:
            raise NotFoundError(f"no texts in `{path}`: no {_known()}; --code takes every text file of a source tree")
        return found
    if place.is_file():
        entry = _input(place, code)
        if entry is None:
            raise InvalidError(f"`{path}` is of no known kind; expected {_known()}, plain or with .gz or .zst")
        return [entry]
    files = sorted(glob.glob(path, recursive=True)) if glob.has_magic(path) else []  # noqa: PTH207  # absolute, too
    if not files:
        raise NotFoundError(f"no such file or folder: `{path}`; check the path, or write hub:OWNER/NAME")
    # `**` gives folders and what lies in them.
    return list(dict.fromkeys(source for file in files for source in _named(file, code, without)))


def _walk(folder: Path, code: bool, without: Path | None) -> Iterator[Path]:
    hidden = (".",) if code else (".", "_")
    for place, folders, files in os.walk(folder):
        if without is not None and Path(place).resolve() == without.resolve():
            folders.clear()
            continue
        skipped = SKIPPED_FOLDERS if code else set()
        folders[:] = sorted(name for name in folders if not name.startswith(hidden) and name not in skipped)
        for name in sorted(files):
            path = Path(place, name)
            if not name.startswith(hidden) and path.is_file() and not (code and path.is_symlink()):
                yield path


def _input(path: Path, code: bool) -> Input | None:
    kind = _format(path, code)
    return Input(str(path), kind, path.stat().st_size) if kind else None


def _format(path: PurePath, code: bool) -> str | None:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    return "code" if code else FORMATS.get(suffixes[-1]) if suffixes else None


def _known() -> str:
    return ", ".join(FORMATS)
