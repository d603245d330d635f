"""How fast does text become ids and batches, beside what people use?  `pytest benches/python/bench_side_by_side.py`

Every contender's answer is held against tiktoken's ids or against the batches that it must give, then all are timed:
one fresh process a contender, vocabulary, number of threads and round. The table goes to the screen and to
`benches/results/<date>_<cpu>_<commit>.{md,csv,json}`; with `--smoke` to `benches/results/smoke.*`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from contenders import Task
from corpus import Corpus, find_corpus, row_groups
from entries import BATCHES, ENTRIES, Entry
from rounds import Samples, run_process, timed
from table import as_markdown, circumstances, make_rows, store
from vocabularies import NAMES, tiktoken_encoding, write_vocabulary

RESULTS = Path(__file__).resolve().parents[1] / "results"
# The training shape of small models; little enough in the smoke run that a pass is several batches.
SIZES, SMOKE_SIZES = (32, 2048), (4, 256)


@pytest.mark.timeout(3600)
def test_side_by_side(
    smoke: bool,
    num_rounds: int,
    vocabularies: list[str] | None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    corpus = find_corpus(smoke, tmp_path)
    vocabularies = vocabularies or list(NAMES[:1] if smoke else NAMES)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = (1,) if smoke or cores == 1 else (1, 2)

    def say(line: str) -> None:
        with capsys.disabled():
            print(f"  {line}")

    say("")
    tasks, once = [], []
    for vocabulary in vocabularies:
        write_vocabulary(vocabulary, tmp_path)
        task = replace(common_task(corpus, vocabulary, tmp_path, smoke), num_threads=threads[-1])
        reports = check_answers(task, ["answer", "pass", "pass"] if smoke else ["answer"], cores, say)
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
    rows = make_rows(samples)
    facts = circumstances(corpus, num_rounds)
    stored = store(RESULTS, smoke, rows, samples, facts)
    say(f"\n{as_markdown(rows, facts)}\n\nstored as {stored}.md, .csv and .json")
    for sample in samples:
        # A loader's pass is whole batches, the last part of one missing; the others see every byte once.
        batch_bytes = sample.task.batch_size * sample.task.sequence_length * sample.task.bytes_per_token
        slack = batch_bytes + 1 if ENTRIES[sample.task.contender].path == BATCHES else 0
        assert all(0 <= corpus.num_bytes - one["num_bytes"] <= slack for one in sample.cold + sample.warm), sample.task


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
