"""Loaders in plain Python, the way nanochat describes its own: the peers that nanofast equals batch for batch.

    row group (pyarrow) ─▶ 128 documents at a time ─▶ tiktoken's encode_ordinary_batch, BOS in front
    ─▶ PlainLoader: a list of 1,000; best fit, cropping the shortest when none fits
    ─▶ PlainStream: one list of tokens, B · T + 1 a batch
    ─▶ one tensor a batch ─▶ inputs, targets

The description: the docstrings and comments of nanochat's `dataloader.py`. The rule of the first is `crop` in
ARCHITECTURE.md. The state is what nanochat saves: file and row group of the last refill. A loader that resumes begins
with nothing buffered at the row group behind it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow.parquet as pq
import tiktoken
import torch

BUFFER_DOCUMENTS = 1000
BATCH_DOCUMENTS = 128


class PlainReader:
    """What both have in common: documents as token lists for ever, and where they came from."""

    def __init__(
        self,
        paths: Sequence[Path],
        encoding: tiktoken.Encoding,
        batch_size: int,
        sequence_length: int,
        num_threads: int,
        state: tuple[int, int] | None = None,
    ) -> None:
        self.paths = paths
        self.encoding = encoding
        self.batch_size = batch_size
        self.sequence_length = sequence_length
        self.num_threads = num_threads
        self.num_documents = 0
        self.state = (0, 0)  # file and row group of the last refill
        self.unread: list[str] = []  # texts of that row group that were not taken in yet
        self.resumes_behind = state

    def documents(self) -> Iterator[list[list[int]]]:
        """Documents as token lists with BOS, up to 128 of one row group at a time, for ever."""
        bos = self.encoding.eot_token
        while True:
            for number, path in enumerate(self.paths):
                file = pq.ParquetFile(path)
                for group in range(file.num_row_groups):
                    if self.resumes_behind is not None and (number, group) <= self.resumes_behind:
                        continue
                    self.resumes_behind = None
                    texts = [text or "" for text in file.read_row_group(group, columns=["text"])["text"].to_pylist()]
                    for start in range(0, len(texts), BATCH_DOCUMENTS):
                        batch = texts[start : start + BATCH_DOCUMENTS]
                        token_lists = self.encoding.encode_ordinary_batch(batch, num_threads=self.num_threads)
                        for tokens in token_lists:
                            tokens.insert(0, bos)
                        self.num_documents += len(batch)
                        self.state, self.unread = (number, group), texts[start + BATCH_DOCUMENTS :]
                        yield token_lists

    def num_unread_tokens(self) -> int:
        """What a resume never reads: the rest of the row group. BOS included."""
        return sum(1 + len(ids) for ids in self.encoding.encode_ordinary_batch(self.unread))


class PlainLoader(PlainReader):
    """Best fit: endless `(inputs int32 [B, T], targets int64 [B, T])`; `num_documents` counts what it took in."""

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        documents = self.documents()
        self.buffer: list[list[int]] = []
        while True:
            rows = [self.row(self.buffer, documents) for _ in range(self.batch_size)]
            tokens = torch.tensor(rows, dtype=torch.int64)
            yield tokens[:, :-1].to(torch.int32), tokens[:, 1:].contiguous()

    def row(self, buffer: list[list[int]], documents: Iterator[list[list[int]]]) -> list[int]:
        """One row: the longest document that fits, again and again; when none does, the front of the shortest."""
        row: list[int] = []
        row_length = self.sequence_length + 1
        while len(row) < row_length:
            while len(buffer) < BUFFER_DOCUMENTS:
                buffer += next(documents)
            space = row_length - len(row)
            best, best_length = -1, 0
            for index, document in enumerate(buffer):
                if best_length < len(document) <= space:
                    best, best_length = index, len(document)
            if best < 0:
                best = min(range(len(buffer)), key=lambda index: len(buffer[index]))
            row += buffer.pop(best)[:space]
        return row

    def num_buffered_tokens(self) -> int:
        """What a resume forgets."""
        return sum(map(len, self.buffer))


class PlainStream(PlainReader):
    """One stream of tokens: endless `(inputs int32 [B, T], targets int64 [B, T])`."""

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        documents = self.documents()
        self.buffer: list[int] = []
        needed = self.batch_size * self.sequence_length + 1
        while True:
            while len(self.buffer) < needed:
                for tokens in next(documents):
                    self.buffer += tokens
            stretch = torch.tensor(self.buffer[:needed], dtype=torch.int64)
            self.buffer = self.buffer[needed:]
            inputs, targets = stretch[:-1].to(torch.int32), stretch[1:]
            yield inputs.view(self.batch_size, -1), targets.view(self.batch_size, -1)

    def num_buffered_tokens(self) -> int:
        """What a resume forgets."""
        return len(self.buffer)
