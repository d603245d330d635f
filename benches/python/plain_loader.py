"""A loader in plain Python, the way nanochat describes its own: the peer that nanofast's `crop` equals batch for batch.

    row group (pyarrow) ─▶ 128 documents at a time ─▶ tiktoken's encode_ordinary_batch, BOS in front ─▶ list of 1,000
    ─▶ best fit, cropping the shortest when none fits ─▶ one tensor a batch ─▶ inputs, targets

The description: the docstring and comments of nanochat's `dataloader.py`. The rule itself is `crop` in ARCHITECTURE.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow.parquet as pq
import tiktoken
import torch

BUFFER_DOCUMENTS = 1000
BATCH_DOCUMENTS = 128


class PlainLoader:
    """Endless `(inputs int32 [B, T], targets int64 [B, T])`; `num_documents` counts what it took in."""

    def __init__(
        self,
        paths: Sequence[Path],
        encoding: tiktoken.Encoding,
        batch_size: int,
        sequence_length: int,
        num_threads: int,
    ) -> None:
        self.paths = paths
        self.encoding = encoding
        self.batch_size = batch_size
        self.row_length = sequence_length + 1
        self.num_threads = num_threads
        self.num_documents = 0

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        documents = self.documents()
        buffer: list[list[int]] = []
        while True:
            rows = [self.row(buffer, documents) for _ in range(self.batch_size)]
            tokens = torch.tensor(rows, dtype=torch.int64)
            yield tokens[:, :-1].to(torch.int32), tokens[:, 1:].contiguous()

    def documents(self) -> Iterator[list[list[int]]]:
        """Documents as token lists with BOS, up to 128 of one row group at a time, for ever."""
        bos = self.encoding.eot_token
        while True:
            for path in self.paths:
                file = pq.ParquetFile(path)
                for group in range(file.num_row_groups):
                    texts = file.read_row_group(group, columns=["text"])["text"].to_pylist()
                    for start in range(0, len(texts), BATCH_DOCUMENTS):
                        batch = [text or "" for text in texts[start : start + BATCH_DOCUMENTS]]
                        token_lists = self.encoding.encode_ordinary_batch(batch, num_threads=self.num_threads)
                        for tokens in token_lists:
                            tokens.insert(0, bos)
                        self.num_documents += len(batch)
                        yield token_lists

    def row(self, buffer: list[list[int]], documents: Iterator[list[list[int]]]) -> list[int]:
        """One row: the longest document that fits, again and again; when none does, the front of the shortest."""
        row: list[int] = []
        while len(row) < self.row_length:
            while len(buffer) < BUFFER_DOCUMENTS:
                buffer += next(documents)
            space = self.row_length - len(row)
            best, best_length = -1, 0
            for index, document in enumerate(buffer):
                if best_length < len(document) <= space:
                    best, best_length = index, len(document)
            if best < 0:
                best = min(range(len(buffer)), key=lambda index: len(buffer[index]))
            row += buffer.pop(best)[:space]
        return row
