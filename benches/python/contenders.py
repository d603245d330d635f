"""Who is measured, and what each does in a pass over the corpus. Runs inside `worker.py`'s process.

A contender is made once (imports, vocabulary: not timed), then asked for passes, and, in a process of its own, for its
answer. Loaders are endless: a pass is as many batches as the corpus fills, and passes follow each other without a
pause, so that what a loader reads ahead of one pass is not a present to the next.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate, islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

# Batches of a loader's answer, chosen so that the twin's answer takes seconds; a smoke run has fewer.
ANSWER_BATCHES = 48


@dataclass(frozen=True)
class Task:
    """What a process is asked to do."""

    contender: str
    vocabulary: str
    num_threads: int
    paths: tuple[Path, ...]
    folder: Path  # where the vocabularies lie
    batch_size: int
    sequence_length: int
    num_batches: int  # of a loader's pass
    bytes_per_token: float  # of the corpus, BOS counted as a token
    first_core: int = 0  # of those that it is held to


@dataclass(frozen=True)
class Pass:
    """Text and tokens that came out. A loader's tokens are what its batches hold, its text theirs, by the corpus's
    mean; what it read meanwhile is `num_bytes_read`, more where it crops or fills its buffer, less where it drains it.
    """

    num_bytes: int
    num_tokens: int
    num_bytes_read: int | None = None


class Contender:
    """A pass, an answer to hold against the others', and what stages took, where it knows."""

    def __init__(self, task: Task) -> None:
        self.task = task

    def run(self) -> Pass:
        raise NotImplementedError

    def answer(self) -> str:
        raise NotImplementedError

    def cpu_seconds(self) -> float | None:
        """Processor time until now, of other processes that work for this one too; None where nobody tells."""
        return time.process_time()

    def stages(self) -> dict[str, float]:
        return {}


# ---- parquet -> ids -------------------------------------------------------------------------------------------------


class Tiktoken(Contender):
    """The ids that others must give; `bench_tokenizer.py` is where it is timed."""

    def answer(self) -> str:
        from corpus import row_groups
        from vocabularies import tiktoken_encoding

        encoding = tiktoken_encoding(self.task.vocabulary, self.task.folder)
        groups = (texts for shard in row_groups(self.task.paths) for texts in shard)
        return digest_of_documents(ids for texts in groups for ids in encoding.encode_ordinary_batch(texts))


class GigatokenParquet(Contender):
    """gigatoken's own reading of parquet; it gives the ids of all shards at once."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        import gigatoken

        from corpus import document_bytes

        self.tokenizer = _gigatoken(task)
        self.source = gigatoken.ParquetFileSource(list(task.paths), column="text")
        self.num_bytes = sum(sum(document_bytes(path)) for path in task.paths)

    def encode(self) -> Any:
        return self.tokenizer.encode_files(self.source, parallel=self.task.num_threads > 1)

    def run(self) -> Pass:
        return Pass(self.num_bytes, len(self.encode().layout.content))

    def answer(self) -> str:
        return digest_of_documents(self.encode())


class PyarrowDecode(Contender):
    """Row groups to Arrow arrays of text, one thread a row group: what everyone pays before the first token."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        import pyarrow as pa
        import pyarrow.parquet as pq

        pa.set_cpu_count(task.num_threads)
        self.read = lambda path, group: pq.ParquetFile(path).read_row_group(group, columns=["text"], use_threads=False)
        counts = ((path, pq.ParquetFile(path).num_row_groups) for path in task.paths)
        self.groups = [(path, group) for path, count in counts for group in range(count)]

    def decode(self) -> Iterator[Any]:
        with ThreadPoolExecutor(self.task.num_threads) as pool:
            yield from pool.map(lambda place: self.read(*place)["text"], self.groups)

    def run(self) -> Pass:
        import pyarrow.compute as pc

        return Pass(sum(pc.sum(pc.binary_length(column)).as_py() for column in self.decode()), 0)

    def answer(self) -> str:
        return digest_of_documents(text.encode() for column in self.decode() for text in column.to_pylist())


# ---- parquet -> batches ----------------------------------------------------------------------------------------------


class Loader(Contender):
    """`num_batches` a pass, tensors that the caller may keep."""

    batches: Iterator[tuple[Any, Any]]

    def run(self) -> Pass:
        before = self.num_bytes_read()
        num_tokens = sum(inputs.numel() for inputs, _ in islice(self.batches, self.task.num_batches))
        after = self.num_bytes_read()
        read = None if before is None or after is None else after - before
        return Pass(round(num_tokens * self.task.bytes_per_token), num_tokens, read)

    def num_bytes_read(self) -> int | None:
        """Text of all documents taken in since the start; None where the loader does not tell."""
        return None

    def state(self) -> Any:
        """What a checkpoint would keep of it."""
        raise NotImplementedError

    def restore(self, state: Any) -> None:
        """Go on from such a state; before the first batch."""
        raise NotImplementedError

    def answer(self) -> str:
        return digest_of_batches(islice(self.batches, min(ANSWER_BATCHES, self.task.num_batches)))


# One rank reads whole row groups on one lane, as it does where there are many. Left to itself, a corpus of few row
# groups is dealt by ranges, and its decoded row groups are kept: later passes would decode nothing.
ONE_LANE = {"lanes": 1, "unit_documents": 0}


class NanofastLoader(Loader):
    settings: ClassVar[dict[str, Any]]

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        import torch  # noqa: F401 (the first batch would, in the timed pass)

        import nanofast

        tokenizer = nanofast.Tokenizer.from_name(task.vocabulary)
        sizes = (task.batch_size, task.sequence_length)
        self.loader = nanofast.TokenLoader(
            list(task.paths), tokenizer, *sizes, num_threads=task.num_threads, **ONE_LANE, **self.settings
        )
        self.batches = iter(self.loader)

    def num_bytes_read(self) -> int:
        return int(self.loader.metrics()["ledger"]["bytes"])

    def state(self) -> Any:
        return self.loader.state_dict()

    def restore(self, state: Any) -> None:
        self.loader.load_state_dict(state)

    def stages(self) -> dict[str, float]:
        seconds: dict[str, float] = self.loader.metrics()["stage_seconds"]
        return seconds


class NanofastConcat(NanofastLoader):
    settings: ClassVar = {"packing": "concat"}


class NanofastCarry(NanofastLoader):
    settings: ClassVar = {"packing": "best_fit", "overflow": "carry"}


class NanofastCrop(NanofastLoader):
    settings: ClassVar = {"packing": "best_fit", "overflow": "crop", "deal": "per_file"}


class Plain(Loader):
    def __init__(self, task: Task) -> None:
        super().__init__(task)
        from corpus import document_bytes
        from plain_loader import PlainLoader
        from vocabularies import tiktoken_encoding

        encoding = tiktoken_encoding(task.vocabulary, task.folder)
        sizes = (task.batch_size, task.sequence_length)
        self.loader = PlainLoader(task.paths, encoding, *sizes, task.num_threads)
        self.batches = iter(self.loader)
        self.ends = [0, *accumulate(size for path in task.paths for size in document_bytes(path))]

    def num_bytes_read(self) -> int:
        epochs, documents = divmod(self.loader.num_documents, len(self.ends) - 1)
        return epochs * self.ends[-1] + self.ends[documents]


class PlainTokens(Loader):
    """The plain loader that cuts one stream of tokens, with the state that nanochat saves."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        from plain_loader import PlainStream
        from vocabularies import tiktoken_encoding

        encoding = tiktoken_encoding(task.vocabulary, task.folder)
        sizes = (task.batch_size, task.sequence_length)
        self.loader = PlainStream(task.paths, encoding, *sizes, task.num_threads)
        self.batches = iter(self.loader)

    def state(self) -> Any:
        return self.loader.state

    def restore(self, state: Any) -> None:
        self.loader.resumes_behind = state


class Twin(Loader):
    """The tests' twin of the stream over tiktoken's ids: only its answer is of use."""

    packing: str

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        from corpus import row_groups
        from stream_twin import Stream
        from vocabularies import tiktoken_encoding

        encoding = tiktoken_encoding(task.vocabulary, task.folder)
        encode: Callable[[Sequence[str]], Any] = encoding.encode_ordinary_batch
        shards = [[encode(texts) for texts in shard] for shard in row_groups(task.paths)]
        sizes = (task.batch_size, task.sequence_length)
        settings = {"packing": self.packing, "lanes": self.num_lanes(), "unit_documents": 0}
        self.batches = Stream(shards, *sizes, bos=encoding.eot_token, **settings).batches()

    def num_lanes(self) -> int:
        return 1


class TwinConcat(Twin):
    packing = "concat"


class TwinLanes(TwinConcat):
    """A lane for each worker process."""

    def num_lanes(self) -> int:
        return self.task.num_threads


class TwinCarry(Twin):
    packing = "carry"


def _gigatoken(task: Task) -> Any:
    import gigatoken

    from vocabularies import tiktoken_file

    return gigatoken.Tokenizer.from_tiktoken(tiktoken_file(task.vocabulary, task.folder))


def digest_of_documents(documents: Iterable[Any]) -> str:
    """Of the number of documents, and the ids (or bytes) of each."""
    digest, count = hashlib.sha256(), 0
    for document in documents:
        content = document if isinstance(document, bytes) else np.asarray(document, np.uint32).tobytes()
        digest.update(len(content).to_bytes(8, "little") + content)
        count += 1
    return f"{count} documents, {digest.hexdigest()}"


def digest_of_batches(batches: Iterable[tuple[Any, Any]]) -> str:
    digest, count = hashlib.sha256(), 0
    for inputs, targets in batches:
        digest.update(np.asarray(inputs, np.int32).tobytes() + np.asarray(targets, np.int64).tobytes())
        count += 1
    return f"{count} batches, {digest.hexdigest()}"
