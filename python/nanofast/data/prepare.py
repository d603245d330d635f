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
import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from nanofast.data.aside import flush
from nanofast.data.documents import Input, Reading, documents, find_inputs
from nanofast.data.pace import Pace
from nanofast.data.spill import KEY_BYTES, RECORD_BYTES, Record, merged, write_run
from nanofast.data.worklog import Worklog

MANIFEST = "manifest.json"
WORK_FOLDER = ".prepare"
FORMAT_VERSION = 1
# Texts that go to the writer at once: large enough that the call does not count.
WRITE_DOCUMENTS = 256


@dataclass(frozen=True)
class Shape:
    """What comes out, and in which order."""

    shard_bytes: int = 250_000_000
    """Text of a shard (bytes); about 100 MB compressed, as published sets have it."""
    row_group_documents: int = 1000
    shuffle: bool = True
    seed: int = 0
    deduplicate: bool = False
    min_bytes: int = 1
    """Shorter documents are left out."""
    max_bytes: int | None = None
    """Longer documents are left out."""


@dataclass
class Counts:
    """What became of documents. `kept` and `text_bytes` are before duplicates are taken out."""

    read: int = 0
    bad: int = 0
    too_short: int = 0
    too_long: int = 0
    kept: int = 0
    text_bytes: int = 0


def prepare(
    inputs: Sequence[Input],
    out: Path,
    reading: Reading = Reading(),  # noqa: B008  # frozen
    shape: Shape = Shape(),  # frozen
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
            return there
        raise ValueError(f"`{out}` holds a data set that was made in another way; remove it, or name another folder")
    work = out / WORK_FOLDER
    work.mkdir(parents=True, exist_ok=True)
    with Worklog(work / "steps", head, f"`{out}`") as log:
        if not log.steps:
            _require_empty(out, work)
            log.append({"begun": True})
        job = _Job(inputs, out, reading, shape, memory_bytes, log, quiet)
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
        flush(aside)
        aside.replace(manifest)
        flush(out)
    shutil.rmtree(work)
    return made


class _Job:
    """One run of `prepare`: what is done is in the log."""

    def __init__(
        self,
        inputs: Sequence[Input],
        out: Path,
        reading: Reading,
        shape: Shape,
        memory_bytes: int,
        log: Worklog,
        quiet: bool,
    ) -> None:
        self._inputs, self._out, self._reading, self._shape = inputs, out, reading, shape
        self._memory_bytes, self._log, self._quiet = memory_bytes, log, quiet
        self.counts = Counts()
        self.num_duplicates = 0
        self._input = self._number = 0  # the next document to read
        for step in log.steps:
            if "counts" in step:
                self.counts = Counts(**step["counts"])
                self._input, self._number = step["input"], step["number"]

    # ---- reading and filtering ---------------------------------------------------------------------------------

    def _kept(self) -> Iterator[tuple[bytes, bytes]]:
        """(place, text) of every document that passes, from where the log ends."""
        shape, counts = self._shape, self.counts
        begin = self._input
        for index in range(begin, len(self._inputs)):
            skipped = self._number if index == begin else 0
            self._input, self._number = index, skipped
            for text in islice(documents(self._inputs[index], self._reading), skipped, None):
                place = index.to_bytes(8, "little") + self._number.to_bytes(8, "little")
                self._number += 1
                counts.read += 1
                if text is None:
                    counts.bad += 1
                    continue
                content = text.encode()
                if len(content) < shape.min_bytes:
                    counts.too_short += 1
                elif shape.max_bytes is not None and len(content) > shape.max_bytes:
                    counts.too_long += 1
                else:
                    counts.kept += 1
                    counts.text_bytes += len(content)
                    yield place, content
        self._input, self._number = len(self._inputs), 0

    def _position(self) -> dict[str, Any]:
        return {"input": self._input, "number": self._number, "counts": asdict(self.counts)}

    # ---- the order of the inputs -------------------------------------------------------------------------------

    def in_order(self) -> dict[str, Any]:
        """Documents as they come; a shard is full when its text is."""
        files = {step["name"]: step["file"] for step in self._log.steps if "name" in step}
        texts = self._kept()
        with Pace("writing", None, quiet=self._quiet) as pace:
            while True:
                shard = _Shard(self._out, len(files), self._shape)
                for _, text in texts:
                    shard.add(text)
                    if shard.text_bytes >= self._shape.shard_bytes:
                        break
                if not shard.num_documents:
                    shard.discard()
                    break
                files[shard.name] = shard.finish()
                self._log.append({"name": shard.name, "file": files[shard.name], **self._position()})
                pace.move(self.counts.text_bytes)
        return _none_missing(files, self.counts)

    # ---- a random order ----------------------------------------------------------------------------------------

    def shuffled(self) -> dict[str, Any]:
        """Documents in the order of their keys."""
        if not any("offsets" in step or "spilled" in step for step in self._log.steps):
            self._spill()
        runs = [self._run(step["run"]) for step in self._log.steps if "run" in step]
        done = [step for step in self._log.steps if "offsets" in step]
        files = {step["name"]: step["file"] for step in done}
        offsets = list(done[-1]["offsets"]) if done else [0] * len(runs)
        last_key = bytes.fromhex(done[-1]["last_key"]) if done else b""
        self.num_duplicates = done[-1]["duplicates"] if done else 0
        num_shards = max(1, round(self.counts.text_bytes / self._shape.shard_bytes))
        taken = sum(file["text_bytes"] for file in files.values())
        records = merged(runs, offsets, self._memory_bytes // 2)
        with Pace("writing", self.counts.text_bytes, quiet=self._quiet) as pace:
            while True:
                border = self.counts.text_bytes * (len(files) + 1) // num_shards
                shard = _Shard(self._out, len(files), self._shape)
                for key, text in records:
                    if self._shape.deduplicate and key == last_key:
                        self.num_duplicates += 1
                        continue
                    last_key = key
                    shard.add(text)
                    if taken + shard.text_bytes >= border and len(files) + 1 < num_shards:
                        break
                if not shard.num_documents:
                    shard.discard()
                    break
                files[shard.name] = shard.finish()
                taken += shard.text_bytes
                step = {"name": shard.name, "file": files[shard.name], "offsets": list(offsets)}
                self._log.append({**step, "last_key": last_key.hex(), "duplicates": self.num_duplicates})
                pace.move(taken)
        return _none_missing(files, self.counts)

    def _spill(self) -> None:
        """Runs of as many documents as memory holds."""
        records: list[Record] = []
        num_bytes = 0
        num_runs = sum("run" in step for step in self._log.steps)
        seed = self._shape.seed.to_bytes(8, "little")
        with Pace("shuffling", None, quiet=self._quiet) as pace:
            for place, text in self._kept():
                hashed = text if self._shape.deduplicate else place
                records.append((hashlib.blake2b(hashed, digest_size=KEY_BYTES, key=seed).digest(), text))
                num_bytes += len(text) + RECORD_BYTES
                if num_bytes >= self._memory_bytes // 2:
                    num_runs = self._end_run(num_runs, records)
                    records, num_bytes = [], 0
                    pace.move(self.counts.text_bytes)
            if records:
                self._end_run(num_runs, records)
        self._log.append({"spilled": True, **self._position()})

    def _end_run(self, number: int, records: list[Record]) -> int:
        write_run(self._run(number), records)
        self._log.append({"run": number, **self._position()})
        return number + 1

    def _run(self, number: int) -> Path:
        return self._out / WORK_FOLDER / f"run_{number:05}"


class _Shard:
    """A shard on its way; it has its name when it is whole."""

    def __init__(self, out: Path, number: int, shape: Shape) -> None:
        from nanofast._nanofast import ParquetWriter

        self.name = f"shard_{number:05}.parquet"
        self._final = out / self.name
        self._aside = out / WORK_FOLDER / self.name
        self._writer = ParquetWriter(self._aside, row_group_documents=shape.row_group_documents)
        self._waiting: list[str] = []
        self.num_documents = self.text_bytes = 0

    def add(self, text: bytes) -> None:
        self._waiting.append(text.decode())
        self.num_documents += 1
        self.text_bytes += len(text)
        if len(self._waiting) == WRITE_DOCUMENTS:
            self._writer.write(self._waiting)
            self._waiting = []

    def finish(self) -> dict[str, Any]:
        """What the manifest says of it; the hash is of what the disk holds."""
        self._writer.write(self._waiting)
        self._writer.close()
        flush(self._aside)
        digest = hashlib.sha256()
        with self._aside.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
        self._aside.replace(self._final)
        flush(self._final.parent)
        return {
            "size_bytes": self._final.stat().st_size,
            "sha256": digest.hexdigest(),
            "num_documents": self.num_documents,
            "text_bytes": self.text_bytes,
        }

    def discard(self) -> None:
        self._writer.close()
        self._aside.unlink()


def _none_missing(files: dict[str, Any], counts: Counts) -> dict[str, Any]:
    if not files:
        raise ValueError(
            f"no document is left of {counts.read} ({counts.bad} without text, {counts.too_short} too short, "
            f"{counts.too_long} too long); look at --column, --min-bytes and --max-bytes"
        )
    return files


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
    parser.add_argument("out", type=Path, metavar="OUT", help="the folder for the shards")
    parser.add_argument("--code", action="store_true", help="take every text file of folders: source code")
    parser.add_argument("--column", default="text", metavar="NAME", help="field or column that holds the text (text)")
    parser.add_argument("--separator", metavar="TEXT", help=r"between documents of text files, such as '\n\n' (none)")
    parser.add_argument("--hub-split", default="train", metavar="NAME", help="split of a hub: dataset (train)")
    parser.add_argument("--skip-bad", action="store_true", help="leave out what is no valid UTF-8")
    parser.add_argument("--shard-mb", type=float, default=250.0, metavar="MB", help="text of a shard (250)")
    parser.add_argument("--row-group", type=int, default=1000, metavar="N", help="documents of a row group (1000)")
    parser.add_argument("--no-shuffle", action="store_true", help="keep the order of the inputs")
    parser.add_argument("--seed", type=int, default=0, help="of the order (0)")
    parser.add_argument("--deduplicate", action="store_true", help="keep one of equal documents")
    parser.add_argument("--min-bytes", type=int, default=1, metavar="N", help="leave out shorter documents (1)")
    parser.add_argument("--max-bytes", type=int, metavar="N", help="leave out longer documents")
    parser.add_argument("--memory-mb", type=float, default=1024.0, metavar="MB", help="memory to shuffle in (1024)")
    parser.add_argument("--json", action="store_true", help="print the manifest as JSON")


def run(arguments: argparse.Namespace) -> int:
    """The command."""
    separator = None if arguments.separator is None else arguments.separator.replace("\\n", "\n")
    if separator == "":
        raise ValueError("--separator is empty; leave it out to take each file as one document")
    made = prepare(
        find_inputs(arguments.inputs, code=arguments.code),
        arguments.out,
        Reading(arguments.column, separator, arguments.hub_split, arguments.skip_bad),
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
