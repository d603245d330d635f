"""What happened in a run, as one page: `report.html` (opens from disk, needs no network) and `report.md`, from the log.

    python -m nanofast.report RUN                writes RUN/report.html and RUN/report.md
    python -m nanofast.report RUN OTHER_RUN      lays the other run's curves over, and lists what was set differently
    python -m nanofast.report --live RUN         keeps the page up to date until the run ends; it loads itself anew

Nothing here trains or reads the data: the log (runlog.py) says it all, so a report of a run that was killed, or that is
still going on, is as good as its log.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nanofast.charts import Curve, line_chart, short_number, stacked_chart
from nanofast.command import Parser, exit_code, local_path
from nanofast.data.aside import file_aside
from nanofast.runlog import read_log

Entry = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """A run's log, sorted by kind."""

    folder: Path
    entries: list[Entry]

    @classmethod
    def read(cls, run_dir: Path | str) -> Run:
        """Reads the log of a run folder; raises FileNotFoundError where there is none."""
        folder = Path(run_dir)
        try:
            return cls(folder, read_log(folder))
        except (FileNotFoundError, NotADirectoryError):
            raise FileNotFoundError(
                f"no run to report on: `{folder}` has no `log.jsonl`; expected the folder of a run, as printed by "
                "`python -m nanofast.train`"
            ) from None

    @property
    def name(self) -> str:
        """The run as a reader calls it."""
        return self.folder.resolve().name

    def of(self, kind: str) -> list[Entry]:
        """All entries of a kind, in order."""
        return [entry for entry in self.entries if entry["kind"] == kind]

    def last(self, kind: str) -> Entry:
        """The last entry of a kind, or an empty one."""
        found = self.of(kind)
        return found[-1] if found else {}

    def curve(self, kind: str, field: str, label: str, **style: Any) -> Curve:
        """One field of one kind over steps. `phase_seconds.data` looks into a nested object."""
        entries = self.of(kind)
        return Curve(label, [entry["step"] for entry in entries], [_number(entry, field) for entry in entries], **style)


def write_report(run_dir: Path | str, other: Path | str | None = None, *, reload_seconds: float | None = None) -> Path:
    """Write `report.html` and `report.md` into a run's folder; returns the path of the page.

    With `reload_seconds` the page loads itself anew that often.

    Raises:
        FileNotFoundError: The folder has no log.
    """
    from jinja2 import ChainableUndefined, Environment, FileSystemLoader

    run = Run.read(run_dir)
    runs = [run] if other is None else [run, Run.read(other)]
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=lambda name: name is not None and ".html" in name,
        undefined=ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=short_number, seconds=_seconds, size=_size, percent=_percent, plain=_plain)
    facts = {**_facts(runs), "reload_seconds": reload_seconds}
    for name in ("report.md", "report.html"):
        text = environment.get_template(name + ".j2").render(facts)
        with file_aside(run.folder / name, lasts=reload_seconds is None) as partial:
            partial.write_text(text, encoding="utf-8")
    return run.folder / "report.html"


def _facts(runs: list[Run]) -> dict[str, Any]:
    """All that the templates show."""
    run = runs[0]
    start, end, step = run.last("run"), run.last("end"), run.last("step")
    phases = {name: seconds for name, seconds in _phase_seconds(run).items() if seconds}
    return {
        "run": run,
        "other": runs[1] if len(runs) > 1 else None,
        "start": start,
        "end": end,
        "step": step,
        "status": end.get("reason") or ("running, or killed" if step else "no step done yet"),
        "headline": _headline(run),
        "tiles": _tiles(run),
        "charts": [chart for chart in _charts(runs) if chart],
        "phases": sorted(phases.items(), key=lambda item: -item[1]),
        "phase_total": sum(phases.values()),
        "ledger": run.last("ledger").get("ledger") or {},
        "balances": _balances(run.last("ledger").get("ledger") or {}),
        "loader": run.last("ledger").get("loader") or {},
        "quarantine": run.last("quarantine").get("parts") or [],
        "validations": run.of("validation"),
        "baselines": run.last("baselines"),
        "core": run.last("core"),
        "samples": _samples(run),
        "tasks": run.of("task"),
        "events": [*run.of("event"), *(entry for entry in run.of("checkpoint") if entry.get("error"))],
        "checkpoints": [entry for entry in run.of("checkpoint") if not entry.get("error")],
        "spikes": sum(bool(entry.get("spike")) for entry in run.of("step")),
        "skipped": [entry for entry in run.of("step") if entry.get("skipped")],
        "resumes": [entry for entry in run.of("run") if entry.get("resumed_from")],
        "differences": _differences(*runs) if len(runs) > 1 else [],
    }


def _headline(run: Run) -> str:
    """The run in one sentence, of what is known."""
    start, end, step = run.last("run"), run.last("end"), run.last("step")
    parameters = (start.get("parameters") or {}).get("total")
    machine = start.get("machine") or {}
    words = ["A GPT" if parameters is None else f"A GPT of {short_number(parameters)} parameters"]
    if step.get("tokens"):
        words.append(f"trained on {short_number(step['tokens'])} tokens")
    seconds = end.get("total_seconds") or end.get("seconds")
    if seconds:
        words.append(f"in {_seconds(seconds)}")
    if machine.get("device_name"):
        cores = f" ({machine['cores']} cores)" if machine.get("device") == "cpu" and machine.get("cores") else ""
        words.append(f"on {machine['device_name']}{cores}")
    bpb = run.last("validation").get("bpb")
    return " ".join(words) + ("." if bpb is None else f": {bpb:.3f} bits per byte on text it has not seen.")


def _tiles(run: Run) -> list[tuple[str, str, str]]:
    """(what, value, explanation) of the figures that one looks for first; those not measured are left out."""
    steps, end, start = run.of("step"), run.last("end"), run.last("run")
    speeds = _measured(steps, "tokens_per_second")
    # The first tenth holds start-up costs (allocation, compilation, cold caches).
    speed = statistics.median(speeds[len(speeds) // 10 :]) if speeds else None
    seconds, waited = sum(_measured(steps, "seconds")), sum(_measured(steps, "phase_seconds.data"))
    validation, step = run.last("validation"), run.last("step")
    total = _first(end.get("total_seconds"), end.get("seconds"), seconds)
    price = _number(start, "config.run.price_per_hour")
    tiles = [
        ("validation", validation.get("bpb"), "{:.3f}", "bits per byte"),
        ("training loss", _first(step.get("loss_smooth"), step.get("loss")), "{:.3f}", "nats per token, smoothed"),
        ("tokens", step.get("tokens"), "", f"in {short_number(step.get('step') or 0)} steps"),
        ("speed", speed, "", "tokens per second, median"),
        ("waiting for data", waited / seconds if seconds else None, "percent", "of the steps' time"),
        ("time", _first(end.get("total_seconds"), end.get("seconds")), "seconds", "all in all"),
        ("cost", price * total / 3600 if price and total else None, "{:,.2f}", f"at {price or 0:g} an hour"),
        ("memory", max(_measured(steps, "memory_bytes"), default=None), "size", "at its highest"),
        ("parameters", (start.get("parameters") or {}).get("total"), "", "weights"),
    ]
    shown = {"": short_number, "percent": _percent, "seconds": _seconds, "size": _size}
    return [
        (name, shown[form](value) if form in shown else form.format(value), note)
        for name, value, form, note in tiles
        if value is not None
    ]


def _charts(runs: list[Run]) -> list[str]:
    """One curve of each kind for each run: by kind in colour where there is one run, by run where there are two."""
    several = len(runs) > 1

    def curves(field: str, label: str) -> list[Curve]:
        return [run.curve("step", field, run.name if several else label, colour=i) for i, run in enumerate(runs)]

    def validations(field: str) -> list[Curve]:
        label = [f"{run.name}, validation" if several else "validation" for run in runs]
        return [
            run.curve("validation", field, label[i], colour=i if several else 1, dashed=several, marked=True)
            for i, run in enumerate(runs)
        ]

    each = [] if several else [runs[0].curve("step", "loss", "each step", faint=True), _spikes(runs[0])]
    levels = [] if several else _baseline_curves(runs[0])
    memory = [
        replace(curve, values=[value and value / 1e9 for value in curve.values]) for curve in curves("memory_bytes", "")
    ]
    return [
        line_chart([*each, *curves("loss_smooth", "training"), *validations("loss")], "loss (nats per token)"),
        line_chart([*curves("bpb", "training"), *validations("bpb"), *levels], "bits per byte"),
        line_chart(curves("tokens_per_second", ""), "tokens per second", from_zero=True),
        _time_chart(runs[0]),
        line_chart(
            curves("wait_fraction", ""), "share of the step spent waiting for data", from_zero=True, percent=True
        ),
        line_chart(curves("mfu", ""), "model FLOPs utilization", from_zero=True, percent=True),
        line_chart(curves("lr", ""), "learning rate", from_zero=True),
        line_chart(curves("grad_norm", ""), "gradient norm before clipping", log_scale=True),
        line_chart(curves("momentum", ""), "momentum of the matrices"),
        line_chart(memory, "memory (GB)", from_zero=True),
    ]


def _spikes(run: Run) -> Curve:
    """Marks on the losses that stood out."""
    steps = [entry for entry in run.of("step") if entry.get("spike") and _number(entry, "loss") is not None]
    return Curve("spike", [e["step"] for e in steps], [e["loss"] for e in steps], colour=3, points=True)


def _baseline_curves(run: Run) -> list[Curve]:
    """What xz and unigrams reach, as lines over the whole run."""
    found, steps = run.last("baselines"), [entry["step"] for entry in run.of("step")]
    return [
        Curve(name, [steps[0], steps[-1]], [value, value], colour=colour, dashed=True)
        for name, value, colour in (("xz", found.get("xz_bpb"), 2), ("unigram", found.get("unigram_bpb"), 3))
        if steps and value is not None
    ]


def _time_chart(run: Run) -> str:
    steps = [entry for entry in run.of("step") if entry.get("phase_seconds")]
    names = list(dict.fromkeys(name for entry in steps for name in entry["phase_seconds"]))
    layers = [[_milliseconds(entry["phase_seconds"].get(name)) for entry in steps] for name in names]
    labels = [name.replace("_", " ") for name in names]
    return stacked_chart(labels, [entry["step"] for entry in steps], layers, "milliseconds of a step")


def _phase_seconds(run: Run) -> dict[str, float]:
    """Where the time went: as the end says, else what the steps add up to."""
    stated: dict[str, float] = run.last("end").get("phase_seconds") or {}
    if stated:
        return stated
    summed: dict[str, float] = {}
    for entry in run.of("step"):
        for name, seconds in (entry.get("phase_seconds") or {}).items():
            summed[name] = summed.get(name, 0.0) + (seconds or 0.0)
    return summed


def _balances(ledger: Entry) -> list[tuple[str, int, int]]:
    """(what, left side, right side) of the identity that must hold at every batch, where the ledger has its parts."""
    parts = [ledger.get(name) for name in ("read", "learned", "masked", "cropped", "waiting")]
    if any(part is None for part in parts):
        return []
    read, *rest = map(int, parts)  # type: ignore[arg-type]
    return [("read = learned + masked + cropped + waiting", read, sum(rest))]


def _samples(run: Run) -> list[tuple[int, list[Entry]]]:
    """Samples by step, the latest first."""
    steps: dict[int, list[Entry]] = {}
    for entry in run.of("sample"):
        steps.setdefault(entry["step"], []).append(entry)
    return sorted(steps.items(), reverse=True)


def _differences(run: Run, other: Run) -> list[tuple[str, Any, Any]]:
    """Settings in which two runs differ."""
    ours, theirs = (dict(_flat(each.last("run").get("config") or {})) for each in (run, other))
    names = [*ours, *(name for name in theirs if name not in ours)]
    return [(name, ours.get(name), theirs.get(name)) for name in names if ours.get(name) != theirs.get(name)]


def _flat(values: Entry, prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _number(entry: Entry, field: str) -> float | None:
    value: Any = entry
    for name in field.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, (int, float)) else None


def _measured(entries: list[Entry], field: str) -> list[float]:
    return [value for entry in entries if (value := _number(entry, field)) is not None]


def _first(*values: float | None) -> float | None:
    return next((value for value in values if value is not None), None)


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else 1000 * seconds


def _seconds(seconds: float) -> str:
    """`41.3 s`, `3 min 41 s`, `2 h 05 min`."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _size(num_bytes: float) -> str:
    """`1.2 GB`, in powers of ten."""
    for unit, letter in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if num_bytes >= unit:
            return f"{num_bytes / unit:.3g} {letter}"
    return f"{num_bytes:.0f} bytes"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.3g} %"


def _plain(value: Any) -> str:
    """A setting or fact as a reader writes it."""
    if value is None:
        return "–"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_plain, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _follow(run_dir: Path, other: Path | None, seconds: float) -> None:
    """Keep a page up to date until the log says that the run ended."""
    while not (run := Run.read(run_dir)).last("end"):
        path = write_report(run_dir, other, reload_seconds=seconds)
        print(f"{path}: step {run.last('step').get('step', 0)}", flush=True)
        time.sleep(seconds)


def main() -> int:
    """`python -m nanofast.report [--live] RUN [OTHER_RUN]`."""
    parser = Parser(
        prog="python -m nanofast.report",
        description="Write report.html and report.md into a run's folder.",
        epilog="example: python -m nanofast.report ~/.cache/nanofast/runs/d4-20261123-073000",
    )
    parser.add_argument("run", type=local_path, help="folder of the run")
    parser.add_argument("other", type=local_path, nargs="?", help="folder of a run to compare it with")
    parser.add_argument("--live", action="store_true", help="write the page every few seconds until the run ends")
    parser.add_argument("--every", type=float, default=5.0, metavar="SECONDS", help="how often with --live (5)")
    arguments = parser.parse_args()

    def work() -> None:
        if arguments.live:
            _follow(arguments.run, arguments.other, max(0.1, arguments.every))
        print(write_report(arguments.run, arguments.other))

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
