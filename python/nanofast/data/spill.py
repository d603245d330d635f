"""More documents than memory holds, ordered by a key: sorted runs on disk, merged as they are read.

    documents ──▶ as many as memory holds, sorted ──▶ run 0, run 1, …  ──▶ the smallest key of all, again and again

A run is records (key of 16 bytes, length, text); its place in the file is all that is needed to go on reading it, so no
run is held open and there may be thousands. The order is that of the keys, whatever memory there was.
"""

from __future__ import annotations

import heapq
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

from nanofast.data.aside import naming, publish

KEY_BYTES = 16
_HEAD = struct.Struct("<16sI")
# What Python takes for a record beside its text: a tuple, two byte strings, a place in a list.
RECORD_BYTES = 200
LEAST_BLOCK_BYTES = 64 << 10

Record = tuple[bytes, bytes]  # key, text


def write_run(path: Path, records: list[Record]) -> None:
    """Sort records by key and write them; the name appears when all is on disk."""
    aside = path.with_name(f".{path.name}.partial")
    records.sort()
    with naming(path), aside.open("wb") as file:
        for key, text in records:
            file.write(_HEAD.pack(key, len(text)))
            file.write(text)
    publish(aside, path)


def merged(runs: Sequence[Path], offsets: list[int], memory_bytes: int) -> Iterator[Record]:
    """The records of all runs from `offsets` on, in the order of keys.

    `offsets` is kept at what was taken: when a record has come out, it says where to go on behind it.
    """
    block_bytes = max(LEAST_BLOCK_BYTES, memory_bytes // max(1, len(runs)))
    heap: list[tuple[bytes, int, bytes, int]] = []
    readers = [_records(path, offset, block_bytes) for path, offset in zip(runs, offsets, strict=True)]
    for index, reader in enumerate(readers):
        for key, text, end in reader:
            heap.append((key, index, text, end))
            break
    heapq.heapify(heap)
    while heap:
        key, index, text, end = heap[0]
        offsets[index] = end
        yield key, text
        following = next(readers[index], None)
        if following is None:
            heapq.heappop(heap)
        else:
            key, text, end = following
            heapq.heapreplace(heap, (key, index, text, end))


def _records(path: Path, offset: int, block_bytes: int) -> Iterator[tuple[bytes, bytes, int]]:
    """(key, text, where the next record begins); the file is open only while a block is read."""
    block, at = b"", 0
    while True:
        wanted = _HEAD.size
        if len(block) - at >= wanted:
            key, length = _HEAD.unpack_from(block, at)
            wanted += length
            if len(block) - at >= wanted:
                text = block[at + _HEAD.size : at + wanted]
                at, offset = at + wanted, offset + wanted
                yield key, text, offset
                continue
        with path.open("rb") as file:
            file.seek(offset)
            block, at = file.read(max(block_bytes, wanted)), 0
        if not block:
            return
        if len(block) < wanted:
            raise OSError(f"`{path}` ends within a record; remove its folder and begin again")
