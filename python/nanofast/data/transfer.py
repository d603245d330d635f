"""How far a download is: bars in a terminal, plain lines elsewhere, nothing when asked to be quiet."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from nanofast.data.fetch import Source

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Transfer:
    """Hears of everything and says nothing. Calls come from several threads."""

    def __enter__(self) -> Transfer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        pass

    def say(self, text: str) -> None:
        """A line for the user."""

    def begin(self, source: Source) -> None:
        """A shard is about to be fetched."""

    def move(self, source: Source, size: int, total: int | None) -> None:
        """So much of a shard is there, of so much."""

    def end(self, source: Source, reason: str | None, *, fetched: bool) -> None:
        """A shard is done with: `reason` says why it is missing."""


def new_transfer(sources: Sequence[Source], *, quiet: bool) -> Transfer:
    """What suits where the output goes."""
    if quiet:
        return Transfer()
    return _Bars(sources) if sys.stdout.isatty() else _Lines(len(sources))


class _Lines(Transfer):
    """One line a shard, for logs."""

    def __init__(self, num_shards: int) -> None:
        self._num_shards, self._num_done = num_shards, 0
        self._started: dict[str, float] = {}
        self._sizes: dict[str, int] = {}
        self._lock = threading.Lock()

    def say(self, text: str) -> None:
        print(text, flush=True)

    def begin(self, source: Source) -> None:
        self._started[source.name] = time.monotonic()

    def move(self, source: Source, size: int, total: int | None) -> None:
        self._sizes[source.name] = size

    def end(self, source: Source, reason: str | None, *, fetched: bool) -> None:
        with self._lock:
            self._num_done += 1
            what = "was there"
            if reason is not None:
                what = f"missing: {reason}"
            elif fetched:
                seconds = time.monotonic() - self._started[source.name]
                what = f"{self._sizes.get(source.name, 0) / 1e6:.1f} MB in {seconds:.1f} s"
            self.say(f"[{self._num_done}/{self._num_shards}] {source.name}: {what}")


class _Bars(Transfer):
    """A bar for each shard on its way and one for all, with rate and time left."""

    def __init__(self, sources: Sequence[Source]) -> None:
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
        )
        self._progress: Progress = Progress(*columns)
        self._totals = {source.name: source.size_bytes for source in sources}
        self._all: TaskID = self._progress.add_task("all", total=self._total())
        self._tasks: dict[str, TaskID] = {}
        self._sizes: dict[str, int] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Transfer:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._progress.stop()

    def _total(self) -> float | None:
        """Bytes of all shards; those of unknown size count as the mean of the others."""
        known = [total for total in self._totals.values() if total is not None]
        return sum(known) / len(known) * len(self._totals) if known else None

    def say(self, text: str) -> None:
        self._progress.console.print(text, highlight=False)

    def begin(self, source: Source) -> None:
        self._tasks[source.name] = self._progress.add_task(source.name, total=source.size_bytes)

    def move(self, source: Source, size: int, total: int | None) -> None:
        with self._lock:
            self._progress.advance(self._all, size - self._sizes.get(source.name, 0))
            self._sizes[source.name] = size
            if total is not None and self._totals.get(source.name) is None:
                self._totals[source.name] = total
                self._progress.update(self._all, total=self._total())
        self._progress.update(self._tasks[source.name], completed=size, total=total)

    def end(self, source: Source, reason: str | None, *, fetched: bool) -> None:
        if source.name in self._tasks:
            self._progress.remove_task(self._tasks.pop(source.name))
        elif reason is None and source.size_bytes:
            self._progress.advance(self._all, source.size_bytes)
        if reason is not None:
            self.say(f"missing: {source.name}: {reason}")
