"""Calls done one after the other on a thread behind the caller's, who need not wait for the disk.

with Behind(16) as behind:
    for batch in batches:
        behind.call(writer.write, batch)
# all of them are done here
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any


class Behind:
    """Behind one that fails none is done; what it raised is raised at the caller's next call, or at the end."""

    def __init__(self, most_waiting: int) -> None:
        self._most_waiting = most_waiting
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="nanofast-behind")
        self._waiting: deque[Future[None]] = deque()
        self._is_over = False

    def call(self, work: Callable[..., None], *arguments: Any) -> None:
        """Have `work(*arguments)` done behind all before it; waits while more than `most_waiting` are to be done."""
        self._waiting.append(self._thread.submit(self._run, work, arguments))
        while len(self._waiting) > self._most_waiting or (self._waiting and self._waiting[0].done()):
            self._waiting.popleft().result()

    def _run(self, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        if self._is_over:
            return
        try:
            work(*arguments)
        except BaseException:
            self._is_over = True
            raise

    def __enter__(self) -> Behind:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._is_over = self._is_over or error is not None
        self._thread.shutdown(wait=True)
        if error is None:
            for done in self._waiting:
                done.result()
