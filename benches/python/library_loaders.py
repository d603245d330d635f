"""Loaders that libraries give, put together as their guides do: one stream of tokens, rows that are cut from it.

    row group (pyarrow) ─▶ token lists ─▶ rows of T + 1, each beginning with the last token of the one before
    ─▶ B of them stacked ─▶ inputs, targets

Where worker processes read, each has every n-th row group and a stream of its own, and batches come from them in turn:
the batches of nanofast's `concat` with as many lanes.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from contenders import Loader, Task
from vocabularies import hugging_face_file, tiktoken_encoding


def rows(documents: Iterable[list[int]], bos: int, sequence_length: int) -> Iterator[torch.Tensor]:
    """Rows of T + 1 ids from token lists without BOS."""
    tokens: list[int] = []
    for document in documents:
        tokens.append(bos)
        tokens += document
        start = 0
        while len(tokens) - start > sequence_length:
            yield torch.tensor(tokens[start : start + sequence_length + 1])
            start += sequence_length
        del tokens[:start]


def split(batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """inputs int32 [B, T] and targets int64 [B, T] of int64 [B, T + 1]."""
    return batch[:, :-1].to(torch.int32), batch[:, 1:].contiguous()


class RowGroups:
    """Token lists of row groups by number, over all files."""

    def __init__(self, task: Task) -> None:
        self.encoding = tiktoken_encoding(task.vocabulary, task.folder)
        counts = ((path, pq.ParquetFile(path).num_row_groups) for path in task.paths)
        self.places: list[tuple[Path, int]] = [(path, group) for path, count in counts for group in range(count)]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, number: int) -> list[list[int]]:
        path, group = self.places[number]
        texts = pq.ParquetFile(path).read_row_group(group, columns=["text"], use_threads=False)["text"].to_pylist()
        return self.encoding.encode_ordinary_batch([text or "" for text in texts], num_threads=1)


class TextRows(IterableDataset[torch.Tensor]):
    """What people write for a DataLoader: each worker reads every n-th row group, for ever."""

    def __init__(self, task: Task) -> None:
        self.groups, self.sequence_length = RowGroups(task), task.sequence_length

    def __iter__(self) -> Iterator[torch.Tensor]:
        worker = get_worker_info()
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        numbers = itertools.islice(itertools.cycle(range(len(self.groups))), first, None, step)
        documents = (ids for number in numbers for ids in self.groups[number])
        return rows(documents, self.groups.encoding.eot_token, self.sequence_length)


class TorchLoader(Loader):
    """torch's DataLoader; on one thread in the process itself, on several with as many workers."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.loader = self.make(TextRows(task), batch_size=task.batch_size, num_workers=self.num_workers())
        self.batches = map(split, self.loader)

    def make(self, dataset: TextRows, **settings: int) -> Any:
        return DataLoader(dataset, **settings)

    def num_workers(self) -> int:
        return self.task.num_threads if self.task.num_threads > 1 else 0

    def cpu_seconds(self) -> float | None:
        workers = [seconds_of(child.pid) for child in multiprocessing.active_children()]
        return None if None in workers else time.process_time() + sum(filter(None, workers))


class TorchdataLoader(TorchLoader):
    """torchdata's StatefulDataLoader over the same data set, which knows nothing of states: it is read again."""

    def make(self, dataset: TextRows, **settings: int) -> Any:
        from torchdata.stateful_dataloader import StatefulDataLoader

        return StatefulDataLoader(dataset, **settings)

    def state(self) -> Any:
        return self.loader.state_dict()

    def restore(self, state: Any) -> None:
        self.loader.load_state_dict(state)
        self.batches = map(split, self.loader)


class GrainLoader(Loader):
    """Grain: row groups by number, read and tokenized on its threads in order; rows are cut from what it gives."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        import grain

        groups = RowGroups(task)
        numbers = grain.MapDataset.source(range(len(groups))).repeat().map(groups.__getitem__)
        options = grain.ReadOptions(num_threads=task.num_threads, prefetch_buffer_size=2 * task.num_threads)
        self.iterator = iter(numbers.to_iter_dataset(options))
        cut = rows(itertools.chain.from_iterable(self.iterator), groups.encoding.eot_token, task.sequence_length)
        self.batches = stacked(cut, task.batch_size)

    def state(self) -> Any:
        return self.iterator.get_state()

    def restore(self, state: Any) -> None:
        self.iterator.set_state(state)


class DatasetsLoader(Loader):
    """Hugging Face datasets, streaming, 1,000 documents at a time through Hugging Face tokenizers."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        from datasets import load_dataset
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(hugging_face_file(task.vocabulary, task.folder)))

        def encode(columns: dict[str, list[str | None]]) -> dict[str, list[list[int]]]:
            texts = [text or "" for text in columns["text"]]
            return {"ids": [one.ids for one in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]}

        files = [str(path) for path in task.paths]
        dataset = load_dataset("parquet", data_files=files, split="train", streaming=True, columns=["text"])
        self.dataset = dataset.map(encode, batched=True, remove_columns=["text"])
        bos = tiktoken_encoding(task.vocabulary, task.folder).eot_token
        documents = (example["ids"] for _ in itertools.count() for example in self.dataset)
        self.batches = stacked(rows(documents, bos, task.sequence_length), task.batch_size)

    def state(self) -> Any:
        return self.dataset.state_dict()

    def restore(self, state: Any) -> None:
        self.dataset.load_state_dict(state)


def stacked(cut: Iterator[torch.Tensor], batch_size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    while True:
        yield split(torch.stack(list(itertools.islice(cut, batch_size))))


def seconds_of(process: int | None) -> float | None:
    """Processor time of another process; None where the system does not say."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
