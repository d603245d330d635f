"""How fast do batches come from a token file, beside np.memmap?  `pytest benches/python/bench_token_files.py`

The peer is what people write: a map-style data set over `np.memmap` (a window at every offset), `DataLoader` with
shuffle and two workers. Both give int tensors of [B, T] and their targets; B = 32, T = 2048, uint16. Warm: the file
lies in the page cache. Cold: the system was told to forget it before each round. Rounds alternate; shown are medians
with the least and the most, and ratios of the same round.
"""

from __future__ import annotations

import ctypes
import itertools
import mmap
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import numpy as np
import pytest
import torch

from nanofast import TokenDataset, TokenFileLoader
from results import Results, Table, spread

BATCH_SIZE, SEQUENCE_LENGTH = 32, 2048
PEER_WORKERS = 2


class MemmapDataset(torch.utils.data.Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Windows at every offset of a flat uint16 file, as they are cut in many training scripts."""

    def __init__(self, path: Path) -> None:
        self.ids = np.memmap(path, np.uint16, "r")

    def __len__(self) -> int:
        return len(self.ids) - SEQUENCE_LENGTH

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        window = torch.from_numpy(self.ids[index : index + SEQUENCE_LENGTH + 1].astype(np.int64))
        return window[:-1], window[1:]


class Offsets(torch.utils.data.Sampler[int]):
    """Random offsets for ever; the sampler of `shuffle=True` would make a list of all of them first."""

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.seed = count, seed

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed)
        while True:
            yield from torch.randint(self.count, (1024,), generator=generator).tolist()


def over_dataset(dataset: MemmapDataset | TokenDataset, seed: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    sampler = Offsets(len(dataset), seed)
    return iter(
        torch.utils.data.DataLoader(dataset, batch_size=BATCH_SIZE, sampler=sampler, num_workers=PEER_WORKERS)  # type: ignore[arg-type]
    )


def over_loader(path: Path, shuffle: str, seed: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    with TokenFileLoader(path, BATCH_SIZE, SEQUENCE_LENGTH, shuffle, lanes=1, seed=seed) as loader:
        yield from loader


def batches_per_second(batches: Iterator[tuple[torch.Tensor, torch.Tensor]], seconds: float, *, warm: bool) -> float:
    """Behind the start of workers and threads, except where the first bytes from the disk are the question."""
    if warm:
        for _ in itertools.islice(batches, 20):
            pass
    start, count = time.perf_counter(), 0
    for inputs, targets in batches:
        assert inputs.shape == targets.shape == (BATCH_SIZE, SEQUENCE_LENGTH)
        count += 1
        if time.perf_counter() - start > seconds:
            break
    return count / (time.perf_counter() - start)


def forget(path: Path) -> None:
    """Have the system forget what it holds of a file; what a process still maps, it would keep."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    assert resident_share(path) < 0.01


def resident_share(path: Path) -> float:
    """How much of a file lies in the page cache."""
    bytes_of_file = np.memmap(path, np.uint8, "r")
    pages = np.empty(-(-len(bytes_of_file) // mmap.PAGESIZE), np.uint8)
    address, length = ctypes.c_void_p(bytes_of_file.ctypes.data), ctypes.c_size_t(len(bytes_of_file))
    assert ctypes.CDLL(None).mincore(address, length, ctypes.c_void_p(pages.ctypes.data)) == 0
    return float((pages & 1).mean())


@pytest.mark.timeout(600)
@pytest.mark.parametrize("cache", ["warm", "cold"])
def test_beside_memmap(smoke: bool, num_rounds: int, cache: str, results: Results, tmp_path: Path) -> None:
    path, length = tmp_path / "tokens.bin", 2_000_000 if smoke else 500_000_000
    rng = np.random.default_rng(0)
    with path.open("wb") as file:
        for _ in range(length // 1_000_000):
            file.write(rng.integers(0, 50257, 1_000_000, np.uint16).data)
    ids = np.memmap(path, np.uint16, "r")
    for inputs, targets in itertools.islice(over_loader(path, "random", 0), 3):  # the answer, before it is timed
        for row in torch.cat([inputs.long(), targets[:, -1:]], 1).numpy():
            assert any(np.array_equal(ids[at : at + 5], row[:5]) for at in np.flatnonzero(ids == row[0]))
    del ids
    contenders: dict[str, Callable[[int], Iterator[tuple[torch.Tensor, torch.Tensor]]]] = {
        "np.memmap + DataLoader": lambda seed: over_dataset(MemmapDataset(path), seed),
        "TokenDataset + DataLoader": lambda seed: over_dataset(TokenDataset(path, SEQUENCE_LENGTH, stride=1), seed),
        "TokenFileLoader random": lambda seed: over_loader(path, "random", seed),
        "TokenFileLoader window": lambda seed: over_loader(path, "window", seed),
    }
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(num_rounds):
        for name in contenders if number % 2 == 0 else reversed(contenders):
            if cache == "cold":
                forget(path)
            seconds = 0.05 if smoke else 2.0
            rates[name].append(batches_per_second(contenders[name](number), seconds, warm=cache == "warm"))
    peer = rates["np.memmap + DataLoader"]
    rows = []
    for name, found in rates.items():
        ratio = median(mine / its for mine, its in zip(found, peer, strict=True))
        rows.append((name, spread(found), median(found) * BATCH_SIZE * SEQUENCE_LENGTH / 1e6, ratio))
    results.add(
        Table(
            f"Token files, {cache}",
            ("contender", "batches/s", "Mtok/s", "×"),
            rows,
            (
                f"{length:,} tokens of 2 bytes, batches of {BATCH_SIZE} x {SEQUENCE_LENGTH}; rounds: {num_rounds}",
                f"DataLoader with {PEER_WORKERS} workers; ×: by np.memmap + DataLoader in the same round",
            ),
            rates,
        )
    )


def test_opening_a_terabyte(results: Results, tmp_path: Path) -> None:
    path = tmp_path / "large.bin"
    with path.open("wb") as file:
        try:
            file.truncate(1 << 40)
        except OSError as error:
            pytest.skip(f"this file system holds no sparse file of a terabyte: {error}")
    times = []
    for _ in range(20):
        start = time.perf_counter()
        TokenFileLoader(path, BATCH_SIZE, SEQUENCE_LENGTH, "random").close()
        times.append(1e3 * (time.perf_counter() - start))
    results.add(Table("A token file of a terabyte", ("what", "ms"), [("opened", spread(times))], ("20 times",)))
