"""`python -m nanofast.data inspect PATH`: what is in a data set, and what to mind before training on it.

    python -m nanofast.data inspect ~/shards
    python -m nanofast.data inspect ~/shards --tokenizer r50k_base --world-size 8 --json
    python -m nanofast.data inspect ~/shards --tokenizer r50k_base --batch 0 --html page.html

Counts come from the footers. Lengths and tokens per byte come from row groups spread evenly over the whole, up to
`--sample-mb` of text, because reading all of a large set takes long and says no more.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nanofast.command import local_path
from nanofast.data import inspect_chat, inspect_tokens, show
from nanofast.data.amounts import positive_number, whole_number
from nanofast.data.inputs import require_shards
from nanofast.remote import remote_json, shown
from nanofast.token_files import is_token_data

if TYPE_CHECKING:
    from nanofast._nanofast import Location
    from nanofast.tokenizer import Tokenizer

# A row group is decoded page by page, but resuming inside one reads it from its start: above this it takes seconds.
LARGE_ROW_GROUP_BYTES = 1 << 30
# The loader deals whole row groups where a lane has this many (STREAM of the loader: units), else it cuts them.
ROW_GROUPS_A_LANE = 32
# Columns that are not marked as strings and read as text all the same, as the loader's schema describes them.
BYTES_AS_TEXT = ("binary", "json (binary)", "enum (binary)")


@dataclass
class Facts:
    """A data set, as the footers and a sample of the text show it."""

    path: str
    num_shards: int = 0
    num_row_groups: int = 0
    num_documents: int = 0
    file_bytes: int = 0
    text_bytes: int = 0
    """Of documents: counted where all were looked at, else scaled from those that were; of the column without such."""
    num_nulls: int = 0
    """Rows without a text, as far as writers counted them."""
    columns: dict[str, str] = field(default_factory=dict)
    text_column: str = "text"
    compressions: dict[str, int] = field(default_factory=dict)
    encodings: dict[str, int] = field(default_factory=dict)
    writers: dict[str, int] = field(default_factory=dict)
    row_group_documents: list[int] = field(default_factory=list)
    sample: dict[str, Any] = field(default_factory=dict)
    ranks: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def inspect(
    path: str | Path,
    *,
    text_column: str | None = None,
    tokenizer: Tokenizer | None = None,
    world_size: int = 1,
    sample_bytes: int = 64_000_000,
) -> Facts:
    """Look at a file, folder, glob or URL. `text_column` None: `text`, where there is such a column.

    Raises:
        nanofast.Error: nothing is there, or a file is no parquet file or has no such text column.
    """
    from nanofast._nanofast import find_shards, read_footer

    shards = find_shards(path, remote_json([str(path)], None))
    facts = Facts(shown(str(path)), num_shards=len(shards), text_column=text_column or "text")
    is_text = True
    groups: list[tuple[Location, int, int]] = []  # shard, row group, bytes of text
    counts = {"compressions": Counter[str](), "encodings": Counter[str](), "writers": Counter[str]()}
    for shard in shards:
        footer = json.loads(read_footer(shard))
        columns = {column["name"]: column["type"] for column in footer["columns"]}
        is_text = is_text and any(column["is_text"] for column in footer["columns"] if column["name"] == "text")
        if facts.columns and columns != facts.columns:
            facts.warnings.append(f"`{shard}` has other columns than the shards before it: {_listed(columns)}")
        facts.columns = facts.columns or columns
        facts.file_bytes += footer["size_bytes"]
        facts.num_documents += footer["num_rows"]
        counts["writers"][footer["created_by"] or "unknown"] += 1
        for index, group in enumerate(footer["row_groups"]):
            chunk = next((chunk for chunk in group["chunks"] if chunk["path"] == facts.text_column), None)
            size = chunk["uncompressed_bytes"] if chunk else 0
            facts.row_group_documents.append(group["num_rows"])
            facts.text_bytes += size
            groups.append((shard, index, size))
            if chunk:
                counts["compressions"][chunk["compression"]] += 1
                counts["encodings"].update(chunk["encodings"])
                facts.num_nulls += chunk["num_nulls"] or 0
    facts.num_row_groups = len(groups)
    for name, counter in counts.items():
        setattr(facts, name, dict(counter.most_common()))
    has_text = text_column is not None or is_text
    looked_at = groups[:: max(1, -(-facts.text_bytes // max(1, sample_bytes)))] if has_text else []
    facts.sample = _sampled(_texts(looked_at, facts.text_column), tokenizer)
    column_bytes = sum(size for _, _, size in looked_at)
    if column_bytes:
        facts.text_bytes = round(facts.sample["num_bytes"] * facts.text_bytes / column_bytes)
    facts.ranks = _ranks(facts, world_size)
    facts.warnings += _warnings(facts, max((size for _, _, size in groups), default=0))
    return facts


def _texts(groups: list[tuple[Location, int, int]], text_column: str) -> Iterator[bytes]:
    """Documents of row groups."""
    from nanofast._nanofast import read_row_group

    for shard, index, _ in groups:
        yield from read_row_group(shard, index, text_column)


def _sampled(texts: Iterator[bytes], tokenizer: Tokenizer | None) -> dict[str, Any]:
    lengths: list[int] = []
    histogram: Counter[int] = Counter()
    num_tokens, num_token_bytes = 0, 0
    for text in texts:
        lengths.append(len(text))
        histogram[len(text).bit_length()] += 1
        if tokenizer is not None and text:
            num_tokens += len(tokenizer.encode(text.decode("utf-8", "replace")))
            num_token_bytes += len(text)
    if not lengths:
        return {"num_documents": 0, "num_bytes": 0}
    return {
        "num_documents": len(lengths),
        "num_bytes": sum(lengths),
        "num_empty": histogram[0],
        "shortest_bytes": min(lengths),
        "median_bytes": int(statistics.median(lengths)),
        "longest_bytes": max(lengths),
        # Key: the largest length that falls into the class (0, 1, 3, 7, 15, …).
        "histogram": {str((1 << bits) - 1): histogram[bits] for bits in range(max(histogram) + 1)},
        "bytes_per_token": num_token_bytes / num_tokens if num_tokens else None,
        "tokens_per_byte": num_tokens / num_token_bytes if num_tokens else None,
    }


def _ranks(facts: Facts, world_size: int) -> dict[str, Any]:
    """What each process of a run would read: lanes as the loader chooses them."""
    lanes = 8 if 8 % world_size == 0 else world_size
    per_token = facts.sample.get("bytes_per_token")
    return {
        "world_size": world_size,
        "lanes": lanes,
        "row_groups_per_lane": facts.num_row_groups / lanes,
        "documents_per_rank": facts.num_documents // world_size,
        "bytes_per_rank": facts.text_bytes // world_size,
        "tokens_per_rank": int(facts.text_bytes / per_token / world_size) if per_token else None,
    }


def _warnings(facts: Facts, largest_bytes: int) -> Iterator[str]:
    """What matters before training."""
    kind = facts.columns.get(facts.text_column)
    lists = [name for name, column in facts.columns.items() if column.startswith("list<")]
    if not facts.sample["num_documents"] and facts.num_documents:
        others = [name for name, column in facts.columns.items() if column == "string"]
        advice = f"; pass --text-column {others[0]}" if others else ""
        yield f"no text in a column `{facts.text_column}`, so lengths were not looked at{advice}"
    if lists:
        yield (
            f"column `{lists[0]}` is a list: conversations are looked at with --chat and loaded with ChatLoader, not "
            "as text"
        )
    if kind in BYTES_AS_TEXT:
        yield f"column `{facts.text_column}` is {kind}; it is read as text and checked to be UTF-8 when tokenized"
    elif kind is not None and kind != "string" and not kind.startswith("list<"):
        yield f"column `{facts.text_column}` is {kind}, which is no text: the loader refuses it"
    if largest_bytes > LARGE_ROW_GROUP_BYTES:
        yield (
            f"a row group holds {largest_bytes / 1e9:.1f} GB of text: resuming inside it reads it from its start; "
            "write row groups of about 1,000 documents"
        )
    if facts.num_nulls:
        yield f"{facts.num_nulls:,} documents are null; each of them trains one token, BOS"
    empty = facts.sample.get("num_empty", 0)
    if empty:
        share = empty / facts.sample["num_documents"]
        yield f"{share:.2%} of the documents looked at are empty or null; each of them trains one token, BOS"
    if facts.num_shards == 1:
        yield "one shard: its last twentieth validates, where otherwise the last shard does"
    lanes = facts.ranks["lanes"]
    if facts.num_row_groups < lanes:
        yield (
            f"{facts.num_row_groups} row groups for {lanes} lanes: every rank decodes the same row groups and takes "
            f"its part of them; {lanes * ROW_GROUPS_A_LANE} or more would be dealt whole"
        )
    if facts.num_documents < lanes:
        yield f"{facts.num_documents} documents for {lanes} lanes: a lane without any is refused by the loader"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line."""
    parser.add_argument("path", help="a parquet file, a folder of them, a glob, or a URL")
    parser.add_argument(
        "--text-column", metavar="NAME", help="the column that holds the documents (text, where there is one)"
    )
    parser.add_argument(
        "--tokenizer", metavar="NAME_OR_FILE", help="a bundled vocabulary or a file: shows bytes per token"
    )
    parser.add_argument(
        "--world-size", type=whole_number, default=1, metavar="N", help="processes of the run to plan for (1)"
    )
    parser.add_argument(
        "--sample-mb", type=positive_number, default=64.0, metavar="MB", help="text to read for lengths (64)"
    )
    parser.add_argument("--json", action="store_true", help="print all of it as JSON")
    parser.add_argument("--html", type=local_path, metavar="PAGE", help="write what is shown as a page too")
    show.add_arguments(parser)
    inspect_chat.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """The command."""
    tokenizer = None if arguments.tokenizer is None else named_tokenizer(arguments.tokenizer)
    if arguments.chat:
        return inspect_chat.run(arguments, tokenizer)
    require_shards(arguments.path, "pass --chat to look at conversations")
    if is_token_data(arguments.path):
        if arguments.batch is not None:
            raise ValueError(f"`{arguments.path}` holds tokens; --batch shows how parquet text is packed")
        files = inspect_tokens.inspect_tokens(arguments.path)
        if arguments.html is not None:
            arguments.html.write_text(show.as_html(inspect_tokens.described(files)), "utf-8")
        print(json.dumps(files, indent=2) if arguments.json else inspect_tokens.described(files))
        return 0
    facts = inspect(
        arguments.path,
        text_column=arguments.text_column,
        tokenizer=tokenizer,
        world_size=arguments.world_size,
        sample_bytes=int(1e6 * arguments.sample_mb),
    )
    batch = show.shown_by(arguments, tokenizer)
    if arguments.html is not None:
        parts = [described(facts)] if batch is None else [described(facts), show.render(batch)]
        arguments.html.write_text(show.as_html(*parts), "utf-8")
    if arguments.json:
        print(json.dumps(asdict(facts) | ({} if batch is None else {"batch": batch.as_dict()}), indent=2))
        return 0
    print(described(facts))
    if batch is not None:
        show.print_in_terminal(batch)
    return 0


def named_tokenizer(name: str) -> Tokenizer:
    """A bundled vocabulary, or one from a file."""
    from nanofast.tokenizer import Tokenizer

    return Tokenizer.from_file(name) if Path(name).exists() else Tokenizer.from_name(name)


def described(facts: Facts) -> str:
    """The facts as a reader sees them."""
    sample, ranks, groups = facts.sample, facts.ranks, facts.row_group_documents
    lines = [
        f"{facts.path}",
        f"  shards      {facts.num_shards:,}, {_size(facts.file_bytes)} on disk",
        f"  row groups  {facts.num_row_groups:,}"
        + (f", of {min(groups):,} to {max(groups):,} documents" if groups else ""),
        f"  documents   {facts.num_documents:,}, {_size(facts.text_bytes)} of `{facts.text_column}`",
        f"  columns     {_listed(facts.columns)}",
        f"  stored as   {', '.join(facts.compressions) or 'nothing'}; {', '.join(facts.encodings)}",
        f"  written by  {', '.join(facts.writers)}",
    ]
    if sample["num_documents"]:
        lines += [
            f"  lengths     median {sample['median_bytes']:,} bytes, {sample['shortest_bytes']:,} to "
            f"{sample['longest_bytes']:,} (of {sample['num_documents']:,} documents looked at)",
            *_bars(sample["histogram"]),
        ]
        if sample["bytes_per_token"]:
            tokens = facts.text_bytes / sample["bytes_per_token"]
            lines.append(
                f"  tokens      {sample['bytes_per_token']:.3f} bytes each, {sample['tokens_per_byte']:.3f} a byte, "
                f"about {tokens / 1e6:,.3g} million in all"
            )
    per_rank = f"{ranks['documents_per_rank']:,} documents, {_size(ranks['bytes_per_rank'])}"
    lines.append(
        f"  each rank   {per_rank} of {ranks['world_size']}; {ranks['lanes']} lanes of "
        f"{ranks['row_groups_per_lane']:.3g} row groups"
    )
    return "\n".join([*lines, *(f"  mind        {warning}" for warning in facts.warnings)])


def _bars(histogram: dict[str, int]) -> list[str]:
    """One line a class of lengths, from the first that has documents."""
    classes = [(int(most), count) for most, count in histogram.items()]
    first = next(index for index, (_, count) in enumerate(classes) if count)
    highest = max(count for _, count in classes)
    return [f"    ≤ {most:>11,}  {'█' * round(40 * count / highest):40} {count:,}" for most, count in classes[first:]]


def _listed(columns: dict[str, str]) -> str:
    return ", ".join(f"`{name}` {kind}" for name, kind in columns.items())


def _size(num_bytes: float) -> str:
    for unit, letter in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if num_bytes >= unit:
            return f"{num_bytes / unit:.3g} {letter}"
    return f"{num_bytes:.0f} bytes"
