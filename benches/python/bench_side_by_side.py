"""How fast does parquet become batches, beside what people use?  `pytest benches/python/bench_side_by_side.py`

Every contender's answer is held against tiktoken's ids or against the batches that it must give, then all are timed:
one fresh process a contender, vocabulary, number of threads and round.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from contenders import Task
from corpus import Corpus, find_corpus, row_groups
from entries import BATCHES, ENTRIES, Entry
from nanofast.distributed import available_cores
from results import Cell, Results, Table, spread
from rounds import Samples, run_process, timed
from vocabularies import NAMES, tiktoken_encoding, write_vocabulary

# The training shape of small models; little enough in the smoke run that a pass is several batches.
SIZES, SMOKE_SIZES = (32, 2048), (4, 256)
HEADER = (
    *("contender", "from → to", "vocabulary", "threads", "cold MB/s", "warm MB/s", "warm Mtok/s", "warm MB/CPU-s"),
    *("× cold", "× warm"),
)
LEGEND = (
    "cold: the first pass of a fresh process, its files in the system's cache; warm: the next pass of that process; "
    "imports and vocabularies are not timed",
    "MB: of UTF-8; for loaders that of the tokens in the batches. MB/CPU-s: by processor time of all threads",
    "×: rate by that of nanofast's best_fit in the same round",
    "a contender's process is held to as many cores as it has threads",
)


@pytest.mark.timeout(3600)
def test_side_by_side(
    smoke: bool,
    num_rounds: int,
    vocabularies: list[str] | None,
    results: Results,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    corpus = find_corpus(smoke, tmp_path)
    vocabularies = vocabularies or list(NAMES[:1] if smoke else NAMES)
    threads = (1,) if smoke or available_cores() == 1 else (1, 2)

    def say(line: str) -> None:
        with capsys.disabled():
            print(f"  {line}")

    say("")
    tasks, once = [], []
    for vocabulary in vocabularies:
        write_vocabulary(vocabulary, tmp_path)
        task = replace(common_task(corpus, vocabulary, tmp_path, smoke), num_threads=threads[-1])
        reports = check_answers(task, ["answer", "pass", "pass"] if smoke else ["answer"], available_cores(), say)
        for name in (name for name, entry in present() if entry.is_timed):
            if ENTRIES[name].has_vocabulary or vocabulary == vocabularies[0]:
                tasks += [replace(task, contender=name, num_threads=count) for count in threads]
                once.append((tasks[-1], reports[name]))
    if smoke:
        samples = [Samples(task) for task, _ in once]
        for sample, (_, report) in zip(samples, once, strict=True):
            sample.add(report)
    else:
        samples = timed(tasks, num_rounds, say)
    for sample in samples:
        # A loader's pass is whole batches, the last part of one missing; the others see every byte once.
        batch_bytes = sample.task.batch_size * sample.task.sequence_length * sample.task.bytes_per_token
        slack = batch_bytes + 1 if ENTRIES[sample.task.contender].path == BATCHES else 0
        assert all(0 <= corpus.num_bytes - one["num_bytes"] <= slack for one in sample.cold + sample.warm), sample.task
    results.add(
        Table(
            "Loaders: parquet to batches",
            HEADER,
            [row_of(sample, samples) for sample in samples],
            (
                f"{corpus}; batches of {task.batch_size} x {task.sequence_length}; rounds: {num_rounds}",
                *LEGEND,
                *notes(),
            ),
            [{**asdict(sample), "task": name_of(sample.task)} for sample in samples],
        )
    )


def common_task(corpus: Corpus, vocabulary: str, folder: Path, smoke: bool) -> Task:
    """What all contenders are given; a pass is as many whole batches as the corpus fills."""
    batch_size, sequence_length = SMOKE_SIZES if smoke else SIZES
    encoding = tiktoken_encoding(vocabulary, folder)
    groups = [texts for shard in row_groups(corpus.paths) for texts in shard]
    positions = sum(1 + len(ids) for texts in groups for ids in encoding.encode_ordinary_batch(texts))
    num_batches = positions // (batch_size * sequence_length)
    bytes_per_token = corpus.num_bytes / positions
    return Task("", vocabulary, 1, corpus.paths, folder, batch_size, sequence_length, num_batches, bytes_per_token)


def present() -> list[tuple[str, Entry]]:
    """Those who are timed here, and whose answers they must give."""
    timed_here = {name: entry for name, entry in ENTRIES.items() if entry.is_there and entry.is_timed}
    wanted = {*timed_here, *(entry.same_as for entry in timed_here.values())}
    return [(name, entry) for name, entry in ENTRIES.items() if name in wanted]


def check_answers(
    task: Task, actions: Sequence[str], num_processes: int, say: Callable[[str], None]
) -> dict[str, dict[str, Any]]:
    """Every contender gives the ids of tiktoken, or the batches that the rule says; returns what they report."""

    reports = {}
    with ThreadPoolExecutor(num_processes) as pool:
        answers = {}
        for number, (name, entry) in enumerate(present()):
            own = replace(task, contender=name, first_core=number * task.num_threads)
            answers[name] = pool.submit(run_process, own, actions if entry.is_timed else ["answer"])
        for name, entry in present():
            say(f"{task.vocabulary}: the answer of {entry.name}")
            reports[name] = answers[name].result()
    for name, entry in present():
        if entry.same_as is not None:
            same = reports[name]["answer"] == reports[entry.same_as]["answer"]
            assert same, f"{name} and {entry.same_as} differ ({task.vocabulary})"
    return reports


def row_of(sample: Samples, samples: Sequence[Samples]) -> tuple[Cell, ...]:
    """The line of one contender, with ratios to the reference of the same vocabulary and threads."""
    task, entry = sample.task, ENTRIES[sample.task.contender]
    by_key = {(one.task.contender, one.task.vocabulary, one.task.num_threads): one for one in samples}
    reference = by_key["nanofast_carry", task.vocabulary, task.num_threads]

    def ratio(kind: str) -> float:
        own, other = (rates(getattr(one, kind), "num_bytes") for one in (sample, reference))
        return median(mine / its for mine, its in zip(own, other, strict=True))

    return (
        entry.name,
        entry.path,
        task.vocabulary if entry.has_vocabulary else "–",
        task.num_threads,
        spread(rates(sample.cold, "num_bytes")),
        spread(rates(sample.warm, "num_bytes")),
        median(rates(sample.warm, "num_tokens")) if entry.has_vocabulary else None,
        # Not all passes tell it.
        None
        if any(one["cpu_seconds"] is None for one in sample.warm)
        else median(rates(sample.warm, "num_bytes", "cpu_seconds")),
        ratio("cold"),
        ratio("warm"),
    )


def name_of(task: Task) -> str:
    return f"{task.contender}, {task.vocabulary}, {task.num_threads} threads"


def rates(passes: Sequence[dict[str, float]], unit: str, clock: str = "seconds") -> list[float]:
    """Millions of `unit` a second."""
    return [one[unit] / one[clock] / 1e6 for one in passes]


def notes() -> list[str]:
    """What to know of a line, and whose lines are not there."""
    timed_entries = [entry for entry in ENTRIES.values() if entry.is_timed]
    known = [f"{entry.name}: {entry.note}" for entry in timed_entries if entry.is_there and entry.note]
    return known + [
        f"{entry.name}: not measured, `{entry.package}` is not there" for entry in timed_entries if not entry.is_there
    ]
