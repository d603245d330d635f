"""An end to waiting for what may never answer: a name that is being resolved, a head that comes a byte at a time."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


def within(seconds: float, work: Callable[[], Result]) -> Result:
    """What `work` returns or raises, from a thread of its own.

    The thread is a daemon: what is late goes on until the process ends, and nobody waits for it.

    Raises:
        TimeoutError: it takes longer than `seconds`.
    """
    done: queue.SimpleQueue[tuple[Result | None, BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            done.put((work(), None))
        except BaseException as error:
            done.put((None, error))

    threading.Thread(target=run, name="nanofast-within", daemon=True).start()
    try:
        result, error = done.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no answer within {seconds:.3g} s") from None
    if error is not None:
        raise error
    return result  # type: ignore[return-value]  # None only where `work` returns it
