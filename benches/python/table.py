"""Samples → one table: medians, spread and ratios; on screen, and as JSON, CSV and markdown."""

from __future__ import annotations

import csv
import io
import json
import os
import platform
import re
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

from corpus import Corpus
from entries import ENTRIES
from rounds import Samples

PACKAGES = (
    *("nanofast", "gigatoken", "tiktoken", "tokenizers", "pyarrow", "torch", "torchdata", "grain", "datasets"),
    "numpy",
)


@dataclass(frozen=True)
class Spread:
    """Median of the rounds, with the least and the most."""

    median: float
    least: float
    most: float

    def __str__(self) -> str:
        return f"{shown(self.median)} ({shown(self.least)}–{shown(self.most)})"


@dataclass(frozen=True)
class Row:
    """A contender at one number of threads; a `ratio` is its rate by nanofast's in the same round."""

    contender: str
    path: str
    vocabulary: str
    threads: int
    cold_mb_per_second: Spread
    warm_mb_per_second: Spread
    warm_mtok_per_second: float | None
    warm_mb_per_cpu_second: float | None
    cold_ratio: float
    warm_ratio: float
    setup_seconds: float


def shown(number: float) -> str:
    """Three digits that count."""
    return f"{number:.0f}" if number >= 100 else f"{number:.1f}" if number >= 10 else f"{number:.2f}"


def rates(passes: Sequence[dict[str, float]], unit: str, clock: str = "seconds") -> list[float]:
    """Millions of `unit` a second."""
    return [one[unit] / one[clock] / 1e6 for one in passes]


def processor_rate(passes: Sequence[dict[str, float]]) -> float | None:
    """Median of MB a second of processor time; None where a pass does not tell it."""
    if any(one["cpu_seconds"] is None for one in passes):
        return None
    return median(rates(passes, "num_bytes", "cpu_seconds"))


def spread(values: Sequence[float]) -> Spread:
    return Spread(median(values), min(values), max(values))


def make_rows(samples: Sequence[Samples]) -> list[Row]:
    """A row for each, with ratios to the reference of the same vocabulary and threads."""
    by_key = {(s.task.contender, s.task.vocabulary, s.task.num_threads): s for s in samples}
    rows = []
    for sample in samples:
        task, entry = sample.task, ENTRIES[sample.task.contender]
        reference = by_key[entry.reference, task.vocabulary, task.num_threads]

        def ratio(kind: str, sample: Samples = sample, reference: Samples = reference) -> float:
            own, other = (rates(getattr(one, kind), "num_bytes") for one in (sample, reference))
            return median(mine / its for mine, its in zip(own, other, strict=True))

        rows.append(
            Row(
                contender=entry.name,
                path=entry.path,
                vocabulary=task.vocabulary if entry.has_vocabulary else "–",
                threads=task.num_threads,
                cold_mb_per_second=spread(rates(sample.cold, "num_bytes")),
                warm_mb_per_second=spread(rates(sample.warm, "num_bytes")),
                warm_mtok_per_second=median(rates(sample.warm, "num_tokens")) if entry.has_vocabulary else None,
                warm_mb_per_cpu_second=processor_rate(sample.warm),
                cold_ratio=ratio("cold"),
                warm_ratio=ratio("warm"),
                setup_seconds=median(sample.setup_seconds),
            )
        )
    return rows


def circumstances(corpus: Corpus, num_rounds: int) -> dict[str, Any]:
    """Machine, versions and data: what figures hold for."""
    from nanofast.environment import cpu_name

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": git_commit(),
        "machine": {
            "cpu": cpu_name(),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "memory_gb": round(memory / 1e9, 1),
            "system": platform.platform(),
        },
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "corpus": {"name": corpus.name, "documents": corpus.num_documents, "text_bytes": corpus.num_bytes},
        "rounds": num_rounds,
    }


def git_commit() -> str | None:
    """The commit of this checkout, with `+` when files differ from it; None outside one."""
    git = ["git", "-C", str(Path(__file__).parent)]
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True)
    changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True)
    return head.stdout.strip() + "+" * bool(changed.stdout.strip()) if head.returncode == 0 else None


def short(commit: str | None) -> str:
    return "none" if commit is None else commit[:10] + "+" * commit.endswith("+")


def version(package: str) -> str | None:
    if package == "nanofast":
        import nanofast

        return nanofast.__version__
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


HEADER = (
    "contender",
    "from → to",
    "vocabulary",
    "threads",
    "cold MB/s",
    "warm MB/s",
    "warm Mtok/s",
    "warm MB/CPU-s",
    "× cold",
    "× warm",
)

LEGEND = (
    "Median (least–most) of {rounds} rounds. Cold: the first pass of a fresh process, its files in the system's cache; "
    "warm: the next pass of the same process. Imports and vocabularies are not timed. MB: of UTF-8; for loaders that "
    "of the tokens in the batches. MB/CPU-s: by processor time of all threads. ×: rate by that of nanofast's best_fit "
    "loader (its tokenizer, for text → ids) in the same round. A contender's process is held to as many cores as it "
    "has threads."
)


def as_markdown(rows: Sequence[Row], facts: dict[str, Any]) -> str:
    cells = [
        (
            row.contender,
            row.path,
            row.vocabulary,
            str(row.threads),
            str(row.cold_mb_per_second),
            str(row.warm_mb_per_second),
            "–" if row.warm_mtok_per_second is None else shown(row.warm_mtok_per_second),
            "–" if row.warm_mb_per_cpu_second is None else shown(row.warm_mb_per_cpu_second),
            shown(row.cold_ratio),
            shown(row.warm_ratio),
        )
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(HEADER, *cells, strict=True)]

    def line(texts: Sequence[str]) -> str:
        return "| " + " | ".join(text.ljust(width) for text, width in zip(texts, widths, strict=True)) + " |"

    machine, corpus = facts["machine"], facts["corpus"]
    versions = ", ".join(f"{name} {number}" for name, number in facts["versions"].items() if number)
    entries = [entry for entry in ENTRIES.values() if entry.is_timed]
    notes = [f"- {entry.name}: {entry.note}" for entry in entries if entry.is_there and entry.note]
    notes += [
        f"- {entry.name}: not measured, `{entry.package}` is not there" for entry in entries if not entry.is_there
    ]
    return "\n".join(
        [
            line(HEADER),
            line(["-" * width for width in widths]),
            *map(line, cells),
            "",
            LEGEND.format(rounds=facts["rounds"]),
            f"Machine: {machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB, {machine['system']}.",
            f"Data: {corpus['name']}, {corpus['documents']:,} documents, {corpus['text_bytes'] / 1e6:.1f} MB of text.",
            f"Versions: {versions}; commit {short(facts['commit'])}, {facts['date']}.",
            "",
            "What to know of a line:",
            *notes,
        ]
    )


def as_csv(rows: Sequence[Row], facts: dict[str, Any]) -> str:
    out = io.StringIO()
    flat = []
    for row in rows:
        fields: dict[str, Any] = {}
        for name, value in asdict(row).items():
            if isinstance(value, dict):
                fields.update({f"{name}_{part}": round(number, 3) for part, number in value.items()})
            else:
                fields[name] = round(value, 4) if isinstance(value, float) else value
        fields.update(cpu=facts["machine"]["cpu"], corpus=facts["corpus"]["name"], commit=facts["commit"])
        flat.append(fields)
    writer = csv.DictWriter(out, list(flat[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return out.getvalue()


def as_json(rows: Sequence[Row], samples: Sequence[Samples], facts: dict[str, Any]) -> str:
    """Everything, single passes included."""
    kept = []
    for row, sample in zip(rows, samples, strict=True):
        passes = {"cold": sample.cold, "warm": sample.warm, "setup": sample.setup_seconds, "stages": sample.stages}
        sizes = {"batch_size": sample.task.batch_size, "sequence_length": sample.task.sequence_length}
        kept.append({**asdict(row), **sizes, "samples": passes})
    return json.dumps({**facts, "rows": kept}, indent=1, ensure_ascii=False) + "\n"


def store(folder: Path, smoke: bool, rows: Sequence[Row], samples: Sequence[Samples], facts: dict[str, Any]) -> Path:
    """Write the three files; returns the path without its ending."""
    folder.mkdir(parents=True, exist_ok=True)
    cpu = re.sub(r"[^a-z0-9]+", "-", facts["machine"]["cpu"].lower()).strip("-")
    name = "smoke" if smoke else f"{facts['date']}_{cpu}_{short(facts['commit'])}"
    for ending, text in (
        ("md", as_markdown(rows, facts) + "\n"),
        ("csv", as_csv(rows, facts)),
        ("json", as_json(rows, samples, facts)),
    ):
        (folder / f"{name}.{ending}").write_text(text, encoding="utf-8")
    return folder / name
