"""Out of memory: recognised on any device, and answered by passing a batch through the model in smaller parts.

The batches, their order and the loss stay as they are; only the forward and backward passes get smaller.

    parts = Parts()
    parts.run(lambda count: forward_backward_in(count), rows=8, tell=print)
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

T = TypeVar("T")


def is_out_of_memory(error: BaseException) -> bool:
    """True for what torch raises when memory runs out; on the CPU that is a RuntimeError with these words."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    words = str(error)
    return isinstance(error, RuntimeError) and (
        ("DefaultCPUAllocator" in words and "memory" in words) or "Storage size calculation overflowed" in words
    )


class Parts:
    """Into how many parts a batch is cut; grows when memory runs out, and stays."""

    def __init__(self) -> None:
        self.count = 1

    def run(self, work: Callable[[int], T], rows: int, tell: Callable[[str], None]) -> T:
        """`work(count)`, tried again with twice the parts each time memory runs out, as long as a part keeps a row."""
        while True:
            try:
                return work(self.count)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or self.count >= rows:
                    raise
                message = str(error).splitlines()[0]
            # outside the handler, so that the traceback and the tensors that it holds are gone
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            self.count = min(2 * self.count, rows)
            tell(
                f"out of memory with {rows} rows ({message}); from here on a batch passes through the model in "
                f"{self.count} parts: same batches, same order, same loss"
            )
