"""A log of finished steps, from which a job that was killed goes on: JSON lines, each on disk before the next step.

    {"made": "from what, in which way"}      the head: another one means another job, and the log begins anew
    {"step": 1, …}
    {"step": 2, …}                           a line that a kill tore is passed over

One process at a time has it; a second one is refused.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from nanofast.data.aside import naming


class Worklog:
    """The log, open and locked inside the `with` block."""

    def __init__(self, path: Path, head: Mapping[str, Any], job: str) -> None:
        self.path = path
        self._head = json.loads(json.dumps(head))
        self._job = job
        self._file: BinaryIO
        self.steps: list[dict[str, Any]] = []
        """Those of the job so far."""

    def __enter__(self) -> Worklog:
        self._file = open_without_following(self.path)
        try:
            lock(self._file, self._job)
        except OSError:
            self._file.close()
            raise
        lines, size = [], 0
        for line in self._file.read().splitlines(keepends=True):
            try:
                lines.append(json.loads(line))
            except ValueError:
                break
            if not line.endswith(b"\n"):
                lines.pop()
                break
            size += len(line)
        if lines and lines[0] == self._head:
            self.steps = lines[1:]
            self._file.truncate(size)
        else:
            self.begin_anew()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._file.close()

    def begin_anew(self) -> None:
        """Forget every step."""
        self._file.truncate(0)
        self.append(self._head)
        self.steps = []

    def append(self, step: Mapping[str, Any]) -> None:
        """Note a step that is done."""
        with naming(self.path):
            self._file.seek(0, os.SEEK_END)
            self._file.write(json.dumps(step).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        self.steps.append(dict(step))


def open_without_following(path: Path) -> BinaryIO:
    """For reading and writing, made if need be. A link that lies there must not make us write elsewhere."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    return os.fdopen(os.open(path, flags, 0o666), "r+b")


def lock(file: BinaryIO, job: str) -> None:
    """Have the file for this process alone.

    Raises:
        OSError: another process has it.
    """
    try:
        import fcntl
    except ImportError:  # Windows: what is open cannot be renamed there, which is as good
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise OSError(f"{job} is being done by another process; wait for it, or name another place") from error
