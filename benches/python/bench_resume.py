"""What does a resume cost, and what does it lose?  `pytest benches/python/bench_resume.py -s`

Each loader that has a state reads some batches in one process, which keeps the state that came with the last of them;
another process restores it and takes the next batch. Shown: the time from there to that batch, with imports, vocabulary
and the loader itself made before; the size of the state; and how many tokens were passed over or given again, by where
in the stream of all tokens the batch begins and where it should. One thread each; those who resume exactly are held to
it.
"""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench_side_by_side import common_task
from contenders import Task
from corpus import find_corpus, row_groups
from entries import ENTRIES
from results import Results, Table
from rounds import environment_of
from vocabularies import tiktoken_encoding, write_vocabulary

# Who, and whether the very next batch is promised.
LOADERS = {
    "nanofast_concat": True,
    "nanofast_carry": True,
    "nanofast_crop": True,
    "plain_stream": False,
    "torchdata": True,
    "grain": False,
    "datasets": False,
}
SIZES, SMOKE_SIZES = (32, 2048), (4, 64)
SHARES = (0.25, 0.75)  # of the corpus, where a state is taken


def work(task: Task, state_file: Path, num_batches: int | None) -> dict[str, Any]:
    """In a process of its own: read so many batches and keep the state, or (None) go on from it."""
    contender: Any = ENTRIES[task.contender].make(task)
    report: dict[str, Any] = {}
    if num_batches is not None:
        for _ in range(num_batches):
            next(contender.batches)
        state_file.write_bytes(pickle.dumps(contender.state()))
    else:
        state = pickle.loads(state_file.read_bytes())
        start = time.perf_counter()
        contender.restore(state)
    inputs, _ = next(contender.batches)
    if num_batches is None:
        report["seconds"] = time.perf_counter() - start
    return {**report, "batch": np.asarray(inputs).ravel().tolist()}


def run(task: Task, state_file: Path, num_batches: int | None) -> dict[str, Any]:
    fields = {**asdict(task), "paths": [str(path) for path in task.paths], "folder": str(task.folder)}
    words = [sys.executable, __file__, json.dumps(fields), str(state_file), json.dumps(num_batches)]
    done = subprocess.run(words, env=environment_of(task), capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def stream_of(task: Task) -> np.ndarray:
    """All tokens of the corpus, in the order of documents, BOS in front of each."""
    encoding = tiktoken_encoding(task.vocabulary, task.folder)
    texts = [text for shard in row_groups(task.paths) for group in shard for text in group]
    encoded = encoding.encode_ordinary_batch(texts)
    return np.concatenate([np.array([encoding.eot_token, *ids], np.int32) for ids in encoded])


def place_of(batch: list[int], stream: np.ndarray) -> int:
    """Where in the stream a batch begins."""
    wanted = np.array(batch, np.int32)
    candidates = np.flatnonzero(stream[: len(stream) - len(wanted) + 1] == wanted[0])
    found = [at for at in candidates if np.array_equal(stream[at : at + len(wanted)], wanted)]
    assert len(found) == 1, f"a batch that begins at {len(found)} places of the stream"
    return int(found[0])


@pytest.mark.timeout(3600)
@pytest.mark.filterwarnings("default")  # theirs are not ours to mend
def test_resume(smoke: bool, results: Results, tmp_path: Path) -> None:
    corpus = find_corpus(smoke, tmp_path)
    write_vocabulary("r50k_base", tmp_path)
    task = common_task(corpus, "r50k_base", tmp_path, smoke)
    batch_size, sequence_length = SMOKE_SIZES if smoke else SIZES
    stream = stream_of(task)
    num_batches = len(stream) // (batch_size * sequence_length)
    task = replace(task, batch_size=batch_size, sequence_length=sequence_length, num_batches=num_batches)

    rows, notes = [], []
    shares = SHARES[-1:] if smoke else SHARES
    for name, is_exact in LOADERS.items():
        if not ENTRIES[name].is_there:
            notes.append(f"{ENTRIES[name].name}: not measured, `{ENTRIES[name].package}` is not there")
            continue
        for share in shares:
            own, file = replace(task, contender=name), tmp_path / f"{name}.state"
            # Once on little data is as good in this process.
            ask = work if smoke else run
            expected = ask(own, file, int(share * num_batches))["batch"]
            resumed = ask(own, file, None)
            if is_exact:
                assert resumed["batch"] == expected, f"{name} goes on with another batch"
                missed = 0
            else:
                missed = place_of(resumed["batch"], stream) - place_of(expected, stream)
            lost, repeated = max(missed, 0), max(-missed, 0)
            ms, size = 1e3 * resumed["seconds"], file.stat().st_size
            rows.append((ENTRIES[name].name, f"{share:.0%} of an epoch", ms, size, lost, repeated))
    results.add(
        Table(
            "Resume",
            ("loader", "at", "next batch, ms", "state, bytes", "tokens lost", "tokens repeated"),
            rows,
            (f"{corpus}, r50k_base, {batch_size} x {sequence_length}, 1 thread, in another process", *notes),
        )
    )


if __name__ == "__main__":
    fields = json.loads(sys.argv[1])
    fields.update(paths=tuple(map(Path, fields["paths"])), folder=Path(fields["folder"]))
    print(json.dumps(work(Task(**fields), Path(sys.argv[2]), json.loads(sys.argv[3]))))
