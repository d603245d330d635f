"""The lines of the side-by-side table: who is measured, from what to what, and whose answer each must give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec

from contenders import (
    Contender,
    GigatokenParquet,
    NanofastCarry,
    NanofastConcat,
    NanofastCrop,
    Plain,
    PlainTokens,
    PyarrowDecode,
    Task,
    Tiktoken,
    TwinCarry,
    TwinConcat,
    TwinLanes,
)


@dataclass(frozen=True)
class Entry:
    """A line of the table: who, from what to what, whose answer it must give, and what is unfair about it."""

    make: Callable[[Task], Contender]
    name: str
    path: str
    same_as: str | None = None
    note: str = ""
    has_vocabulary: bool = True
    package: str | None = None  # whom it is by, where that need not be installed
    is_timed: bool = True  # else it is only asked for answers

    @cached_property
    def is_there(self) -> bool:
        """Whether its package is installed."""
        return self.package is None or find_spec(self.package) is not None


def library(name: str) -> Callable[[Task], Contender]:
    """A loader of a library; imported when it is made, since torch is slow to import and others need none of it."""

    def make(task: Task) -> Contender:
        import library_loaders

        contender: Contender = getattr(library_loaders, name)(task)
        return contender

    return make


BATCHES = "parquet → batches"
ENTRIES = {
    "twin_concat": Entry(TwinConcat, "the tests' twin", BATCHES, is_timed=False),
    "twin_carry": Entry(TwinCarry, "the tests' twin", BATCHES, is_timed=False),
    "twin_lanes": Entry(TwinLanes, "the tests' twin", BATCHES, is_timed=False),
    "nanofast_concat": Entry(NanofastConcat, "nanofast, concat", BATCHES, "twin_concat"),
    "nanofast_carry": Entry(NanofastCarry, "nanofast, best_fit", BATCHES, "twin_carry", note="what ratios are to"),
    "nanofast_crop": Entry(
        NanofastCrop, "nanofast, best_fit, crop", BATCHES, "plain", note="the batches of the plain-Python loader"
    ),
    "plain": Entry(
        Plain, "plain Python loader", BATCHES, note="nanochat's way: pyarrow, tiktoken, a list of 1,000 documents, crop"
    ),
    "plain_stream": Entry(PlainTokens, "plain Python, one stream", BATCHES, is_timed=False),
    "torch": Entry(
        library("TorchLoader"),
        "torch DataLoader",
        BATCHES,
        "twin_lanes",
        note="pyarrow and tiktoken; with 2 threads in 2 worker processes beside the one that takes the batches",
    ),
    "torchdata": Entry(
        library("TorchdataLoader"),
        "torchdata StatefulDataLoader",
        BATCHES,
        "twin_lanes",
        note="as torch DataLoader, with a state",
        package="torchdata",
    ),
    "grain": Entry(
        library("GrainLoader"),
        "Grain",
        BATCHES,
        "twin_concat",
        note="pyarrow and tiktoken on its threads, a row group each",
        package="grain",
    ),
    "datasets": Entry(
        library("DatasetsLoader"),
        "HF datasets, streaming",
        BATCHES,
        "twin_concat",
        note="its batched map with HF tokenizers, 1,000 documents a call",
        package="datasets",
    ),
    "gigatoken_parquet": Entry(
        GigatokenParquet,
        "gigatoken, from parquet",
        "parquet → ids",
        "tiktoken",
        note="packs nothing; gives all ids at once, as one array in fresh memory",
    ),
    "tiktoken": Entry(Tiktoken, "tiktoken", "parquet → ids", is_timed=False),
    "pyarrow": Entry(PyarrowDecode, "pyarrow", "parquet → text", note="the floor: no tokens", has_vocabulary=False),
}
