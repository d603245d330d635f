"""The log of a run: `log.jsonl` in the run folder, one JSON object a line, each with `kind` and `time` (unix seconds).

Run folder:

    RUN/config.toml            the resolved configuration; `--config` takes it back
    RUN/tokenizer.json         the tokenizer
    RUN/log.jsonl              this log; appended to by a resumed run
    RUN/log.csv                the plain numbers of its `step` lines, a table with CSV_FIELDS
    RUN/checkpoints/step_…/    see checkpoint.py
    RUN/report.html            see report.py

Readers ignore kinds and fields that they do not know. A number may be null (not measured), never NaN or Infinity.
Seconds are floats, bytes integers, losses nats per target, `bpb` bits per byte of text. Kinds:

    run         at the start and at each resume: run_dir, command, config, step, resumed_from, num_iterations,
                tokens_per_step, tokenizer {name, vocab_size, fingerprint}, parameters {kind: count, total},
                flops_per_token, peak_flops {rate, source}, dtype, dtype_reason, attention, compiled, compile_reason,
                threads {torch, loader, reason}, versions {…}, machine {…}, world_size, stage, started (ISO 8601, UTC)
    step        one a step, of the whole step on all ranks: step (from 1), loss, loss_smooth, bpb, lr (of the matrices),
                lr_fraction, grad_norm (before clipping), momentum, tokens (positions so far), targets (learned in
                this step), bytes (of those), seconds, phase_seconds {data, forward_backward, optimizer},
                tokens_per_second, wait_fraction, memory_bytes, mfu (share of peak_flops), spike, skipped (why, or null)
    ledger      step, ledger {…}, loader (all of the loader's metrics)
    validation  step, loss, bpb, tokens, bytes, seconds
    baselines   step, xz_bpb, unigram_bpb, bytes: what they reach on the validation text (baselines.py)
    core        step, checkpoint, core_v1, core_v2, tasks {name: {accuracy, centered, centered_v2}}, max_per_task
    sample      step, prompt, text (the continuation), temperature, seed, seconds
    checkpoint  step, path, bytes, seconds; with error instead of bytes where it could not be written
    event       step, level (info, warning), message
    end         step, reason (finished, interrupted, error), message, loss, bpb, tokens, seconds, total_seconds,
                phase_seconds
"""

from __future__ import annotations

import csv
import json
import math
import time
from pathlib import Path
from typing import Any, TextIO

FILE_NAME = "log.jsonl"
CSV_NAME = "log.csv"
CSV_FIELDS = (
    *("step", "time", "loss", "loss_smooth", "bpb", "lr", "grad_norm", "momentum", "tokens", "targets", "seconds"),
    *("tokens_per_second", "wait_fraction", "memory_bytes", "mfu", "skipped"),
)


def _plain(value: Any) -> Any:
    """The value with NaN and infinities, which JSON has not, as None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


class RunLog:
    """Appends lines to a run's log. Each line is flushed, so that a killed run keeps what it said."""

    def __init__(self, run_dir: Path) -> None:
        run_dir.mkdir(parents=True, exist_ok=True)
        path = run_dir / FILE_NAME
        torn = path.exists() and path.stat().st_size > 0 and not path.read_bytes().endswith(b"\n")
        self._file: TextIO = path.open("a", encoding="utf-8")
        self._csv: TextIO = (run_dir / CSV_NAME).open("a", encoding="utf-8", newline="")
        self._table = csv.DictWriter(self._csv, CSV_FIELDS, extrasaction="ignore")
        if self._csv.tell() == 0:
            self._table.writeheader()
        if torn:  # a killed process left half a line; keep it apart from ours
            self._file.write("\n")

    def write(self, kind: str, **fields: Any) -> None:
        """Append one line."""
        entry = {"kind": kind, "time": time.time(), **_plain(fields)}
        self._file.write(json.dumps(entry, ensure_ascii=False, allow_nan=False, default=str) + "\n")
        self._file.flush()
        if kind == "step":
            self._table.writerow(entry)
            self._csv.flush()

    def close(self) -> None:
        """Close the files; the log may be opened again."""
        self._file.close()
        self._csv.close()


def _still_counts(entry: dict[str, Any], since: int) -> bool:
    """True for what happened up to the step that a resume began at."""
    return bool(entry.get("step", 0) <= since and entry["kind"] != "end")


def read_log(run_dir: Path | str) -> list[dict[str, Any]]:
    """All lines that count, in order: without torn lines and without those that a later resume went back behind."""
    entries: list[dict[str, Any]] = []
    text = (Path(run_dir) / FILE_NAME).read_text(encoding="utf-8", errors="replace")
    for line in text.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if not isinstance(entry, dict) or "kind" not in entry:
            continue
        if entry["kind"] == "run" and entry.get("resumed_from"):
            since = entry.get("step", 0)
            entries = [old for old in entries if old["kind"] == "run" or _still_counts(old, since)]
        entries.append(entry)
    return entries
