"""What a run of benches found: tables on the screen at its end, and in `benches/results/<date>_<cpu>_<commit>.*`.

Each bench adds its tables to the `results` fixture. The markdown is for reading, the CSV has a line a figure, the JSON
everything, single samples included. A run at the same commit, day and machine puts its tables into the same files, in
the place of those with the same titles; a run with `--smoke`, or with files that differ from the commit, writes anew.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
import platform
import re
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

FOLDER = Path(__file__).resolve().parents[1] / "results"
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


Cell = str | int | float | Spread | None


@dataclass(frozen=True)
class Table:
    """Lines of figures under one title; the first column names the line."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str] = ()
    samples: Any = None  # what the figures are made of, as JSON can hold it


@dataclass
class Results:
    """The tables of a run, in the order in which they were made."""

    is_smoke: bool
    facts: dict[str, Any] = field(default_factory=lambda: circumstances())  # as they are when the run begins
    tables: list[dict[str, Any]] = field(default_factory=list)

    def add(self, table: Table) -> None:
        assert all(len(row) == len(table.header) for row in table.rows), table.title
        kept = {**asdict(table), "measured": time.strftime("%Y-%m-%d %H:%M", time.gmtime())}
        self.tables = [*(one for one in self.tables if one["title"] != table.title), kept]

    def text(self) -> str:
        return "\n\n".join(map(as_markdown, self.tables))

    def store(self) -> Path:
        """Write the three files; returns their path without its ending."""
        facts = self.facts
        cpu = re.sub(r"[^a-z0-9]+", "-", facts["machine"]["cpu"].lower()).strip("-")
        path = FOLDER / ("smoke" if self.is_smoke else f"{facts['date']}_{cpu}_{short(facts['commit'])}")
        tables = self.tables
        is_one_tree = not (facts["commit"] or "+").endswith("+")
        if is_one_tree and not self.is_smoke and (before := path.with_name(f"{path.name}.json")).exists():
            made = {table["title"] for table in tables}
            kept = json.loads(before.read_text("utf-8"))["tables"]
            tables = [table for table in kept if table["title"] not in made] + tables
        whole = {**facts, "tables": tables}
        FOLDER.mkdir(parents=True, exist_ok=True)
        page = "\n\n".join([f"# Benches of {facts['date']}", about(facts), *map(as_markdown, whole["tables"])])
        for ending, text in (
            ("md", page + "\n"),
            ("csv", as_csv(whole)),
            ("json", json.dumps(whole, indent=1, ensure_ascii=False) + "\n"),
        ):
            path.with_name(f"{path.name}.{ending}").write_text(text, encoding="utf-8")
        return path


def spread(values: Sequence[float]) -> Spread:
    return Spread(median(values), min(values), max(values))


def shown(number: float) -> str:
    """Three digits that count, two of what is small."""
    size = abs(number)
    if size >= 1000:
        return f"{number:,.0f}"
    if 0 < size < 0.1:
        return f"{number:.2g}"
    return f"{number:.0f}" if size >= 100 else f"{number:.1f}" if size >= 10 else f"{number:.2f}"


def _cell(cell: Any) -> str:
    if isinstance(cell, dict):
        return str(Spread(**cell))
    if cell is None:
        return "–"
    if isinstance(cell, str):
        return cell
    return f"{cell:,}" if isinstance(cell, int) else shown(cell)


def as_markdown(table: dict[str, Any]) -> str:
    """A table as it is kept, with its title and notes."""
    cells = [[_cell(cell) for cell in row] for row in table["rows"]]
    widths = [max(map(len, column)) for column in zip(table["header"], *cells, strict=True)]

    def line(texts: Sequence[str]) -> str:
        return "| " + " | ".join(text.ljust(width) for text, width in zip(texts, widths, strict=True)) + " |"

    lines = [line(table["header"]), line(["-" * width for width in widths]), *map(line, cells)]
    notes = [f"- {note}" for note in table["notes"]]
    return "\n".join([f"## {table['title']}", "", *lines, *([""] if notes else []), *notes])


def as_csv(whole: dict[str, Any]) -> str:
    """A line a figure: which table, what the line is called (its words), which column, and the figure."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("table", "line", "column", "value", "least", "most", "cpu", "commit"))
    ends = (whole["machine"]["cpu"], whole["commit"])
    for table in whole["tables"]:
        for row in table["rows"]:
            leading = list(itertools.takewhile(lambda cell: isinstance(cell, str | int), row[:-1]))
            name = ", ".join(map(str, leading))
            for column, cell in list(zip(table["header"], row, strict=True))[len(leading) :]:
                if isinstance(cell, dict):
                    figures = [round(cell[part], 4) for part in ("median", "least", "most")]
                elif isinstance(cell, int | float):
                    figures = [round(cell, 4), "", ""]
                else:
                    continue
                writer.writerow((table["title"], name, column, *figures, *ends))
    return out.getvalue()


def circumstances() -> dict[str, Any]:
    """Machine and versions: what figures hold for."""
    from nanofast.distributed import available_cores
    from nanofast.environment import cpu_name

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": git_commit(),
        "machine": {
            "cpu": cpu_name(),
            "cores": available_cores(),
            "memory_gb": round(memory / 1e9, 1),
            "system": platform.platform(),
        },
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
    }


def about(facts: dict[str, Any]) -> str:
    machine = facts["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in facts["versions"].items() if number)
    return (
        f"Machine: {machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB, {machine['system']}.\n"
        f"Versions: {versions}; commit {short(facts['commit'])}.\n"
        "Figures with brackets: median (least–most) of the rounds, or of what else the notes say was repeated."
    )


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
