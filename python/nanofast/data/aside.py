"""Files and folders that get their name only when they are complete.

What is being written lies beside its final place as `.NAME.PID-RANDOM.partial`, is flushed to disk and then renamed.
So a name that exists stands for something whole, whatever was killed, and two processes that make the same thing do
not disturb each other: of folders the first gives its own the name and the other throws its own away, of files the
last one stays.

    with folder_aside(data, is_complete) as folder:
        ...  # write files into `folder`
    # `data` is complete here
    with file_aside(page) as path:
        path.write_text(...)

A long job, which finds its own unfinished file again, names that itself and calls `publish`.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

# What is unfinished and this old belongs to a run that was killed: making a folder takes seconds to minutes.
ABANDONED_SECONDS = 24 * 3600


@contextmanager
def folder_aside(final: Path, is_complete: Callable[[Path], bool]) -> Iterator[Path]:
    """A folder to fill, which becomes `final` when the block ends well and disappears when it does not.

    A `final` that is there already stays if `is_complete` says so, and is replaced if not.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    _sweep(final)
    folder = _beside(final)
    folder.mkdir()
    try:
        yield folder
        for path in [*folder.iterdir(), folder]:
            flush(path)
        try:
            folder.rename(final)
        except OSError:
            if not final.exists():
                raise
            if not is_complete(final):
                broken = _beside(final)
                final.rename(broken)
                folder.rename(final)
                shutil.rmtree(broken)
        flush(final.parent)
    finally:
        if folder.exists():
            shutil.rmtree(folder)


@contextmanager
def file_aside(final: Path, *, lasts: bool = True) -> Iterator[Path]:
    """A path to write a file at, which becomes `final` when the block ends well and disappears when it does not.

    What does not last, since it is written anew every few seconds, is not waited for to be on the disk.
    """
    _sweep(final)
    path = _beside(final)
    try:
        yield path
        if lasts:
            publish(path, final)
        else:
            path.replace(final)
    finally:
        path.unlink(missing_ok=True)


def publish(path: Path, final: Path) -> None:
    """Give a file that is complete its name, for good: it is on the disk before, and the name when this returns."""
    flush(path)
    path.replace(final)
    flush(final.parent)


def _beside(final: Path) -> Path:
    return final.with_name(f".{final.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")


def _sweep(final: Path) -> None:
    for path in final.parent.glob(f".{final.name}.*.partial"):
        try:
            if time.time() - path.stat().st_mtime > ABANDONED_SECONDS:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        except OSError:  # another process sweeps too
            continue


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Have errors of the disk name the file that is written, which a write by itself does not."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def sha256_of(path: Path) -> str:
    """The hash of what a file holds, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def flush(path: Path) -> None:
    """Ask the system to put a file or folder on the disk before its name says that it is whole."""
    if os.name == "nt" and path.is_dir():
        return  # Windows opens no folders
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
