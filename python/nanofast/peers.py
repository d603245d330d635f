"""What turns parquet into text, ids and batches on this machine: nanofast, and whoever else is installed.

Each is a function of a `Work` that yields what came out, chunk by chunk, for ever. Whoever is to give the same as
another names it, and is held to that by the first chunk (bench.py). Nothing is imported but by the function that needs
it.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nanofast.tokenizer import Tokenizer

# Documents of a call of a tokenizer: enough for several threads, little enough that a slow one can be stopped.
CALL_DOCUMENTS = 256


@dataclass(frozen=True)
class Work:
    """What a process is asked to measure."""

    name: str
    places: tuple[tuple[str, int], ...]
    """Files with row groups of theirs: the sample."""
    text_column: str
    folder: str
    """Where the vocabulary lies, as `tokenizer.nanofast` and, for others, `tokenizer.json`."""
    vocabulary: str
    num_threads: int
    seconds: float
    batch_size: int
    sequence_length: int

    def tokenizer(self) -> Tokenizer:
        """The vocabulary as nanofast reads it."""
        return Tokenizer.from_file(Path(self.folder) / "tokenizer.nanofast")

    def shards(self) -> list[Path]:
        """The files of the sample."""
        return [Path(path) for path in dict.fromkeys(path for path, _ in self.places)]


class Chunk(NamedTuple):
    """What came out: bytes of text, tokens, and the answer, taken when somebody asks."""

    num_bytes: int
    num_tokens: int
    answer: Callable[[], str]


def digest(parts: Sequence[bytes]) -> str:
    """The number of parts, and a hash of all."""
    found = hashlib.sha256()
    for part in parts:
        found.update(len(part).to_bytes(8, "little") + part)
    return f"{len(parts)} {found.hexdigest()}"


# ---- parquet -> text ---------------------------------------------------------------------------------------------


def nanofast_text(work: Work) -> Iterator[Chunk]:
    """Texts as Python bytes, a row group a thread."""
    from nanofast._nanofast import read_row_group

    def read(place: tuple[str, int]) -> list[bytes]:
        path, group = place
        return read_row_group(path, group, work.text_column)

    with ThreadPoolExecutor(work.num_threads) as pool:
        while True:
            for texts in pool.map(read, work.places):
                yield Chunk(sum(map(len, texts)), 0, partial(digest, texts))


def pyarrow_text(work: Work) -> Iterator[Chunk]:
    """Texts as Arrow arrays, a row group a thread."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    def read(place: tuple[str, int]) -> Any:
        path, group = place
        return pq.ParquetFile(path).read_row_group(group, [work.text_column], use_threads=False)[work.text_column]

    def answer(column: Any) -> str:
        return digest([(text or "").encode() for text in column.to_pylist()])

    with ThreadPoolExecutor(work.num_threads) as pool:
        while True:
            for column in pool.map(read, work.places):
                yield Chunk(pc.sum(pc.binary_length(column)).as_py() or 0, 0, partial(answer, column))


# ---- text -> ids -------------------------------------------------------------------------------------------------


def _encoded(
    work: Work, encode: Callable[[list[str]], Any], each: Callable[[Any], Any], count: Callable[[Any], int]
) -> Iterator[Chunk]:
    """Texts of the sample in memory, some hundred a call; `each` makes single documents of what a call gives."""
    from nanofast._nanofast import read_row_group

    calls = []
    for path, group in work.places:
        texts = [text.decode(errors="replace") for text in read_row_group(path, group, work.text_column)]
        calls += [texts[at : at + CALL_DOCUMENTS] for at in range(0, len(texts), CALL_DOCUMENTS)]
    sizes = [sum(len(text.encode()) for text in call) for call in calls]

    def answer(encoded: Any) -> str:
        return digest([np.asarray(ids, np.uint32).tobytes() for ids in each(encoded)])

    def chunks() -> Iterator[Chunk]:
        for call, size in cycle(zip(calls, sizes, strict=True)):
            encoded = encode(call)
            yield Chunk(size, count(encoded), partial(answer, encoded))

    encode(["a word"])
    return chunks()


def nanofast_ids(work: Work) -> Iterator[Chunk]:
    """`Tokenizer.encode_batch`."""
    tokenizer = work.tokenizer()

    def encode(texts: list[str]) -> Any:
        return tokenizer.encode_batch(texts, num_threads=work.num_threads)

    return _encoded(work, encode, lambda found: np.split(found[0], found[1][1:-1]), lambda found: len(found[0]))


def gigatoken_ids(work: Work) -> Iterator[Chunk]:
    """gigatoken's `encode_batch`; it takes all cores of the process, or one."""
    import gigatoken

    folder = Path(work.folder)
    ranks = folder / f"{work.vocabulary}.tiktoken"
    # It knows the patterns of bundled vocabularies by the names of their files.
    make = gigatoken.Tokenizer.from_tiktoken if ranks.exists() else gigatoken.Tokenizer
    tokenizer = make(ranks if ranks.exists() else str(folder / "tokenizer.json"))

    def encode(texts: list[str]) -> Any:
        return tokenizer.encode_batch(texts, parallel=work.num_threads > 1)

    return _encoded(work, encode, lambda found: found, lambda found: len(found.layout.content))


def tiktoken_ids(work: Work) -> Iterator[Chunk]:
    """tiktoken's `encode_ordinary_batch`."""
    encoding, _ = tiktoken_encoding(work)

    def encode(texts: list[str]) -> Any:
        return encoding.encode_ordinary_batch(texts, num_threads=work.num_threads)

    return _encoded(work, encode, lambda found: found, lambda found: sum(map(len, found)))


def tokenizers_ids(work: Work) -> Iterator[Chunk]:
    """Hugging Face tokenizers' `encode_batch_fast`; it takes all cores of the process."""
    from tokenizers import Tokenizer as HuggingFace

    tokenizer = HuggingFace.from_file(str(Path(work.folder) / "tokenizer.json"))

    def encode(texts: list[str]) -> Any:
        return [one.ids for one in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]

    return _encoded(work, encode, lambda found: found, lambda found: sum(map(len, found)))


def tiktoken_encoding(work: Work) -> tuple[Any, int]:
    """The vocabulary as tiktoken has it, and BOS.

    Raises:
        ValueError: it does more than split by a pattern and merge by rank.
    """
    import tiktoken

    tokenizer = work.tokenizer()
    written = json.loads((Path(work.folder) / "tokenizer.nanofast").read_bytes())
    stages = written["pattern"]["stages"]
    if len(stages) != 1 or written["normalizer"] != "none" or written["merges"] != "by_rank":
        raise ValueError("this vocabulary does more than split by one pattern and merge by rank")
    if tokenizer.bos_id is None:
        raise ValueError("this vocabulary has no BOS")
    ranks = {base64.b64decode(token): number for number, token in written["tokens"]}
    encoding = tiktoken.Encoding("own", pat_str=stages[0]["regex"], mergeable_ranks=ranks, special_tokens={})
    return encoding, tokenizer.bos_id


# ---- parquet -> batches ------------------------------------------------------------------------------------------


def _nanofast_batches(work: Work, packing: str) -> Iterator[Chunk]:
    from nanofast.loader import TokenLoader

    settings: dict[str, Any] = {"rank": 0, "world_size": 1, "lanes": 1, "unit_documents": 0, "packing": packing}
    settings |= {"text_column": work.text_column, "num_threads": work.num_threads}
    tokenizer = work.tokenizer()

    def chunks() -> Iterator[Chunk]:
        with TokenLoader(work.shards(), tokenizer, work.batch_size, work.sequence_length, **settings) as loader:
            before = 0
            for inputs, targets in loader.numpy():
                num_bytes = loader.metrics()["ledger"]["bytes"]
                yield Chunk(num_bytes - before, inputs.size, partial(_answer, inputs, targets))
                before = num_bytes

    return chunks()


def nanofast_concat(work: Work) -> Iterator[Chunk]:
    """`TokenLoader`, one stream of tokens."""
    return _nanofast_batches(work, "concat")


def nanofast_best_fit(work: Work) -> Iterator[Chunk]:
    """`TokenLoader`, rows that begin with BOS."""
    return _nanofast_batches(work, "best_fit")


def plain_batches(work: Work) -> Iterator[Chunk]:
    """What a page of Python gives: pyarrow, tiktoken, one list of tokens."""
    import pyarrow.parquet as pq

    encoding, bos = tiktoken_encoding(work)
    needed = work.batch_size * work.sequence_length

    def calls() -> Iterator[list[str]]:
        for path in cycle(work.shards()):
            file = pq.ParquetFile(path)
            for group in range(file.num_row_groups):
                column = file.read_row_group(group, [work.text_column])[work.text_column]
                texts = [text or "" for text in column.to_pylist()]
                yield from (texts[at : at + CALL_DOCUMENTS] for at in range(0, len(texts), CALL_DOCUMENTS))

    def chunks() -> Iterator[Chunk]:
        tokens: list[int] = []
        num_bytes = 0
        for texts in calls():
            num_bytes += sum(len(text.encode()) for text in texts)
            for ids in encoding.encode_ordinary_batch(texts, num_threads=work.num_threads):
                tokens += [bos, *ids]
            while len(tokens) > needed:
                stretch = np.array(tokens[: needed + 1])
                inputs = stretch[:-1].astype(np.int32).reshape(work.batch_size, -1)
                targets = stretch[1:].reshape(work.batch_size, -1)
                del tokens[:needed]
                yield Chunk(num_bytes, needed, partial(_answer, inputs, targets))
                num_bytes = 0

    return chunks()


def _answer(inputs: Any, targets: Any) -> str:
    return digest([np.asarray(inputs, np.int32).tobytes(), np.asarray(targets, np.int64).tobytes()])


class Entry(NamedTuple):
    """A line of the page: from what to what, by whom, with which packages, and whose answer it must give."""

    kind: str
    name: str
    make: Callable[[Work], Iterator[Chunk]]
    packages: tuple[str, ...] = ()
    same_as: str | None = None


TEXT, IDS, BATCHES = "parquet → text", "text → ids", "parquet → batches"
ENTRIES = {
    "nanofast_text": Entry(TEXT, "nanofast, as Python bytes", nanofast_text),
    "pyarrow_text": Entry(TEXT, "pyarrow, as Arrow arrays", pyarrow_text, ("pyarrow",), "nanofast_text"),
    "nanofast_ids": Entry(IDS, "nanofast", nanofast_ids),
    "gigatoken_ids": Entry(IDS, "gigatoken", gigatoken_ids, ("gigatoken",), "nanofast_ids"),
    "tiktoken_ids": Entry(IDS, "tiktoken", tiktoken_ids, ("tiktoken",), "nanofast_ids"),
    "tokenizers_ids": Entry(IDS, "HF tokenizers", tokenizers_ids, ("tokenizers",), "nanofast_ids"),
    "nanofast_concat": Entry(BATCHES, "nanofast, concat", nanofast_concat),
    "nanofast_best_fit": Entry(BATCHES, "nanofast, best_fit", nanofast_best_fit),
    "plain_batches": Entry(
        BATCHES, "pyarrow and tiktoken, concat", plain_batches, ("pyarrow", "tiktoken"), "nanofast_concat"
    ),
}
