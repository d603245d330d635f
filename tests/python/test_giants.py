"""Documents of megabytes: resumed from a border inside of them, and no reason for close() to wait."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nanofast
from conftest import IS_LONG
from memory_parts import least_memory
from shards import WORDS, write_shards
from test_life import HANGS_AFTER


@pytest.fixture(scope="module")
def tokenizer() -> nanofast.Tokenizer:
    return nanofast.Tokenizer.from_name("r50k_base")


@pytest.fixture(scope="module")
def giant() -> str:
    generator = random.Random(1)
    return " ".join(generator.choices([*WORDS, "naïve", "日本語", "\n\n"], k=700_000))  # some 2.5 MB


@pytest.mark.parametrize(
    "mode", [{"packing": "concat"}, {"packing": "best_fit"}, {"packing": "concat", "shuffle": True}]
)
def test_a_state_inside_of_a_giant_names_a_border_and_goes_on_from_it(
    mode: dict[str, Any], giant: str, tokenizer: nanofast.Tokenizer, tmp_path: Path
) -> None:
    [data] = write_shards(tmp_path, [[["one", giant, *["word " * 20] * 600]]])
    sizes: dict[str, Any] = {"batch_size": 4, "sequence_length": 4096, "lanes": 1, **mode}
    count = tokenizer.count_tokens(giant) // (4 * 4096)
    with nanofast.TokenLoader(data, tokenizer, **sizes) as loader:
        states, batches = [], []
        for inputs, _ in itertools.islice(loader.numpy(), count):
            states.append(loader.state_dict())
            batches.append(inputs)
    read_again = []
    for number in range(0, count - 2, 5):
        with nanofast.TokenLoader(data, tokenizer, num_threads=1, num_slots=2, **sizes) as loader:
            loader.load_state_dict(states[number])
            assert loader.state_dict() == states[number]
            for offset, (inputs, _) in enumerate(itertools.islice(loader.numpy(), 2), 1):
                np.testing.assert_array_equal(inputs, batches[number + offset])
                assert loader.state_dict() == states[number + offset]
            read_again.append(loader.metrics()["bytes"])
    # Near the end of the document only what lies behind the border is tokenized again.
    assert min(read_again) < len(giant.encode()) / 2


def test_close_does_not_wait_for_a_giant(tokenizer: nanofast.Tokenizer, tmp_path: Path) -> None:
    """One pretoken of 100 MB takes seconds to merge; a loader that waited for it would have counted its tokens."""
    letters = bytes(ord("a") + byte % 26 for byte in range(256))
    [data] = write_shards(tmp_path, [[[random.Random(1).randbytes(100_000_000).translate(letters).decode()]]])
    loader = nanofast.TokenLoader(data, tokenizer, 2, 64, lanes=1)
    errors: list[str] = []

    def consume() -> None:
        try:
            next(loader.numpy())
        except nanofast.Error as error:
            errors.append(str(error))

    thread = threading.Thread(target=consume)
    thread.start()
    while not loader.metrics()["stage_seconds"]["decode"]:
        time.sleep(0.001)
    time.sleep(0.2)
    loader.close()
    thread.join(HANGS_AFTER)
    assert "closed" in errors[0]
    assert loader.metrics()["tokens"] == 0
    # The encoder that was stopped halfway is not used again.
    write_shards(tmp_path, [[["a" * 3000]]])
    with nanofast.TokenLoader(data, tokenizer, 1, 8, lanes=1, packing="concat") as after:
        inputs, _ = next(after.numpy())
    assert inputs[0, 1:].tolist() == tokenizer.encode("a" * 3000)[:7].tolist()


def test_memory_that_cannot_be_had_is_an_error_with_its_place(tmp_path: Path) -> None:
    """A page of 100 MB in a process that may have 60 MB more than it has."""
    data = str(tmp_path / "a.parquet")
    with pq.ParquetWriter(
        data, pa.schema([("text", pa.string())]), use_dictionary=False, write_statistics=False
    ) as file:
        for texts in (["word " * 20_000] * 20, ["x" * 100_000_000]):  # the first keep the reading from the second
            file.write_table(pa.table({"text": texts}))
    code = (
        "import resource, sys, nanofast\n"
        "tokenizer = nanofast.Tokenizer.from_name('r50k_base')\n"
        "options = {'lanes': 1, 'unit_documents': 0, 'num_threads': 1, 'packing': 'concat'}\n"
        "loader = nanofast.TokenLoader(sys.argv[1], tokenizer, 1, 64, **options)\n"
        "next(loader.numpy())\n"
        "pages = int(open('/proc/self/statm').read().split()[0])\n"
        "resource.setrlimit(resource.RLIMIT_AS, (pages * 4096 + 60_000_000,) * 2)\n"
        "try:\n"
        "    for _ in loader.numpy(): pass\n"
        "except MemoryError as error:\n"
        "    print(error)\n"
    )
    found = subprocess.run([sys.executable, "-c", code, data], capture_output=True, text=True, timeout=120, check=False)
    assert found.returncode == 0, found.stderr
    assert "row group 1" in found.stdout
    assert data in found.stdout


@settings(max_examples=100 if IS_LONG else 8)
@given(
    seed=st.integers(0, 2**32),
    lanes=st.sampled_from([1, 2, 4]),
    num_threads=st.sampled_from([1, 2, 5]),
    shuffle=st.booleans(),
    packing=st.sampled_from(["concat", "best_fit", "one_per_row"]),
    unit_documents=st.sampled_from([None, 0, 1, 3]),
)
def test_no_order_of_large_documents_stops_a_loader(
    seed: int,
    lanes: int,
    num_threads: int,
    shuffle: bool,
    packing: str,
    unit_documents: int | None,
    tokenizer: nanofast.Tokenizer,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Documents around and above what is read ahead, between small ones; left and restored on the way."""
    generator = random.Random(seed)
    sizes = [generator.choice([0, 10, 5_000, 60_000, 90_000]) for _ in range(24)]
    texts = ["word " * size for size in sizes]
    data = write_shards(tmp_path_factory.mktemp("shards"), [[texts[:7], texts[7:9]], [texts[9:]]])
    options: dict[str, Any] = {
        "lanes": lanes,
        "shuffle": shuffle,
        "packing": packing,
        "unit_documents": unit_documents,
        "epochs": 1,
    }
    options |= {"num_threads": num_threads, "num_slots": 2}
    if unit_documents == 0 and lanes == 4:
        options["lanes"] = 2  # three row groups
    # The texts are in dictionaries, so that footers tell little of their size.
    options["memory_limit_bytes"] = least_memory(data, tokenizer, 2, 500, **options) + 10 * sum(sizes)
    with nanofast.TokenLoader(data, tokenizer, 2, 500, **options) as loader:
        for number, _ in enumerate(loader.numpy(copy=False)):
            if number == seed % 40:
                loader.load_state_dict(loader.state_dict())
        ledger = loader.metrics()["ledger"]
    assert (ledger["documents"], ledger["waiting"], ledger["bytes"]) == (24, 0, 5 * sum(sizes))
