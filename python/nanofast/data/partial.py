"""A file on its way in: `.NAME.partial` beside its final place, owned by one process at a time, resumable.

    .shard_00003.parquet.partial         the bytes so far
    .shard_00003.parquet.partial.json    what they are the beginning of: the server's tag and length
    shard_00003.parquet                  appears by a rename, when it is whole and on disk

Invariant: the running SHA-256 is that of the bytes so far, also after resuming (they are read again once).
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import threading
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from nanofast.data.aside import publish
from nanofast.data.worklog import open_without_following

_LOCK_POLL_SECONDS = 0.2
_READ_BYTES = 1 << 20


class StoppedError(Exception):
    """The user asked to stop; what is there can be resumed."""


class Partial:
    """The unfinished file, locked while the context is open. Waits while another process has it."""

    def __init__(self, final: Path, stop: threading.Event) -> None:
        self.final = final
        self.path = final.with_name(f".{final.name}.partial")
        self._about = final.with_name(f".{final.name}.partial.json")
        self._stop = stop
        self._file: BinaryIO
        self.size = 0
        self.tag: str | None = None

    def __enter__(self) -> Partial:
        while True:
            self._file = open_without_following(self.path)
            self._lock()
            if self._is_current():
                break
            self._file.close()  # it was given its final name while we waited
        self._resume()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._file.close()

    @property
    def sha256(self) -> str:
        """Of the bytes so far."""
        return self._digest.hexdigest()

    def begin(self, tag: str | None) -> None:
        """Throw away what is there; what comes is the beginning of what the server calls `tag`."""
        self._file.seek(0)
        self._file.truncate()
        self.size, self.tag, self._digest = 0, tag, hashlib.sha256()
        with open_without_following(self._about) as about:
            about.truncate()
            about.write(json.dumps({"tag": tag}).encode())

    def append(self, chunk: bytes) -> None:
        """Write bytes at the end."""
        self._file.write(chunk)
        self._digest.update(chunk)
        self.size += len(chunk)

    def written(self) -> Path:
        """The path, with everything appended so far readable there."""
        self._file.flush()
        return self.path

    def publish(self) -> None:
        """Give the file its name, when it is on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())  # takes long, and may fail: until then it can be resumed
        self._about.unlink(missing_ok=True)  # before the name, or a kill in between would leave it for ever
        publish(self.path, self.final)

    def discard(self) -> None:
        """Leave nothing, because the file is there already or cannot be had."""
        self.path.unlink(missing_ok=True)
        self._about.unlink(missing_ok=True)

    def _resume(self) -> None:
        try:
            self.tag = json.loads(self._about.read_text("utf-8"))["tag"]
            known = True
        except (OSError, ValueError, KeyError, TypeError):
            known = False
        self._digest = hashlib.sha256()
        self._file.seek(0)
        while known and (chunk := self._file.read(_READ_BYTES)):
            self._digest.update(chunk)
            self.size += len(chunk)
        if not known:  # bytes of which nobody says what they belong to
            self._file.truncate(0)

    def _is_current(self) -> bool:
        try:
            there, mine = self.path.lstat(), os.fstat(self._file.fileno())
        except FileNotFoundError:
            return False
        return os.path.samestat(there, mine)

    def _lock(self) -> None:
        try:
            import fcntl
        except ImportError:  # Windows: the name is opened by one process only, which its own rules see to
            return None
        while True:
            try:
                return fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                    raise
            if self._stop.wait(_LOCK_POLL_SECONDS):
                self._file.close()
                raise StoppedError
