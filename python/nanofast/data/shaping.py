"""Documents into shards: filtered, in the order of the inputs or of a seeded key, going on where a kill stopped.

    in order      documents ──▶ filters ──▶ shards
    shuffled      documents ──▶ filters ──▶ sorted runs on disk ──▶ merged ──▶ shards

A log holds what is done: of each run and shard where the inputs or the runs stand behind it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from nanofast.data.documents import Reading, documents
from nanofast.data.inputs import Input
from nanofast.data.pace import Pace
from nanofast.data.shard_writer import ShardWriter
from nanofast.data.spill import KEY_BYTES, RECORD_BYTES, Record, merged, write_run
from nanofast.data.worklog import Worklog
from nanofast.errors import InvalidError


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


class Job:
    """One run of `prepare`: what is done is in the log."""

    def __init__(
        self,
        inputs: Sequence[Input],
        out: Path,
        work: Path,
        reading: Reading,
        shape: Shape,
        memory_bytes: int,
        log: Worklog,
        quiet: bool,
    ) -> None:
        self._inputs, self._out, self._work = inputs, out, work
        self._reading, self._shape = reading, shape
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
            for content in islice(documents(self._inputs[index], self._reading), skipped, None):
                place = index.to_bytes(8, "little") + self._number.to_bytes(8, "little")
                self._number += 1
                counts.read += 1
                if content is None:
                    counts.bad += 1
                elif len(content) < shape.min_bytes:
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
                shard = self._shard(len(files))
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
                shard = self._shard(len(files))
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
        return self._work / f"run_{number:05}"

    def _shard(self, number: int) -> ShardWriter:
        name = f"shard_{number:05}.parquet"
        return ShardWriter(self._out / name, self._work / name, self._shape.row_group_documents)


def _none_missing(files: dict[str, Any], counts: Counts) -> dict[str, Any]:
    if not files:
        raise InvalidError(
            f"no document is left of {counts.read} ({counts.bad} without text, {counts.too_short} too short, "
            f"{counts.too_long} too long); look at --column, --min-bytes and --max-bytes"
        )
    return files
