"""How far a long job is: a bar in a terminal, a line every few seconds elsewhere, nothing when asked to be quiet."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

LINE_SECONDS = 10.0


class Pace:
    """Progress in bytes. `total` None: nobody knows how much it is."""

    def __init__(self, what: str, total: int | None, *, quiet: bool) -> None:
        self._what, self._total, self._quiet = what, total, quiet
        self._begun = self._said = time.monotonic()
        self._bars: Progress | None = None

    def __enter__(self) -> Pace:
        if not self._quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
            from rich.progress import TransferSpeedColumn as SpeedColumn

            columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), SpeedColumn())
            self._bars = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True))
            self._task = self._bars.add_task(self._what, total=self._total)
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def move(self, num_bytes: int) -> None:
        """So much is done."""
        if self._bars is not None:
            self._bars.update(self._task, completed=num_bytes)
        elif not self._quiet and time.monotonic() - self._said > LINE_SECONDS:
            self._said = time.monotonic()
            rate = num_bytes / (self._said - self._begun)
            share = f" of {self._total / 1e6:,.0f}" if self._total else ""
            left = f", {max(0, self._total - num_bytes) / rate:,.0f} s left" if self._total and rate else ""
            print(f"{self._what}: {num_bytes / 1e6:,.0f}{share} MB, {rate / 1e6:,.1f} MB/s{left}", file=sys.stderr)
