"""SIGTERM and Ctrl-C as a request: the step in hand is finished and saved. A second Ctrl-C ends the process at once.

The handlers that were there before come back at the end of the block.

    with StopRequest() as stop:
        while not stop.signal_number: train_step()
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any

SHOW_CURSOR = b"\x1b[?25h\n"


class StopRequest:
    """Remembers the first signal while the block runs; `signal_number` is 0 until then."""

    HANDLED = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.signal_number = 0
        self._previous: dict[signal.Signals, Any] = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal_number and number == signal.SIGINT:
            if sys.stdout.isatty():
                os.write(sys.stdout.fileno(), SHOW_CURSOR)  # which the live line had hidden
            os._exit(128 + number)  # asked twice: no saving, no cleaning up
        self.signal_number = number

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():  # only the main thread may set handlers
            self._previous = {number: signal.signal(number, self._handle) for number in self.HANDLED}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
