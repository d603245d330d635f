"""One contender's process: `python worker.py TASK ACTION…` with the task as JSON; prints JSON.

answer     a digest of what it makes
pass       a pass over the corpus, timed; the first of a process is the cold one, later ones are warm
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path


def main() -> None:
    start = time.perf_counter()
    fields = json.loads(sys.argv[1])
    # Before anything counts the cores to size its pools: all of a contender's threads share what it is allowed.
    if hasattr(os, "sched_setaffinity"):
        cores, first = sorted(os.sched_getaffinity(0)), fields["first_core"]
        os.sched_setaffinity(0, {cores[(first + i) % len(cores)] for i in range(fields["num_threads"])})
    from contenders import Task
    from entries import ENTRIES

    fields.update(paths=tuple(map(Path, fields["paths"])), folder=Path(fields["folder"]))
    contender = ENTRIES[fields["contender"]].make(Task(**fields))
    report: dict[str, object] = {"setup_seconds": time.perf_counter() - start, "passes": []}
    passes: list[dict[str, float | None]] = []
    for action in sys.argv[2:]:
        if action == "answer":
            report["answer"] = contender.answer()
            continue
        cpu, start = contender.cpu_seconds(), time.perf_counter()
        done = contender.run()
        seconds, cpu_then = time.perf_counter() - start, contender.cpu_seconds()
        cpu_seconds = None if cpu is None or cpu_then is None else cpu_then - cpu
        passes.append({"seconds": seconds, "cpu_seconds": cpu_seconds, **asdict(done)})
    report.update(passes=passes, stages=contender.stages())
    print(json.dumps(report))


if __name__ == "__main__":
    main()
