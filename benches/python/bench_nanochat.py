"""What does a changed import give a nanochat script?  `pytest benches/python/bench_nanochat.py`

`theirs` is nanochat's loader in plain Python over tiktoken (plain_loader.py), `ours` is `nanofast.compat.nanochat`;
each in a fresh process, same shards, same threads. Both give the same batches (asserted). Shown: tokens a second of the
first and of the second half, time from the call to the first batch with a loaded tokenizer, and what a resume loses
from the state that came with the last batch. theirs: the tokens in its buffer and in the rest of its row group; ours:
none, since the batches behind the resume are asserted to be those of the run that was not interrupted.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from corpus import find_corpus
from nanofast.distributed import available_cores
from results import Results, Table
from rounds import TESTS

# Rows, inputs a row, and batches: of 4 the answers are compared, the rest is timed in two halves.
SIZES = {"best fit": (32, 2048, 120), "stream": (32, 2048, 120)}
SMOKE_SIZES = (2, 128, 12)


class NanochatTokenizer:
    """What nanochat's tokenizer is to a loader: it holds an encoding."""

    def __init__(self, enc: Any) -> None:
        self.enc = enc

    def get_bos_token_id(self) -> int:
        return int(self.enc.eot_token)


class Theirs:
    def __init__(self, kind: str, tokenizer: NanochatTokenizer, folder: Path, sizes: tuple[int, int]) -> None:
        from plain_loader import PlainLoader, PlainStream

        shards = sorted(folder.glob("*.parquet"))[:-1]
        make = {"best fit": PlainLoader, "stream": PlainStream}[kind]
        self.loader = make(shards, tokenizer.enc, *sizes, num_threads=available_cores())
        self.batches = iter(self.loader)

    def next(self) -> Any:
        return next(self.batches)

    def lost_at_a_resume(self) -> int:
        return self.loader.num_buffered_tokens() + self.loader.num_unread_tokens()


class Ours:
    def __init__(
        self, kind: str, tokenizer: NanochatTokenizer, folder: Path, sizes: tuple[int, int], state: Any = None
    ) -> None:
        from nanofast.compat import nanochat

        self.made_from = (kind, tokenizer, folder, sizes)
        make = {
            "best fit": nanochat.tokenizing_distributed_data_loader_with_state_bos_bestfit,
            "stream": nanochat.tokenizing_distributed_data_loader_with_state,
        }[kind]
        self.batches = make(
            tokenizer, *sizes, "train", available_cores(), device="cpu", resume_state_dict=state, data=folder
        )
        self.state: Any = None

    def next(self) -> Any:
        inputs, targets, self.state = next(self.batches)
        return inputs, targets

    def lost_at_a_resume(self) -> int:
        from contenders import digest_of_batches

        resumed = Ours(*self.made_from, state=json.loads(json.dumps(self.state)))
        assert digest_of_batches(resumed.next() for _ in range(4)) == digest_of_batches(self.next() for _ in range(4))
        return 0


def measure(who: str, kind: str, folder: Path, batch_size: int, sequence_length: int, count: int) -> dict[str, Any]:
    import torch  # noqa: F401 (not a part of the first batch)

    import nanofast.compat.nanochat as compat
    from contenders import digest_of_batches
    from vocabularies import tiktoken_encoding

    tokenizer = NanochatTokenizer(tiktoken_encoding("r50k_base", folder))
    tokenizer.enc.encode_ordinary("loaded")
    compat._tokenizer(tokenizer)
    start = time.perf_counter()
    loader = {"theirs": Theirs, "ours": Ours}[who](kind, tokenizer, folder, (batch_size, sequence_length))
    kept = [loader.next()]
    seconds = [time.perf_counter() - start]
    kept += [loader.next() for _ in range(3)]
    for _ in range(2):
        start = time.perf_counter()
        for _ in range(count // 2):
            loader.next()
        seconds.append(time.perf_counter() - start)
    tokens = count // 2 * batch_size * sequence_length
    return {
        "answer": digest_of_batches(kept),
        "first_ms": seconds[0] * 1e3,
        "tokens_per_second": [tokens / part for part in seconds[1:]],
        "lost": loader.lost_at_a_resume(),
    }


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("kind", SIZES)
def test_the_import_is_swapped(kind: str, smoke: bool, results: Results, tmp_path: Path) -> None:
    from vocabularies import write_vocabulary

    corpus = find_corpus(smoke, tmp_path)
    folder = tmp_path / "base_data"
    folder.mkdir()
    for number in range(2):  # "train" is all shards but the last
        (folder / f"shard_{number:05d}.parquet").symlink_to(corpus.paths[0].resolve())
    write_vocabulary("r50k_base", folder)
    sizes = SMOKE_SIZES if smoke else SIZES[kind]
    found = {}
    for who in ("theirs", "ours"):
        words = [sys.executable, __file__, who, kind, str(folder), *map(str, sizes)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])}
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, done.stderr
        found[who] = json.loads(done.stdout)
    assert found["ours"].pop("answer") == found["theirs"].pop("answer")
    assert found["ours"]["lost"] == 0 < found["theirs"]["lost"]
    names = {"theirs": "plain Python, as nanochat's", "ours": "nanofast.compat.nanochat"}
    rows = [
        (names[who], *(rate / 1e6 for rate in figures["tokens_per_second"]), figures["first_ms"], figures["lost"])
        for who, figures in found.items()
    ]
    header = ("loader", "Mtok/s, first half", "second half", "first batch, ms", "tokens lost at a resume")
    note = f"{corpus}; r50k_base, {sizes[0]} x {sizes[1]}, {available_cores()} threads; each once, in a fresh process"
    results.add(Table(f"nanochat's loaders, {kind}", header, rows, (note,)))


if __name__ == "__main__":
    who, kind, folder, *numbers = sys.argv[1:]
    print(json.dumps(measure(who, kind, Path(folder), *map(int, numbers))))
