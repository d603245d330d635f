"""Bad input is refused in words: what failed, where, what was found; a `nanofast.Error` and the built-in that fits."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import nanofast
from shards import random_texts, write_shards


@pytest.fixture(scope="module")
def tokenizer() -> nanofast.Tokenizer:
    return nanofast.Tokenizer.from_name("r50k_base")


@pytest.fixture
def data(tmp_path: Path) -> str:
    return write_shards(tmp_path, random_texts(1, [[20, 20]]))[0]


def refused(error: type[Exception], *words: str, **arguments: Any) -> None:
    """Making a loader raises `error`, a nanofast.Error, and the message holds all the words in this order."""
    with pytest.raises(error, match="(?s)" + ".*".join(map(re.escape, words))) as caught:
        nanofast.TokenLoader(**{"batch_size": 2, "sequence_length": 16} | arguments)
    assert isinstance(caught.value, nanofast.Error)


# ---- files ---------------------------------------------------------------------------------------------------------


def test_a_file_that_is_no_parquet(tokenizer: nanofast.Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_text("This is a plain text and no parquet file at all.")
    refused(ValueError, str(path), "PAR1", data=path, tokenizer=tokenizer)


def test_an_empty_file(tokenizer: nanofast.Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.touch()
    refused(ValueError, str(path), "0 bytes", data=path, tokenizer=tokenizer)


@pytest.mark.parametrize("kept", [5, 100, 0.5, 0.99])
def test_a_truncated_file(tokenizer: nanofast.Tokenizer, data: str, kept: float) -> None:
    size = Path(data).stat().st_size
    os.truncate(data, kept if kept > 1 else int(size * kept))
    refused(ValueError, data, data=data, tokenizer=tokenizer)


def test_a_footer_full_of_noise(tokenizer: nanofast.Tokenizer, data: str) -> None:
    content = bytearray(Path(data).read_bytes())
    length = int.from_bytes(content[-8:-4], "little")
    content[-8 - length : -8] = bytes(i * 37 % 251 for i in range(length))
    Path(data).write_bytes(content)
    refused(ValueError, data, "footer", data=data, tokenizer=tokenizer)


def test_a_missing_column_is_told_with_the_columns_there_are(tokenizer: nanofast.Tokenizer, data: str) -> None:
    refused(
        ValueError,
        "`body` not in",
        data,
        "`id`, `text`",
        "text_column=",
        data=data,
        tokenizer=tokenizer,
        text_column="body",
    )


def test_a_column_that_is_no_text(tokenizer: nanofast.Tokenizer, data: str) -> None:
    refused(TypeError, "`id`", data, "int", "`text`", data=data, tokenizer=tokenizer, text_column="id")


def test_an_empty_folder(tokenizer: nanofast.Tokenizer, tmp_path: Path) -> None:
    refused(FileNotFoundError, "no parquet shards", str(tmp_path), ".parquet", data=tmp_path, tokenizer=tokenizer)


def test_paths_that_lead_nowhere(tokenizer: nanofast.Tokenizer, tmp_path: Path) -> None:
    missing = str(tmp_path / "gone" / "a.parquet")
    refused(FileNotFoundError, missing, data=missing, tokenizer=tokenizer)
    refused(FileNotFoundError, missing, data=[missing], tokenizer=tokenizer)
    refused(FileNotFoundError, "no file matches", data=str(tmp_path / "*.parquet"), tokenizer=tokenizer)
    refused(FileNotFoundError, "empty list", data=[], tokenizer=tokenizer)


def test_shards_without_a_document(tokenizer: nanofast.Tokenizer, tmp_path: Path) -> None:
    refused(ValueError, "no documents", data=write_shards(tmp_path, [[[]], [[], []]]), tokenizer=tokenizer)


def test_one_bad_shard_among_good_ones_is_named(tokenizer: nanofast.Tokenizer, tmp_path: Path) -> None:
    paths = write_shards(tmp_path, random_texts(1, [[5], [5], [5]]))
    Path(paths[1]).write_bytes(b"PAR1" * 10)
    refused(ValueError, paths[1], data=tmp_path, tokenizer=tokenizer)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tokenizer: nanofast.Tokenizer, data: str) -> None:
    Path(data).chmod(0)
    refused(OSError, data, data=data, tokenizer=tokenizer)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"model": {"type": "WordPiece"}}', b"\xff\xfe", b"abc def\n"])
def test_a_vocabulary_that_does_not_parse(tmp_path: Path, content: bytes) -> None:
    for name in ("tokenizer.json", "words.tiktoken"):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(ValueError, match=name.replace(".", r"\.")) as caught:
            nanofast.Tokenizer.from_file(path, pattern=r"\w+" if name.endswith("tiktoken") else None)
        assert isinstance(caught.value, nanofast.Error)


# ---- arguments -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "words", "arguments"),
    [
        (ValueError, ["batch_size = 0", "at least 1"], {"batch_size": 0}),
        (ValueError, ["batch_size = -3", "at least 1"], {"batch_size": -3}),
        (TypeError, ["batch_size = 1.5", "whole number"], {"batch_size": 1.5}),
        (TypeError, ["batch_size = True", "whole number"], {"batch_size": True}),
        (TypeError, ["batch_size = '8'", "whole number"], {"batch_size": "8"}),
        (ValueError, ["sequence_length = 0", "at least 1"], {"sequence_length": 0}),
        (ValueError, ["sequence_length = ", "1 TiB"], {"sequence_length": 1 << 45}),
        (ValueError, ["num_slots = 1", "at least 2"], {"num_slots": 1}),
        (ValueError, ["num_threads = 0", "at least 1"], {"num_threads": 0}),
        (ValueError, ["epochs = 0", "at least 1"], {"epochs": 0}),
        (ValueError, ["shuffle_window = 0", "at least 1"], {"shuffle_window": 0}),
        (ValueError, ["seed = -1", "at least 0"], {"seed": -1}),
        (ValueError, ["lanes = 0", "at least 1"], {"lanes": 0}),
        (ValueError, ["world_size = 0", "at least 1"], {"rank": 0, "world_size": 0}),
        (ValueError, ["rank = 2", "below world_size = 2"], {"rank": 2, "world_size": 2}),
        (ValueError, ["rank = -1", "at least 0"], {"rank": -1, "world_size": 2}),
        (
            ValueError,
            ["world_size = 3", "does not divide lanes = 8", "1, 2, 4, 8", "9"],
            {"rank": 0, "world_size": 3, "lanes": 8},
        ),
        (ValueError, ["packing = `best`", "`concat`, `best_fit` or `one_per_row`"], {"packing": "best"}),
        (ValueError, ["overflow = `drop`", "`carry`, `crop` or `pad`"], {"overflow": "drop"}),
        (ValueError, ["split = `test`", "`train`, `val` or None"], {"split": "test"}),
        (ValueError, ["deal = `random`", "`stream` or `per_file`"], {"deal": "random"}),
        (ValueError, ["bos_token = `<s>`", "<|endoftext|>"], {"bos_token": "<s>"}),
        (ValueError, ["pad_id = 2147483648", "below 2^31"], {"pad_id": 1 << 31}),
        (
            ValueError,
            ["lane 40 would get no data", "40 units", "at most 40 lanes"],
            {"lanes": 48, "unit_documents": 1, "epochs": 1},
        ),
        (ValueError, ["epochs = 1", "world_size = 2", "process group"], {"rank": 0, "world_size": 2, "epochs": 1}),
        (TypeError, ["tokenizer is str", "nanofast.Tokenizer"], {"tokenizer": "r50k_base"}),
        (TypeError, ["data is int", "path"], {"data": 3}),
        (ValueError, ["memory_limit_bytes = 0", "at least 1"], {"memory_limit_bytes": 0}),
    ],
)
def test_an_argument_out_of_its_range(
    tokenizer: nanofast.Tokenizer, data: str, error: type[Exception], words: list[str], arguments: dict[str, Any]
) -> None:
    refused(error, *words, **{"data": data, "tokenizer": tokenizer} | arguments)


def test_a_lane_without_row_groups_of_its_own(tokenizer: nanofast.Tokenizer, data: str) -> None:
    settings = {"deal": "per_file", "unit_documents": 0, "rank": 0, "world_size": 4, "lanes": 4}
    refused(
        ValueError,
        "lanes = 4",
        "lane 2 would get no data",
        "at most 2 lanes",
        data=data,
        tokenizer=tokenizer,
        **settings,
    )


# ---- while reading -------------------------------------------------------------------------------------------------


def fails(error: type[Exception], loader: nanofast.TokenLoader, *words: str) -> None:
    """The loader raises sooner or later, and then the same at each further next(); it closes all the same."""
    batches = loader.numpy
    with pytest.raises(error, match="(?s)" + ".*".join(map(re.escape, words))) as first:
        for _ in batches():
            pass
    assert isinstance(first.value, nanofast.Error)
    for _ in range(3):
        with pytest.raises(error) as again:
            next(batches())
        assert str(again.value) == str(first.value)
        assert again.value is not first.value
    loader.close()


def test_invalid_utf_8_is_placed(tokenizer: nanofast.Tokenizer, tmp_path: Path) -> None:
    rows = [b"fine", "naïve".encode(), b"broken \xff here", b"fine again"]
    path = str(tmp_path / "a.parquet")
    # Whoever writes such a file calls bytes text without looking, as this does.
    texts = pa.Array.from_buffers(pa.string(), 4, pa.array(rows, pa.binary()).buffers())
    pq.write_table(pa.table({"text": texts.take([0, 1, 1, 0]), "n": range(4)}), tmp_path / "good.parquet")
    pq.write_table(pa.table({"text": texts}), path, row_group_size=2)
    loader = nanofast.TokenLoader([str(tmp_path / "good.parquet"), path], tokenizer, 1, 4, lanes=1)
    fails(ValueError, loader, "invalid UTF-8", path, "row group 1, row 0", "byte 7")


def test_a_page_that_is_damaged_is_placed(tokenizer: nanofast.Tokenizer, tmp_path: Path) -> None:
    [path] = write_shards(tmp_path, random_texts(3, [[50, 50, 50]]))
    chunk = pq.ParquetFile(path).metadata.row_group(1).column(1)
    content = bytearray(Path(path).read_bytes())
    middle = (chunk.dictionary_page_offset or chunk.data_page_offset) + 60
    content[middle : middle + 40] = bytes(40)
    Path(path).write_bytes(content)
    fails(ValueError, nanofast.TokenLoader(path, tokenizer, 1, 8, lanes=1, epochs=1), path, "row group 1")


def test_a_file_that_vanishes(tokenizer: nanofast.Tokenizer, tmp_path: Path) -> None:
    paths = write_shards(tmp_path, random_texts(3, [[50], [50]]))
    loader = nanofast.TokenLoader(paths, tokenizer, 1, 8, lanes=1)
    Path(paths[1]).unlink()
    fails(FileNotFoundError, loader, paths[1])


def test_a_file_that_is_replaced(tokenizer: nanofast.Tokenizer, tmp_path: Path) -> None:
    paths = write_shards(tmp_path, random_texts(3, [[50], [50]]))
    loader = nanofast.TokenLoader(paths, tokenizer, 1, 8, lanes=1)
    os.utime(paths[1], (1, 1))
    shutil.copyfile(write_shards(tmp_path_of(tmp_path), random_texts(4, [[60], [60]]))[1], paths[1])
    fails(ValueError, loader, paths[1], "changed while it was in use", "expected", "found")


def tmp_path_of(folder: Path) -> Path:
    other = folder / "other"
    other.mkdir()
    return other


def test_a_file_that_is_cut_while_it_is_read(tokenizer: nanofast.Tokenizer, tmp_path: Path) -> None:
    paths = write_shards(tmp_path, random_texts(3, [[50], [50]]))
    loader = nanofast.TokenLoader(paths, tokenizer, 1, 8, lanes=1)
    os.truncate(paths[1], Path(paths[1]).stat().st_size // 2)
    fails(ValueError, loader, paths[1], "size")


def test_a_file_that_was_only_touched_is_the_same(tokenizer: nanofast.Tokenizer, tmp_path: Path) -> None:
    paths = write_shards(tmp_path, random_texts(3, [[50], [50]]))
    with nanofast.TokenLoader(paths, tokenizer, 1, 8, lanes=1, epochs=1) as loader:
        os.utime(paths[1], (1, 1))
        assert sum(1 for _ in loader.numpy()) > 10


def test_a_closed_loader_says_so(tokenizer: nanofast.Tokenizer, data: str) -> None:
    pytest.importorskip("torch")
    for reads in (0, 2):
        loader = nanofast.TokenLoader(data, tokenizer, 2, 16)
        for _ in range(reads):
            next(loader)
        state = loader.state_dict()
        loader.close()
        loader.close()
        uses = {"next": (), "load_state_dict": (state,), "reconfigure": ()}
        for name, arguments in uses.items():
            with pytest.raises(RuntimeError, match="the loader is closed; make a new one") as caught:
                getattr(loader, name.replace("next", "__next__"))(*arguments)
            assert isinstance(caught.value, nanofast.Error)
        with pytest.raises(RuntimeError, match="the loader is closed"):
            next(loader.numpy())
        assert loader.state_dict() == state
        assert "ledger" in loader.metrics()
