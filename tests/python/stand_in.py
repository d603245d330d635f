"""A loader and a tokenizer of a few lines with the faces of the real ones, for tests of the trainer alone.

Rows are made of a text of small words by a counter, so the stream is a pure function of seed, rank and position, and
its state is one number. Bytes are tokens; id 256 is BOS.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch

BOS = 256
WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "saw", "some", "more", "cats"]


class ByteTokenizer:
    """One token a byte."""

    vocab_size = 257
    bos_id = BOS
    fingerprint = "bytes"

    def encode(self, text: str) -> np.ndarray[Any, Any]:
        return np.frombuffer(text.encode(), dtype=np.uint8).astype(np.uint32)

    def decode(self, ids: list[int]) -> str:
        return bytes(i for i in ids if i < 256).decode(errors="replace")

    def decode_bytes(self, ids: list[int]) -> bytes:
        return bytes(i for i in ids if i < 256)

    def token_bytes(self) -> np.ndarray[Any, Any]:
        return np.array([1] * 256 + [0], dtype=np.int32)


class RowLoader:
    """Endless batches; batch k of rank r holds the same rows at every batch size and world size."""

    def __init__(
        self,
        batch_size: int,
        sequence_length: int,
        *,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
        masked_every: int = 0,
    ) -> None:
        self.shape = batch_size, sequence_length
        self.rank, self.world_size, self.seed, self.masked_every = rank, world_size, seed, masked_every
        self.position = 0

    def row(self, number: int) -> list[int]:
        words = random.Random(f"{self.seed}/{number}")
        text = " ".join(words.choice(WORDS) for _ in range(self.shape[1]))
        return [BOS, *text.encode()[: self.shape[1]]]

    def __iter__(self) -> RowLoader:
        return self

    def __next__(self) -> tuple[torch.Tensor, torch.Tensor]:
        batch_size, _ = self.shape
        first = (self.position * self.world_size + self.rank) * batch_size
        self.position += 1
        rows = torch.tensor([self.row(first + i) for i in range(batch_size)])
        inputs, targets = rows[:, :-1].to(torch.int32), rows[:, 1:].clone()
        if self.masked_every:  # rows learn less and less, up to one that learns nothing
            for i in range(batch_size):
                part = (first + i) % self.masked_every
                targets[i, : part * targets.size(1) // (self.masked_every - 1)] = -1
        return inputs, targets

    def state_dict(self) -> dict[str, int]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.position = state["position"]

    def metrics(self) -> dict[str, Any]:
        return {"ledger": {"read": 0, "learned": 0}}

    def close(self) -> None:
        pass
