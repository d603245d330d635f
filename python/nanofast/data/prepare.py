r"""`python -m nanofast.data prepare IN… OUT`: what people have, as well-shaped parquet shards.

    python -m nanofast.data prepare dump.jsonl.zst ~/shards --column content --deduplicate
    python -m nanofast.data prepare ~/src ~/shards --code
    python -m nanofast.data prepare stories.txt ~/shards --separator '<|endoftext|>' --shard-mb 100

    documents ──▶ filters ──▶ sorted by a seeded key, in runs on disk ──▶ shard_00000.parquet …, manifest.json

A shard has one column `text`, zstd, row groups of 1,000 documents. Documents come out in a seeded random order, which
needs disk for the text once and no memory; with `--no-shuffle` they keep their order and need neither. With
`--deduplicate` the key is a hash of the text, so equal ones meet and one is kept. Memory stays at about `--memory-mb`.
What was interrupted goes on behind the last finished run or shard. The same inputs and flags give the same bytes.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nanofast.command import local_path
from nanofast.data.amounts import positive_number, whole_number
from nanofast.data.aside import publish
from nanofast.data.documents import Reading
from nanofast.data.inputs import Input, find_inputs
from nanofast.data.shaping import Job, Shape
from nanofast.data.worklog import Worklog

MANIFEST = "manifest.json"
WORK_FOLDER = ".prepare"
FORMAT_VERSION = 1


def prepare(
    inputs: Sequence[Input],
    out: Path,
    reading: Reading = Reading(),  # noqa: B008  # frozen
    shape: Shape = Shape(),  # noqa: B008
    *,
    memory_bytes: int = 1 << 30,
    quiet: bool = True,
) -> dict[str, Any]:
    """Write the documents of `inputs` as shards into the folder `out`; returns the manifest.

    Raises:
        DocumentError: an input cannot be read. ValueError: `out` holds something else. OSError: it cannot be written.
    """
    _require(shape, memory_bytes)
    head = {
        "inputs": [asdict(source) for source in inputs],
        "reading": asdict(reading),
        "shape": asdict(shape),
        "format_version": FORMAT_VERSION,
    }
    manifest = out / MANIFEST
    if manifest.exists():
        there: dict[str, Any] = json.loads(manifest.read_text("utf-8"))
        if there.get("made_from") == json.loads(json.dumps(head)):
            shutil.rmtree(out / WORK_FOLDER, ignore_errors=True)  # of a job that was killed while it cleared up
            return there
        raise ValueError(f"`{out}` holds a data set that was made in another way; remove it, or name another folder")
    work = out / WORK_FOLDER
    work.mkdir(parents=True, exist_ok=True)
    # An unfinished job goes on with the very same files; what is finished stays true when they are gone.
    changed = [Path(source.path).stat().st_mtime_ns for source in inputs if source.size_bytes is not None]
    with Worklog(work / "steps", {**head, "changed": changed}, f"`{out}`") as log:
        if not log.steps:
            _require_empty(out, work)
            log.append({"begun": True})
        job = Job(inputs, out, work, reading, shape, memory_bytes, log, quiet)
        files = job.shuffled() if shape.shuffle else job.in_order()
        made = {
            "format_version": FORMAT_VERSION,
            "source": ", ".join(source.path for source in inputs[:3]) + (", …" if len(inputs) > 3 else ""),
            "counts": {**asdict(job.counts), "duplicates": job.num_duplicates},
            "num_documents": sum(file["num_documents"] for file in files.values()),
            "files": files,
            "made_from": head,
        }
        aside = work / MANIFEST
        aside.write_text(json.dumps(made, indent=2) + "\n", "utf-8")
        publish(aside, manifest)
    shutil.rmtree(work)
    return made


def _require(shape: Shape, memory_bytes: int) -> None:
    for name, value, least in (
        ("shard_bytes", shape.shard_bytes, 1),
        ("row_group_documents", shape.row_group_documents, 1),
        ("seed", shape.seed, 0),
        ("min_bytes", shape.min_bytes, 0),
        ("max_bytes", shape.max_bytes if shape.max_bytes is not None else shape.min_bytes, shape.min_bytes),
        ("memory_bytes", memory_bytes, 1),
    ):
        if value < least:
            raise ValueError(f"{name} = {value}: at least {least}")
    if shape.seed >= 1 << 64:
        raise ValueError(f"seed = {shape.seed}: below 2^64")
    if shape.deduplicate and not shape.shuffle:
        raise ValueError("duplicates are found by ordering documents by their hash: leave out --no-shuffle")


def _require_empty(out: Path, work: Path) -> None:
    """A job that begins anew writes into a folder without shards, and without the runs of another job."""
    if any(out.glob("*.parquet")):
        raise ValueError(f"`{out}` holds shards that were made in another way; remove them, or name another folder")
    for path in work.iterdir():
        if path.name != "steps":
            path.unlink()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line."""
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="IN",
        help=".txt, .jsonl, .csv (also .gz, .zst), .parquet, folders, saved datasets, hub:OWNER/NAME[:CONFIG]",
    )
    parser.add_argument("out", type=local_path, metavar="OUT", help="the folder for the shards")
    parser.add_argument("--code", action="store_true", help="take every text file of folders: source code")
    parser.add_argument("--column", default="text", metavar="NAME", help="field or column that holds the text (text)")
    parser.add_argument("--separator", metavar="TEXT", help=r"between documents of text files, such as '\n\n' (none)")
    parser.add_argument("--split", default="train", metavar="NAME", help="split of a data set (train)")
    parser.add_argument("--skip-bad", action="store_true", help="leave out what is no valid UTF-8")
    parser.add_argument("--shard-mb", type=positive_number, default=250.0, metavar="MB", help="text of a shard (250)")
    parser.add_argument(
        "--row-group", type=whole_number, default=1000, metavar="N", help="documents of a row group (1000)"
    )
    parser.add_argument("--no-shuffle", action="store_true", help="keep the order of the inputs")
    parser.add_argument("--seed", type=int, default=0, help="of the order (0)")
    parser.add_argument("--deduplicate", action="store_true", help="keep one of equal documents")
    parser.add_argument("--min-bytes", type=int, default=1, metavar="N", help="leave out shorter documents (1)")
    parser.add_argument("--max-bytes", type=int, metavar="N", help="leave out longer documents")
    parser.add_argument(
        "--memory-mb", type=positive_number, default=1024.0, metavar="MB", help="memory to shuffle in (1024)"
    )
    parser.add_argument("--json", action="store_true", help="print the manifest as JSON")


def run(arguments: argparse.Namespace) -> int:
    """The command."""
    separator = None if arguments.separator is None else arguments.separator.replace("\\n", "\n")
    if separator == "":
        raise ValueError("--separator is empty; leave it out to take each file as one document")
    made = prepare(
        find_inputs(arguments.inputs, code=arguments.code, without=arguments.out),
        arguments.out,
        Reading(arguments.column, separator, arguments.split, arguments.skip_bad),
        Shape(
            shard_bytes=int(1e6 * arguments.shard_mb),
            row_group_documents=arguments.row_group,
            shuffle=not arguments.no_shuffle,
            seed=arguments.seed,
            deduplicate=arguments.deduplicate,
            min_bytes=arguments.min_bytes,
            max_bytes=arguments.max_bytes,
        ),
        memory_bytes=int(1e6 * arguments.memory_mb),
        quiet=arguments.json,
    )
    if arguments.json:
        print(json.dumps(made, indent=2))
        return 0
    counts, files = made["counts"], made["files"]
    size = sum(file["size_bytes"] for file in files.values())
    print(
        f"{arguments.out}: {made['num_documents']:,} documents in {len(files)} shards, {size / 1e6:,.1f} MB on disk; "
        f"read {counts['read']:,}, left out {counts['bad']:,} without valid text, {counts['too_short']:,} too short, "
        f"{counts['too_long']:,} too long, {counts['duplicates']:,} duplicates"
    )
    return 0
