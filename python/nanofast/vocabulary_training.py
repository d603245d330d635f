"""Training a vocabulary: texts are read one batch after the other, counted on several threads, then merged.

Counting is the work, and what is kept of the texts are their distinct pretokens alone. The result depends on the texts
and the settings, never on threads.
"""

from __future__ import annotations

import itertools
import os
import queue
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Literal

from nanofast import _nanofast
from nanofast.data.texts import batches, read_texts
from nanofast.distributed import available_cores

Progress = Callable[[Literal["counting", "merging"], int, int | None], None]
"""Is told (what is being done, how much of it is done, of how much): bytes of text, of `max_bytes`; merges, of all."""

Texts = Iterable[str] | Iterable[bytes] | Iterable[os.PathLike[str]] | os.PathLike[str] | str


def train(
    texts_or_paths: Texts,
    *,
    vocab_size: int,
    pattern: str,
    special_tokens: list[str],
    text_column: str,
    max_bytes: int | None,
    num_threads: int | None,
    memory_limit_bytes: int,
    progress: Progress | None,
) -> _nanofast.Tokenizer:
    """See `Tokenizer.train`."""
    if max_bytes is not None and max_bytes < 1:
        raise ValueError(f"max_bytes = {max_bytes}: at least 1")
    if num_threads is not None and num_threads < 1:
        raise ValueError(f"num_threads = {num_threads}: at least 1")
    num_threads = num_threads or available_cores()
    tell = progress or (lambda *_: None)
    counts = [
        _nanofast.PretokenCounts(pattern, vocab_size, special_tokens, memory_limit_bytes // num_threads)
        for _ in range(num_threads)
    ]
    num_bytes = _count(_up_to(_batches(texts_or_paths, text_column), max_bytes), counts, max_bytes, tell)
    if num_bytes == 0:
        raise ValueError("no text to train on; expected texts, or files that hold some")
    total, *others = counts
    for other in others:
        total.absorb(other)
    num_merges = vocab_size - 256 - len(special_tokens)
    return total.train(lambda done: tell("merging", done, num_merges))


def _batches(texts_or_paths: Texts, text_column: str) -> Iterator[list[bytes]]:
    if isinstance(texts_or_paths, (str, os.PathLike)):
        yield from read_texts(texts_or_paths, text_column=text_column)
        return
    items = iter(texts_or_paths)
    first = next(items, None)
    items = itertools.chain([] if first is None else [first], items)
    if isinstance(first, os.PathLike):
        yield from read_texts(items, text_column=text_column)  # type: ignore[arg-type]
        return
    yield from batches(_encoded(items))


def _encoded(texts: Iterable[object]) -> Iterator[bytes]:
    for index, text in enumerate(texts):
        if not isinstance(text, (str, bytes)):
            raise TypeError(f"texts[{index}] is of type {type(text).__name__}; expected str or bytes (or a path first)")
        yield text.encode() if isinstance(text, str) else text


def _up_to(batches: Iterator[list[bytes]], max_bytes: int | None) -> Iterator[list[bytes]]:
    """The batches up to the text that brings them to `max_bytes`, which is the last one."""
    left = max_bytes
    for batch in batches:
        if left is None:
            yield batch
            continue
        ends = list(itertools.accumulate(map(len, batch)))
        if ends and ends[-1] >= left:
            yield batch[: next(index for index, end in enumerate(ends, 1) if end >= left)]
            return
        left -= ends[-1] if ends else 0
        yield batch


def _count(
    batches: Iterator[list[bytes]],
    counts: list[_nanofast.PretokenCounts],
    max_bytes: int | None,
    tell: Progress,
) -> int:
    """Count the batches, each with a counter that no other thread has; returns the bytes of text."""
    idle: queue.SimpleQueue[_nanofast.PretokenCounts] = queue.SimpleQueue()
    for counter in counts:
        idle.put(counter)

    def count(batch: list[bytes]) -> int:
        counter = idle.get()
        try:
            counter.add(batch)
        finally:
            idle.put(counter)
        return sum(map(len, batch))

    done = 0
    waiting: set[Future[int]] = set()
    with ThreadPoolExecutor(len(counts)) as pool:
        for batch in batches:
            waiting.add(pool.submit(count, batch))
            if len(waiting) > 2 * len(counts):  # as many batches are held, and no more
                finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                done += sum(future.result() for future in finished)
                tell("counting", done, max_bytes)
        done += sum(future.result() for future in waiting)
    tell("counting", done, max_bytes)
    return done
