"""Checkpoints written beside training: a copy is taken at once, the disk is waited for on another thread.

At most one write is in flight, so that memory holds one copy. What became of it is told on the caller's thread, by
`poll`.

    writer = BackgroundWriter(folder, keep_last=3, keep_every=0)
    writer.submit(snapshot, step)
    for written in writer.poll(): ...
    writer.wait()
"""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from nanofast import checkpoint
from nanofast.checkpoint import Snapshot


@dataclass(frozen=True)
class Written:
    """What became of one checkpoint: its path and size, or why it could not be written.

    `kept`: why older ones, which need not be kept, are still there.
    """

    step: int
    path: Path
    bytes: int
    seconds: float
    error: str | None = None
    kept: str | None = None


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"


class BackgroundWriter:
    """Writes one checkpoint after another into a run's folder and keeps as many as asked for."""

    def __init__(self, folder: Path, *, keep_last: int, keep_every: int) -> None:
        self.folder = folder
        self._keep = keep_last, keep_every
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="nanofast-checkpoint")
        self._writing: Future[Written] | None = None

    def submit(self, snapshot: Snapshot, step: int) -> list[Written]:
        """Begin to write a snapshot; it is copied first, so its tensors may change. What became of the one before."""
        before = self.wait()
        owned = {
            file: {k: t.detach().to("cpu", copy=True) for k, t in ts.items()} for file, ts in snapshot.tensors.items()
        }
        self._writing = self._thread.submit(self._write, Snapshot(owned, snapshot.values), step)
        return before

    def _write(self, snapshot: Snapshot, step: int) -> Written:
        start = time.perf_counter()
        try:
            path = checkpoint.save(snapshot, self.folder, step)
            size = sum(file.stat().st_size for file in path.iterdir())
        except Exception as error:  # whatever it was: it is told, and training and later checkpoints go on
            return Written(step, self.folder, 0, time.perf_counter() - start, _reason(error))
        return Written(step, path, size, time.perf_counter() - start, kept=self.retain(step))

    def retain(self, newest: int) -> str | None:
        """Delete what need not be kept, once the checkpoint of step `newest` is there; why, where that failed."""
        try:
            checkpoint.retain(self.folder, newest, *self._keep)
        except Exception as error:  # the new one is there all the same
            return _reason(error)
        return None

    def poll(self) -> list[Written]:
        """What has been finished since the last question."""
        return self.wait() if self._writing is not None and self._writing.done() else []

    def wait(self) -> list[Written]:
        """Wait for the write in flight; what became of it."""
        if self._writing is None:
            return []
        written, self._writing = self._writing.result(), None
        return [written]

    def close(self) -> None:
        """Wait for the last write and end the thread."""
        self._thread.shutdown(wait=True)
