"""A packed batch as a reader sees it: documents in colours, borders, what was cut, padding; in a terminal or as a page.

    row 0  │▌The first document, whole.▌The beginning of a second one, of which the rest▸
    row 1  │▌◂comes behind a BOS of its own.▌A third.░░░ 212 of padding

What is whole, and where a part was cut, follows from the documents themselves, tokenized apart from the loader.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nanofast.copies import IGNORE
from nanofast.data.amounts import whole_number
from nanofast.loader import TokenLoader
from nanofast.remote import remote_json

if TYPE_CHECKING:
    import argparse

    from rich.console import RenderableType

    from nanofast.tokenizer import Tokenizer

COLOURS = ("cyan", "green", "yellow", "magenta", "blue", "bright_white")
# Of a longer piece its two ends are shown, where documents meet.
SHOWN_CHARACTERS = 320
PREFIX_TOKENS = 8


@dataclass(frozen=True)
class Piece:
    """Part of a row: a document or a part of one, or padding."""

    text: str
    num_tokens: int
    has_bos: bool
    begins: bool
    """Whether the document's first token is in it."""
    ends: bool
    """Whether the document's last token is in it."""
    is_padding: bool = False


@dataclass(frozen=True)
class Shown:
    """A batch."""

    number: int
    packing: str
    rows: list[list[Piece]]
    counts: dict[str, int]
    """What the batch added to the loader's ledger: learned, bos, padding, cropped, carried."""

    def as_dict(self) -> dict[str, Any]:
        """For scripts."""
        return asdict(self)


def show_batch(
    path: str | Path,
    tokenizer: Tokenizer,
    number: int,
    *,
    text_column: str = "text",
    batch_size: int = 4,
    sequence_length: int = 256,
    packing: str = "best_fit",
    overflow: str = "carry",
) -> Shown:
    """Batch `number` (from 0) of a loader over all of the data on one lane, without shuffling.

    Raises:
        nanofast.Error: the data cannot be read. ValueError: there is no such batch in an epoch.
    """
    if number < 0:
        raise ValueError(f"--batch {number}: batches count from 0")
    with TokenLoader(
        str(path),
        tokenizer,
        batch_size,
        sequence_length,
        text_column=text_column,
        packing=packing,
        overflow=overflow,
        rank=0,
        world_size=1,
        lanes=1,
        epochs=1,
    ) as loader:
        before: dict[str, int] = {}
        batch = None
        for index, batch in enumerate(loader.numpy()):
            if index == number:
                break
            before = loader.metrics()["ledger"]
            batch = None
        if batch is None:
            raise ValueError(f"--batch {number}: an epoch of `{path}` has fewer batches of this shape")
        ledger = loader.metrics()["ledger"]
        bos_id = int(loader.state_dict()["identity"]["bos_id"])
    documents = _Documents(_encoded(path, text_column, tokenizer, ledger["documents"]))
    rows = [
        list(_pieces(inputs, targets, bos_id, tokenizer, documents)) for inputs, targets in zip(*batch, strict=True)
    ]
    counts = {name: ledger[name] - before.get(name, 0) for name in ("learned", "bos", "padding", "cropped", "carried")}
    return Shown(number, packing + (f", {overflow}" if packing == "best_fit" else ""), rows, counts)


def _encoded(path: str | Path, text_column: str, tokenizer: Tokenizer, count: int) -> Iterator[bytes]:
    """The ids of the first `count` documents, as bytes."""
    from nanofast._nanofast import DocumentReader, find_shards

    texts = itertools.chain.from_iterable(
        DocumentReader(shard, text_column) for shard in find_shards(path, remote_json([str(path)], None))
    )
    for text in itertools.islice(texts, count):
        yield tokenizer.encode(text).astype(np.int64).tobytes()


class _Documents:
    """Finds out whether a piece begins or ends one of the documents."""

    def __init__(self, documents: Iterator[bytes]) -> None:
        self._whole: set[bytes] = set()
        self._by_prefix: dict[bytes, list[bytes]] = {}
        for document in documents:
            self._whole.add(document)
            self._by_prefix.setdefault(document[: 8 * PREFIX_TOKENS], []).append(document)

    def borders(self, piece: bytes) -> tuple[bool, bool]:
        """(holds the beginning, holds the end)"""
        if piece in self._whole:
            return True, True
        candidates = self._by_prefix.get(piece[: 8 * PREFIX_TOKENS], [])
        if any(document.startswith(piece) for document in candidates) or (
            len(piece) < 8 * PREFIX_TOKENS and any(document.startswith(piece) for document in self._whole)
        ):
            return True, False
        return False, any(document.endswith(piece) for document in self._whole)


def _pieces(
    inputs_T: np.ndarray[Any, Any],
    targets_T: np.ndarray[Any, Any],
    bos_id: int,
    tokenizer: Tokenizer,
    documents: _Documents,
) -> Iterator[Piece]:
    """A row, cut at its BOS; its last target belongs to it, targets that are not learned are padding."""
    learned = targets_T != IGNORE
    length = int(learned.sum()) + 1 if learned.any() else 0
    row_C = np.append(inputs_T[:1], targets_T[learned]).astype(np.int64)[:length]
    cuts = [0, *(int(at) for at in np.flatnonzero(row_C == bos_id) if at), len(row_C)]
    for begin, end in itertools.pairwise(cuts):
        ids = row_C[begin:end]
        has_bos = bool(len(ids)) and int(ids[0]) == bos_id
        ids = ids[1:] if has_bos else ids
        if not has_bos and not len(ids):
            continue
        begins, ends = documents.borders(ids.tobytes())
        yield Piece(tokenizer.decode(ids), len(ids), has_bos, begins, ends)
    padding = len(inputs_T) + 1 - length
    if padding:
        yield Piece("", padding, has_bos=False, begins=False, ends=False, is_padding=True)


def render(shown: Shown) -> RenderableType:
    """The batch for a rich console."""
    from rich.console import Group
    from rich.text import Text

    counts = shown.counts
    title = Text(f"batch {shown.number}, {shown.packing}: ", style="bold")
    title.append(", ".join(f"{count:,} {name}" for name, count in counts.items()), style="not bold")
    legend = Text("▌ BOS   ◂ the document began before   ▸ it goes on behind, or was cropped   ░ padding", style="dim")
    lines = [title, legend]
    for number, row in enumerate(shown.rows):
        line = Text(f"row {number} ", style="dim")
        for index, piece in enumerate(row):
            line.append_text(_rendered(piece, COLOURS[index % len(COLOURS)]))
        lines.append(line)
    return Group(*lines)


def _rendered(piece: Piece, colour: str) -> Any:
    from rich.text import Text

    if piece.is_padding:
        return Text(f"░░░ {piece.num_tokens:,} of padding", style="dim")
    text = piece.text.replace("\n", "↵").replace("\t", "→")
    if len(text) > SHOWN_CHARACTERS:
        half = SHOWN_CHARACTERS // 2
        text = f"{text[:half]} ⋯ {piece.num_tokens:,} tokens ⋯ {text[-half:]}"
    found = Text("▌" if piece.has_bos else "", style=f"bold {colour}")
    found.append("" if piece.begins else "◂", style="bold red")
    found.append(text, style=f"not bold {colour}")
    return found.append("" if piece.ends else "▸", style="bold red")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What a batch is asked for with."""
    parser.add_argument("--batch", type=int, metavar="N", help="show packed batch N, counted from 0, in colours")
    parser.add_argument("--batch-size", type=whole_number, default=4, metavar="B", help="rows of that batch (4)")
    parser.add_argument(
        "--sequence-length", type=whole_number, default=256, metavar="T", help="tokens of its rows (256)"
    )
    parser.add_argument(
        "--packing", default="best_fit", choices=["best_fit", "concat", "one_per_row"], help="(best_fit)"
    )
    parser.add_argument("--overflow", default="carry", choices=["carry", "crop", "pad"], help="of best_fit (carry)")


def shown_by(arguments: argparse.Namespace, tokenizer: Tokenizer | None) -> Shown | None:
    """The batch that the command line asks for, if any."""
    if arguments.batch is None:
        return None
    if tokenizer is None:
        raise ValueError("--batch needs --tokenizer, such as r50k_base")
    return show_batch(
        arguments.path,
        tokenizer,
        arguments.batch,
        text_column=arguments.text_column or "text",
        batch_size=arguments.batch_size,
        sequence_length=arguments.sequence_length,
        packing=arguments.packing,
        overflow=arguments.overflow,
    )


def print_in_terminal(shown: Shown) -> None:
    """In colours where there is a terminal, in plain letters elsewhere."""
    from rich.console import Console

    Console().print(render(shown))


def as_html(*parts: RenderableType) -> str:
    """What a terminal would show, as a page of its own."""
    import io

    from rich.console import Console

    console = Console(file=io.StringIO(), record=True, width=140, force_terminal=True, color_system="truecolor")
    for part in parts:
        console.print(part, highlight=False, markup=False)
    return console.export_html(inline_styles=True)
