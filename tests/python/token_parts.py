"""Token files for tests, written by numpy alone, and a slow twin of the windows that are cut from them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stream_twin import combine, permutation

VOCAB_SIZE = 1000
Batch = tuple[list[list[int]], list[list[int]]]


def write(path: Path, ids: np.ndarray, kind: str) -> Path:
    """Write ids as `flat16`, `flat32`, `llm.c`, `llm.c32` or `npy`."""
    if kind == "npy":
        np.save(path, ids.astype(np.uint16))
    elif kind == "flat16":
        ids.astype("<u2").tofile(path)
    elif kind == "flat32":
        ids.astype("<u4").tofile(path)
    else:
        magic, version, dtype = {"llm.c": (20240520, 1, "<u2"), "llm.c32": (20240801, 7, "<u4")}[kind]
        header = np.zeros(256, "<i4")
        header[:3] = magic, version, len(ids)
        path.write_bytes(header.tobytes() + ids.astype(dtype).tobytes())
    return path


def random_ids(seed: int, length: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, VOCAB_SIZE, length)


@dataclass
class Twin:
    """What a loader must give, from whole arrays: each epoch a permutation of all windows, dealt to lanes."""

    files: Sequence[np.ndarray]
    batch_size: int
    sequence_length: int
    shuffle: str = "none"
    lanes: int = 1
    seed: int = 0
    epochs: int | None = None

    def windows(self) -> list[tuple[int, int]]:
        step = 1 if self.shuffle == "random" else self.sequence_length
        return [
            (file, start)
            for file, ids in enumerate(self.files)
            for start in range(0, len(ids) - self.sequence_length, step)
        ]

    def order(self) -> Iterator[tuple[int, int]]:
        windows = self.windows()
        for epoch in itertools.count() if self.epochs is None else range(self.epochs):
            places = range(len(windows))
            if self.shuffle != "none":
                places = permutation(len(windows), combine(self.seed, 1, epoch))
            yield from (windows[place] for place in places)

    def rows(self, lane: int) -> Iterator[np.ndarray]:
        for file, start in itertools.islice(self.order(), lane, None, self.lanes):
            yield self.files[file][start : start + self.sequence_length + 1]

    def batches(self, rank: int = 0, world_size: int = 1) -> Iterator[Batch]:
        """Endless; with epochs, lists as long as the longest lane, padding (0, targets -1) where others are longer."""
        length = self.sequence_length
        padding = np.array([0] + [-1] * length)
        per_lane = {lane: self.rows(lane) for lane in range(self.lanes)}
        for _ in itertools.count():
            taken = {lane: list(itertools.islice(rows, self.batch_size)) for lane, rows in per_lane.items()}
            if not any(taken.values()):
                return
            for lane in range(rank, self.lanes, world_size):
                rows = taken[lane] + [padding] * (self.batch_size - len(taken[lane]))
                inputs = [[max(0, int(token)) for token in row[:-1]] for row in rows]
                yield inputs, [[int(token) for token in row[1:]] for row in rows]
