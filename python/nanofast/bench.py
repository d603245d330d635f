"""`python -m nanofast.bench [DATA]`: how fast your data becomes text, ids and batches on your machine, and beside whom.

    python -m nanofast.bench                                  the sample corpus, r50k, all numbers of threads
    python -m nanofast.bench ~/shards --tokenizer cl100k_base --threads 1 8 --out page/

nanofast and whoever else is installed (peers.py) read the first row groups of the data, each in a fresh process that is
held to as many cores as it has threads. Who does not give what nanofast gives is named and not timed. What comes out: a
table on the screen, `bench.html` (one file, no network) and `bench.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from nanofast.command import Parser, exit_code, local_path
from nanofast.data.amounts import numbers_of_threads, positive_number, whole_number
from nanofast.errors import InvalidError
from nanofast.peers import BATCHES, ENTRIES, IDS, TEXT, Chunk, Work

# Whom the other lines of a kind are compared with.
REFERENCES = {TEXT: "nanofast_text", IDS: "nanofast_ids", BATCHES: "nanofast_concat"}
LEGEND = (
    "MB are millions of bytes of UTF-8. Cold: the first pass of a fresh process over the sample, or as much of it as "
    "the time allows, files in the system's cache; warm: what follows, for as long again. Imports and vocabularies are "
    "not timed. ×: the warm rate by nanofast's of the same kind (concat, for batches) and number of threads. parquet → "
    "text is what everyone pays before the first token; nanofast makes a Python object of each document there."
)


@dataclass(frozen=True)
class Row:
    """What one contender gave with one number of threads."""

    kind: str
    name: str
    num_threads: int
    cold_mb_per_second: float
    warm_mb_per_second: float
    warm_tokens_per_second: float | None
    ratio: float
    """Of the warm rate by that of nanofast's line of this kind."""


@dataclass(frozen=True)
class LeftOut:
    """Who was not measured, and why."""

    kind: str
    name: str
    reason: str


def measure(work: Work, num_bytes: int) -> dict[str, Any]:
    """In a process of its own: rates of the first pass over `num_bytes`, and of what follows."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: work.num_threads])
    os.environ["RAYON_NUM_THREADS"] = str(work.num_threads)  # where there is no affinity
    chunks = ENTRIES[work.name].make(work)
    start = time.perf_counter()
    first = next(chunks)
    seconds = time.perf_counter() - start
    cold = _rates(chunks, [first], seconds, work.seconds, num_bytes)
    warm = _rates(chunks, [], 0.0, work.seconds, None)
    return {"cold": cold, "warm": warm, "answer": first.answer()}


def _rates(
    chunks: Iterator[Chunk], begun: list[Chunk], spent: float, seconds: float, num_bytes: int | None
) -> tuple[float, float]:
    """Bytes and tokens a second of what was begun and what follows, until so much time or text has passed."""
    done_bytes = sum(chunk.num_bytes for chunk in begun)
    done_tokens = sum(chunk.num_tokens for chunk in begun)
    start = time.perf_counter() - spent
    while spent < seconds and (num_bytes is None or done_bytes < num_bytes):
        chunk = next(chunks)
        done_bytes += chunk.num_bytes
        done_tokens += chunk.num_tokens
        spent = time.perf_counter() - start
    return done_bytes / spent, done_tokens / spent


def compare(work: Work, threads: Sequence[int], num_bytes: int) -> tuple[list[Row], list[LeftOut]]:
    """Every contender with every number of threads; prints what it does."""
    rows: list[Row] = []
    left_out: dict[str, LeftOut] = {}
    for num_threads in threads:
        found: dict[str, dict[str, Any]] = {}
        for key, entry in ENTRIES.items():
            if key in left_out:
                continue
            print(f"  {entry.kind}: {entry.name}, {num_threads} threads …", file=sys.stderr)
            reason = _missing(entry.packages)
            if reason is None:
                try:
                    report = _in_a_process(replace(work, name=key, num_threads=num_threads), num_bytes)
                except Exception as error:
                    if not entry.packages:
                        raise
                    reason = f"it failed: {' '.join(str(error).split())}"
            if reason is None:
                reason = differing(key, {**found, key: report})
            if reason is not None:
                left_out[key] = LeftOut(entry.kind, entry.name, reason)
                continue
            found[key] = report
            (cold, _), (warm, tokens) = report["cold"], report["warm"]
            ratio = warm / found[REFERENCES[entry.kind]]["warm"][0]
            rows.append(Row(entry.kind, entry.name, num_threads, cold / 1e6, warm / 1e6, tokens or None, ratio))
    return rows, list(left_out.values())


def differing(key: str, reports: dict[str, dict[str, Any]]) -> str | None:
    """What is wrong with the answer of one, if anything is."""
    same_as = ENTRIES[key].same_as
    if same_as is None or reports[key]["answer"] == reports[same_as]["answer"]:
        return None
    return f"it gives something else than {ENTRIES[same_as].name}"


def _missing(packages: Sequence[str]) -> str | None:
    absent = [name for name in packages if find_spec(name) is None]
    return f"not installed; pip install {' '.join(absent)}" if absent else None


def _in_a_process(work: Work, num_bytes: int) -> dict[str, Any]:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(measure, work, num_bytes).result()


def sample_places(path: str, text_column: str, num_bytes: float) -> tuple[list[tuple[str, int]], int]:
    """The first row groups with so much text, and their bytes as stored without compression.

    Raises:
        NotFoundError: nothing is there. InvalidError: no such column, or no text.
    """
    from nanofast._nanofast import find_shards, read_footer

    places: list[tuple[str, int]] = []
    total = 0
    for shard in find_shards(path):
        footer = json.loads(read_footer(shard))
        names = [column["name"] for column in footer["columns"]]
        if text_column not in names:
            has = ", ".join(f"`{name}`" for name in names)
            raise InvalidError(f"column `{text_column}` not in `{shard}` (has: {has}); pass --text-column")
        for number, group in enumerate(footer["row_groups"]):
            if total >= num_bytes:
                return places, total
            places.append((str(shard), number))
            total += sum(chunk["uncompressed_bytes"] for chunk in group["chunks"] if chunk["path"] == text_column)
    if not total:
        raise InvalidError(f"`{path}` holds no text; it has {len(places)} row groups, and nothing in `{text_column}`")
    return places, total


def write_page(folder: Path, report: dict[str, Any]) -> Path:
    """Write `bench.json` and `bench.html` into a folder; returns the path of the page."""
    from jinja2 import Environment, FileSystemLoader

    from nanofast.charts import Curve, bar_chart, line_chart, short_number

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bench.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    rows, threads = report["rows"], report["threads"]
    most = [row for row in rows if row["num_threads"] == threads[-1]]
    charts = []
    for kind in REFERENCES:
        lines = [row for row in most if row["kind"] == kind]
        names, values = [row["name"] for row in lines], [row["warm_mb_per_second"] for row in lines]
        colours = [0 if name.startswith("nanofast") else 1 for name in names]
        charts.append(bar_chart(names, values, f"{kind}: warm MB/s, {threads[-1]} threads", colours=colours))
    curves = []
    for colour, key in enumerate(("nanofast_text", "nanofast_ids", "nanofast_best_fit", "plain_batches")):
        kind, name = ENTRIES[key].kind, ENTRIES[key].name
        line = {
            row["num_threads"]: row["warm_mb_per_second"] for row in rows if (row["kind"], row["name"]) == (kind, name)
        }
        label = {TEXT: "text", IDS: "ids", BATCHES: name}[kind]
        curves.append(Curve(label, list(line), list(line.values()), colour=colour, marked=True))
    charts.append(line_chart(curves, "warm MB/s", over="threads", from_zero=True))
    templates = FileSystemLoader(Path(__file__).parent / "templates")
    environment = Environment(loader=templates, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["number"] = short_number
    page = environment.get_template("bench.html.j2").render(
        **{**report, "charts": charts, "legend": LEGEND, "facts": list(report["facts"].items())}
    )
    (folder / "bench.html").write_text(page, encoding="utf-8")
    return folder / "bench.html"


def headline(rows: Sequence[Row], threads: int) -> str:
    """What matters, in two sentences."""
    most = {(row.kind, row.name): row for row in rows if row.num_threads == threads}
    loader, text = (most[ENTRIES[key].kind, ENTRIES[key].name] for key in ("nanofast_best_fit", "nanofast_text"))
    assert loader.warm_tokens_per_second is not None
    share = loader.warm_mb_per_second / text.warm_mb_per_second
    words = (
        f"On {threads} threads TokenLoader packs {loader.warm_mb_per_second:,.0f} MB of text a second, "
        f"{loader.warm_tokens_per_second / 1e6:,.1f} M tokens: {share:.0%} of what reading the text alone gives."
    )
    plain = most.get((BATCHES, ENTRIES["plain_batches"].name))
    if plain is not None:
        words += f" A loader of pyarrow and tiktoken gives {plain.warm_mb_per_second:,.1f} MB/s."
    return words


def facts_of(work: Work, data: str, num_bytes: int) -> dict[str, str]:
    """What the figures hold for."""
    from nanofast import __version__
    from nanofast.distributed import available_cores
    from nanofast.environment import cpu_name

    packages = dict.fromkeys(name for entry in ENTRIES.values() for name in entry.packages if find_spec(name))
    versions = [f"nanofast {__version__}", *(f"{name} {metadata.version(name)}" for name in packages)]
    return {
        "data": f"{data}: {len(work.places)} row groups, {num_bytes / 1e6:,.1f} MB of text as stored",
        "vocabulary": work.vocabulary,
        "batches": f"{work.batch_size} × {work.sequence_length}",
        "seconds": f"{work.seconds:g} cold at most, {work.seconds:g} warm",
        "processor": f"{cpu_name()}, {available_cores()} cores",
        "versions": ", ".join(versions),
        "date": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
    }


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m nanofast.bench", description="How fast your data is fed on your machine.")
    parser.add_argument("data", nargs="?", help="parquet: a file, a folder, or a glob (the sample corpus)")
    parser.add_argument("--tokenizer", default="r50k_base", metavar="NAME_OR_FILE", help="(r50k_base)")
    parser.add_argument("--text-column", default="text", metavar="NAME", help="the column that holds documents (text)")
    parser.add_argument("--threads", type=whole_number, nargs="+", metavar="N", help="(1, 2, 4 … cores)")
    parser.add_argument("--megabytes", type=positive_number, default=64, metavar="N", help="text of the sample (64)")
    parser.add_argument("--seconds", type=positive_number, default=3, metavar="S", help="for each pass of each (3)")
    parser.add_argument("--batch-size", type=whole_number, default=32, metavar="N", help="rows a batch (32)")
    parser.add_argument("--sequence-length", type=whole_number, default=2048, metavar="N", help="tokens a row (2048)")
    parser.add_argument(
        "--out", type=local_path, default=Path("nanofast-bench"), metavar="FOLDER", help="(nanofast-bench)"
    )
    return parser


def run(arguments: argparse.Namespace) -> None:
    """Measure, print the table, write page and JSON."""
    from nanofast.data.inputs import require_shards
    from nanofast.data.inspect import named_tokenizer
    from nanofast.distributed import available_cores
    from nanofast.home import home_folder
    from nanofast.remote import require_local

    cores = available_cores()
    threads = sorted(set(arguments.threads or numbers_of_threads(cores)))
    if threads[-1] > cores:
        raise InvalidError(f"--threads {threads[-1]}: this process may use {cores} cores; give {cores} at most")
    data = arguments.data
    if data is None:
        from nanofast.data.sample import ensure_sample

        data = str(ensure_sample(home_folder())[0])
    require_local("data", data, "name a file, a folder or a glob; nanofast.data bench measures URLs")
    require_shards(data)
    tokenizer = named_tokenizer(arguments.tokenizer)
    places, num_bytes = sample_places(data, arguments.text_column, arguments.megabytes * 1e6)
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(Path(folder) / "tokenizer.nanofast", format="nanofast")
        tokenizer.save(Path(folder) / "tokenizer.json", format="huggingface")
        if not Path(arguments.tokenizer).exists():  # a bundled one
            tokenizer.save(Path(folder) / f"{tokenizer.name}.tiktoken")
        sizes = (arguments.batch_size, arguments.sequence_length)
        name = tokenizer.name or arguments.tokenizer
        work = Work("", tuple(places), arguments.text_column, folder, name, 1, arguments.seconds, *sizes)
        rows, left_out = compare(work, threads, num_bytes)
    report = {
        "data": Path(data).name,
        "headline": headline(rows, threads[-1]),
        "threads": threads,
        "rows": [asdict(row) for row in rows],
        "left_out": [asdict(entry) for entry in left_out],
        "facts": facts_of(work, data, num_bytes),
    }
    page = write_page(arguments.out, report)
    print(f"{'':50} threads  cold MB/s  warm MB/s  × warm")
    for row in rows:
        rates = f"{row.cold_mb_per_second:9,.1f}  {row.warm_mb_per_second:9,.1f}  {row.ratio:6.2f}"
        print(f"{row.kind + ': ' + row.name:50} {row.num_threads:7}  {rates}")
    for entry in left_out:
        print(f"{entry.kind}: {entry.name} left out: {entry.reason}")
    print(f"{report['headline']}\n{page} and bench.json beside it")


def main() -> int:
    """The command."""
    return exit_code(lambda: run(_parser().parse_args()))


if __name__ == "__main__":
    sys.exit(main())
