"""What is read equals what pyarrow reads: its own files in every type, codec and encoding, and other writers' files.

Texts are recovered from the loader's stream: `concat` puts each token of each document into it once.
"""

from __future__ import annotations

import itertools
import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import nanofast
from conftest import IS_LONG

TYPES = {
    "string": pa.string(),
    "large_string": pa.large_string(),
    "string_view": pa.string_view(),
    "dictionary": pa.dictionary(pa.int32(), pa.string()),
    "binary": pa.binary(),
}
CODECS = ["none", "snappy", "gzip", "brotli", "lz4", "zstd"]
ENCODINGS = ["dictionary", "PLAIN", "DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY"]


@pytest.fixture(scope="module")
def tokenizer() -> nanofast.Tokenizer:
    return nanofast.Tokenizer.from_name("r50k_base")


def read_texts(data: Path | list[Path], column: str, tokenizer: nanofast.Tokenizer) -> list[str]:
    """Every document of the shards, in order, through the loader."""
    loader = nanofast.TokenLoader(
        data, tokenizer, 4, 128, text_column=column, packing="concat", lanes=1, epochs=1, num_threads=1
    )
    stream: list[int] = []
    with loader:
        for inputs, targets in loader:
            if not stream:
                stream.append(int(inputs[0, 0]))
            learned = np.asarray(targets).ravel()
            stream.extend(learned[learned >= 0].tolist())
    texts: list[list[int]] = []
    for token in stream:
        if token == tokenizer.bos_id:
            texts.append([])
        else:
            texts[-1].append(token)
    return [tokenizer.decode(text) for text in texts]


def as_text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else value or ""


def write(path: Path, kind: pa.DataType, codec: str, encoding: str, version: str) -> list[str | None]:
    """A file of one type, codec, encoding and page version, with nulls and empty texts; returns its texts."""
    generator = random.Random(f"{kind} {codec} {encoding} {version}")
    words = ["", "the", "déjà vu", "日本", "🙂 ok", "common prefix of many", "line\nline", "x" * 500]
    texts = [
        None if generator.random() < 0.1 else " ".join(generator.choices(words, k=generator.randrange(5)))
        for _ in range(700)
    ]
    values = [text.encode() if kind == pa.binary() and text is not None else text for text in texts]
    table = pa.table(
        {
            "id": pa.array(range(len(texts))),
            "text": pa.array(values, pa.string() if pa.types.is_dictionary(kind) else kind),
        }
    )
    if pa.types.is_dictionary(kind):
        table = table.set_column(1, "text", table["text"].dictionary_encode())
    pq.write_table(
        table,
        path,
        compression=codec,
        data_page_version=version,
        data_page_size=2000,
        row_group_size=300,
        write_page_checksum=True,
        use_dictionary=["text"] if encoding == "dictionary" else False,
        column_encoding=None if encoding == "dictionary" else {"text": encoding},
    )
    return texts


@pytest.mark.parametrize("kind", TYPES)
def test_reads_each_type_of_text_in_every_codec_and_encoding(
    kind: str, tmp_path: Path, tokenizer: nanofast.Tokenizer
) -> None:
    paths, expected = [], []
    for number, (codec, encoding) in enumerate(itertools.product(CODECS, ENCODINGS)):
        paths.append(tmp_path / f"{codec}_{encoding}.parquet")
        expected += write(paths[-1], TYPES[kind], codec, encoding, ["1.0", "2.0"][number % 2])
    assert read_texts(paths, "text", tokenizer) == [text or "" for text in expected]


def test_reads_the_files_of_other_writers_as_pyarrow_does(shared_data: Path, tokenizer: nanofast.Tokenizer) -> None:
    num_columns = 0
    for path in sorted((shared_data / "parquet" / "data").glob("*.parquet")):
        try:
            schema = pq.read_schema(path)
        except pa.ArrowException:
            continue  # what pyarrow cannot read is held to the parquet crate elsewhere
        for field in schema:
            text = pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
            if not (text or pa.types.is_binary(field.type)):
                continue
            try:
                values = pq.read_table(path, columns=[field.name])[field.name].to_pylist()
            except (OSError, pa.ArrowException):
                continue
            if not values:
                continue
            try:
                expected = [as_text(value) for value in values]
            except UnicodeDecodeError:
                with pytest.raises(nanofast.Error, match="UTF-8"):
                    read_texts(path, field.name, tokenizer)
                continue
            if "corrupt-checksum" in path.name or "unknown-logical-type" in path.name:
                continue  # refused: pyarrow checks no checksum by default, and reads unknown types as bytes
            assert read_texts(path, field.name, tokenizer) == expected, f"{path.name}: {field.name}"
            num_columns += 1
    assert num_columns > 40


def test_no_file_of_other_writers_takes_much_memory(
    shared_data: Path, record_property: Callable[[str, object], None]
) -> None:
    """Damaged files and bombs among them: each column is read or refused, all in one process that lives on."""
    command = [sys.executable, str(Path(__file__).with_name("every_file.py")), str(shared_data / "parquet")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    record_property("files of other writers", found["files"])
    record_property("columns read", found["read"])
    record_property("columns refused", found["refused"])
    record_property("MiB at most", found["bytes"] >> 20)
    assert found["bytes"] < 512 << 20
    assert found["read"] > 40


def test_a_flipped_bit_is_an_error_or_changes_nothing(
    tmp_path: Path, tokenizer: nanofast.Tokenizer, record_property: Callable[[str, object], None]
) -> None:
    path = tmp_path / "a.parquet"
    expected = [text or "" for text in write(path, pa.string(), "zstd", "PLAIN", "1.0")]
    whole = path.read_bytes()
    generator = random.Random(5)
    num_errors, num_flips = 0, 1000 if IS_LONG else 40
    record_property("flipped bits", num_flips)
    for _ in range(num_flips):
        damaged = bytearray(whole)
        position = generator.randrange(len(damaged))
        damaged[position] ^= 1 << generator.randrange(8)
        path.write_bytes(damaged)
        try:
            assert read_texts(path, "text", tokenizer) == expected, f"byte {position}"
        except nanofast.Error:
            num_errors += 1
    assert num_errors > 10
