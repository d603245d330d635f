"""`memory_limit_bytes`: the least limit, the same batches at any, errors in words, and what a process really takes."""

from __future__ import annotations

import hashlib
import itertools
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import nanofast
from conftest import IS_LONG
from memory_parts import least_memory, taken
from shards import random_texts, write_shards

SLACK = 64 << 20  # stacks, fragments between allocations, tables of the system, what is too small to count
MB = 1_000_000


@pytest.fixture(scope="module")
def tokenizer() -> nanofast.Tokenizer:
    return nanofast.Tokenizer.from_name("r50k_base")


def english(seed: int, num_bytes: int) -> str:
    """Words of an invented language as skewed as English."""
    generator = random.Random(seed)
    words = ["".join(generator.choices("etaoinshrdlucmfw", k=generator.randrange(2, 10))) for _ in range(2000)]
    parts = [" ".join(words[int(2000 * generator.random() ** 4)] for _ in range(2000)) for _ in range(20)]
    text = "\n".join(generator.choice(parts) for _ in range(num_bytes // 10_000 + 1))
    return text[:num_bytes]


def write(path: Path, row_groups: list[list[str]], **settings: Any) -> str:
    with pq.ParquetWriter(path, pa.schema([("text", pa.string())]), **{"compression": "zstd"} | settings) as writer:
        for texts in row_groups:
            writer.write_table(pa.table({"text": texts}), row_group_size=max(1, len(texts)))
    return str(path)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Files, each made once, by MB of text of a row group, of a giant document in the first one, and in all."""
    folder = tmp_path_factory.mktemp("shards")
    stock = english(1, 20 * MB)

    def make(row_group_mb: int, giant_mb: int = 0, all_mb: int = 256) -> str:
        path = folder / f"{row_group_mb}_{giant_mb}_{all_mb}.parquet"
        if path.exists():
            return str(path)
        generator, groups = random.Random(2), []
        for _ in range(max(1, all_mb // row_group_mb)):
            texts, size = [], 0
            while size < row_group_mb * MB:
                length = generator.choice([50, 500, 3000, 9000, 20_000])
                start = generator.randrange(len(stock) - length)
                texts.append(stock[start : start + length])
                size += length
            groups.append(texts)
        if giant_mb:
            groups[0][len(groups[0]) // 2] = (stock * (giant_mb * MB // len(stock) + 1))[: giant_mb * MB]
        return write(path, groups)

    return make


# ---- the limit ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lanes", "num_threads"), list(itertools.product([1, 2, 8], [1, 2, 4, 16])) if IS_LONG else [(1, 1), (8, 16)]
)
@pytest.mark.parametrize("mode", ["concat", "carry", "crop", "pad", "shuffle", "ranges", "mixture"])
def test_at_the_least_limit_come_the_same_batches(
    mode: str, lanes: int, num_threads: int, tokenizer: nanofast.Tokenizer, tmp_path: Path
) -> None:
    texts = random_texts(1, [[300, 500, 200], [400]], longest=1000)
    data: Any = write_shards(tmp_path, texts)
    settings: dict[str, Any] = {"packing": "best_fit", "overflow": mode}
    if mode == "concat":
        settings = {"packing": "concat", "unit_documents": 3}
    elif mode == "shuffle":
        settings = {"shuffle": True, "shuffle_window": 50}
    elif mode == "ranges":
        settings = {"unit_documents": 7}
    elif mode == "mixture":
        settings = {"shuffle": True, "shuffle_window": 50}
        data = nanofast.Mixture({"one": (data[0], 0.8), "other": (data[1], 0.2)})
    sizes = (4, 700)
    settings |= {"lanes": lanes}
    with nanofast.TokenLoader(data, tokenizer, *sizes, **settings, num_threads=2) as loader:
        expected = [inputs for inputs, _ in itertools.islice(loader.numpy(), 60)]
        state = loader.state_dict()
    settings |= {"num_threads": num_threads}
    least = least_memory(data, tokenizer, *sizes, **settings)
    with nanofast.TokenLoader(data, tokenizer, *sizes, **settings, memory_limit_bytes=least) as loader:
        for inputs in expected:
            np.testing.assert_array_equal(next(loader.numpy())[0], inputs)
            memory = loader.metrics()["memory"]
            assert memory["reserved_bytes"] <= memory["used_bytes"] <= memory["peak_bytes"] <= memory["limit_bytes"]
        assert memory["limit_bytes"] == least
        assert loader.state_dict() == state


def test_a_limit_below_the_least_is_refused_with_the_number_that_does(
    tokenizer: nanofast.Tokenizer, tmp_path: Path
) -> None:
    data = write_shards(tmp_path, random_texts(1, [[100, 100]]))
    least = least_memory(data, tokenizer, 4, 256)
    with pytest.raises(ValueError, match=f"memory_limit_bytes = {least - 1}: must be at least {least}: .* the ring"):
        nanofast.TokenLoader(data, tokenizer, 4, 256, memory_limit_bytes=least - 1)
    with nanofast.TokenLoader(data, tokenizer, 4, 256, memory_limit_bytes=least) as loader:
        next(loader.numpy())
        with pytest.raises(ValueError, match="memory_limit_bytes"):
            loader.reconfigure(batch_size=400_000)
        next(loader.numpy())  # as it was


@pytest.mark.parametrize("unit_documents", [0, 300])
def test_what_footers_do_not_tell_is_an_error_with_the_number_that_does(
    unit_documents: int, tokenizer: nanofast.Tokenizer, tmp_path: Path
) -> None:
    """A document of 30 MB among small ones, in two lanes. The least limit does not allow for it, what the error says
    does, and any limit between gives all batches or such an error."""
    small = ["some words " * 200] * 3000
    data = write(tmp_path / "a.parquet", [small, [*small, english(3, 30 * MB), *small]])
    sizes = (4, 512)
    settings: dict[str, Any] = {"lanes": 2, "packing": "concat", "num_threads": 3, "unit_documents": unit_documents}
    least = least_memory(data, tokenizer, *sizes, **settings, epochs=1)
    num_bytes = sum(len(text) for group in pq.ParquetFile(data).iter_batches() for text in group[0].to_pylist())

    def digest(limit: int) -> str | int:
        """Of all batches; or the limit that the error says."""
        digest = hashlib.sha256()
        with nanofast.TokenLoader(data, tokenizer, *sizes, **settings, epochs=1, memory_limit_bytes=limit) as loader:
            refused = None
            try:
                for inputs, _ in loader.numpy(copy=False):
                    digest.update(inputs.tobytes())
            except MemoryError as error:
                refused = str(error)
            metrics = loader.metrics()
        assert metrics["memory"]["peak_bytes"] <= metrics["memory"]["limit_bytes"] == limit
        if refused is None:
            assert metrics["ledger"]["bytes"] == num_bytes
            return digest.hexdigest()
        words = (
            r"is too small: `.*a\.parquet`, row group 1, row \d+ needs \d+ bytes beside \d+ .*; allow at least (\d+)"
        )
        found = re.fullmatch(f"memory_limit_bytes = {limit} {words}", refused)
        assert found, refused
        return int(found[1])

    expected, enough = digest(1 << 30), digest(least)
    assert isinstance(enough, int)
    assert digest(enough) == expected
    for part in (0.1, 0.4, 0.7, 0.9, 0.99):
        found = digest(int(least + part * (enough - least)))
        assert found == expected or isinstance(found, int)


def test_a_page_that_claims_more_than_the_limit_is_refused_before_it_is_allocated(
    tokenizer: nanofast.Tokenizer, tmp_path: Path
) -> None:
    """A memory bomb: a page of 400 MB in some 40 KB."""
    data = write(tmp_path / "a.parquet", [["a few words"] * 50, ["x" * 400_000_000]], use_dictionary=False)
    assert Path(data).stat().st_size < 2 * MB
    found = taken_or_refused(data, memory_limit_bytes=200 << 20)
    assert re.search(r"a\.parquet`, row group 1, row 0 needs 1\d{9} bytes beside", found["error"]), found
    assert found["resident"] < found["limit_bytes"] + SLACK


def taken_or_refused(data: str, **settings: Any) -> dict[str, Any]:
    settings = {"data": data, "sizes": [4, 256], "lanes": 1, "unit_documents": 0, "packing": "concat"} | settings
    return taken({**settings, "num_threads": 2})


def test_the_first_row_is_packed_before_the_row_group_is_read(
    shards: Callable[..., str], tokenizer: nanofast.Tokenizer
) -> None:
    """One row group of 64 MB, of which at most what is read ahead has been tokenized when the first batch is there."""
    data = shards(64, all_mb=64)
    settings: dict[str, Any] = {"lanes": 1, "unit_documents": 0, "num_threads": 2, "packing": "concat"}
    with nanofast.TokenLoader(data, tokenizer, 2, 512, **settings) as loader:
        next(loader.numpy())
        assert loader.metrics()["bytes"] < 8 * MB


# ---- what a process really takes ------------------------------------------------------------------------------------


CASES: list[tuple[int, int, int, int, dict[str, Any]]] = [
    # MB of a row group, of a giant in it, threads, lanes
    (1, 0, 1, 1, {}),
    (1, 0, 16, 8, {}),
    (16, 0, 16, 8, {"shuffle": True, "shuffle_window": 500}),
    (256, 0, 1, 8, {}),
    (256, 0, 16, 1, {"packing": "concat"}),
    (256, 0, 16, 8, {"unit_documents": 0, "lanes": 1}),
    (64, 100, 4, 2, {"packing": "concat", "memory_limit_bytes": 800 << 20}),
]
LONG_CASES: list[tuple[int, int, int, int, dict[str, Any]]] = [
    (mb, 0, num_threads, lanes, {}) for mb, num_threads, lanes in itertools.product([1, 32, 256], [1, 4, 16], [1, 2, 8])
]
LONG_CASES += [(1000, 0, 16, 8, {}), (1000, 0, 2, 1, {"unit_documents": 0})]
LONG_CASES += [(64, 500, 8, 2, {"packing": "concat", "memory_limit_bytes": 4 << 30})]


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("row_group_mb", "giant_mb", "num_threads", "lanes", "more"), CASES + LONG_CASES * IS_LONG)
def test_a_fresh_process_takes_no_more_than_the_limit_and_the_slack(
    row_group_mb: int,
    giant_mb: int,
    num_threads: int,
    lanes: int,
    more: dict[str, Any],
    shards: Callable[..., str],
) -> None:
    data = shards(row_group_mb, giant_mb, max(256, row_group_mb) if IS_LONG else max(64, row_group_mb))
    settings = {"data": data, "sizes": [8, 1024], "num_threads": num_threads, "lanes": lanes}
    settings |= {"memory_limit_bytes": 256 << 20, "bytes": (400 if IS_LONG else 60 + 2 * giant_mb) * MB}
    found = taken(settings | more)
    assert found["error"] is None
    assert found["resident"] < found["limit_bytes"] + SLACK, found
    assert found["peak_bytes"] <= found["limit_bytes"]
