"""Inspecting a data set: the counts are those of pyarrow, and what matters is said."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from commands import data_command
from nanofast import Tokenizer
from nanofast.data.inspect import described, inspect
from nanofast.data.tokenize import tokenize


def write(path: Path, texts: list[str | None], **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"id": list(range(len(texts))), "text": texts}), path, **options)
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for index in range(3):
        texts = [f"shard {index} document {row} " * (row + 1) for row in range(100)]
        write(tmp_path / f"shard_{index}.parquet", texts, row_group_size=40, compression="zstd")
    return tmp_path


def test_counts_are_those_of_the_files(data: Path):
    facts = inspect(data)
    files = [pq.ParquetFile(path) for path in sorted(data.glob("*.parquet"))]
    texts = [text for file in files for text in file.read()["text"].to_pylist()]
    assert facts.num_shards == 3
    assert facts.num_row_groups == sum(file.num_row_groups for file in files) == 9
    assert facts.row_group_documents == [40, 40, 20] * 3
    assert facts.num_documents == len(texts)
    assert facts.file_bytes == sum(path.stat().st_size for path in data.glob("*.parquet"))
    assert facts.columns == {"id": "int64", "text": "string"}
    assert facts.compressions == {"ZSTD": 9}
    assert facts.sample["num_documents"] == len(texts)
    assert facts.sample["num_bytes"] == facts.text_bytes == sum(map(len, texts))
    assert facts.sample["longest_bytes"] == max(map(len, texts))
    assert sum(facts.sample["histogram"].values()) == len(texts)
    assert facts.warnings == []


def test_bytes_per_token_are_the_tokenizers(data: Path):
    tokenizer = Tokenizer.from_name("r50k_base")
    texts = [text for path in sorted(data.glob("*.parquet")) for text in pq.read_table(path)["text"].to_pylist()]
    num_tokens = sum(len(tokenizer.encode(text)) for text in texts)
    assert inspect(data, tokenizer=tokenizer).sample["bytes_per_token"] == sum(map(len, texts)) / num_tokens


def test_a_large_set_is_sampled_evenly(data: Path):
    facts = inspect(data, sample_bytes=1)
    assert 0 < facts.sample["num_documents"] < facts.num_documents
    assert facts.text_bytes == pytest.approx(inspect(data).text_bytes, rel=0.2)
    assert facts.num_documents == 300


def test_what_matters_is_said(tmp_path: Path):
    write(tmp_path / "one.parquet", ["a", None, "", "b"], row_group_size=2)
    warnings = "\n".join(inspect(tmp_path, world_size=8).warnings)
    assert "50.00% of the documents looked at are empty or null" in warnings
    assert "one shard" in warnings
    assert "2 row groups for 8 lanes" in warnings
    assert "4 documents for 8 lanes" in warnings
    write(tmp_path / "two.parquet", ["c"])
    pq.write_table(pa.table({"text": ["d"]}), tmp_path / "zwei.parquet")
    assert any("other columns" in warning for warning in inspect(tmp_path).warnings)


def test_nulls_lists_and_a_huge_row_group_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path / "one.parquet", ["a", None, "", None])
    facts = inspect(tmp_path)
    assert facts.num_nulls == 2
    assert any("2 documents are null" in warning for warning in facts.warnings)
    monkeypatch.setattr("nanofast.data.inspect.LARGE_ROW_GROUP_BYTES", 10)
    assert any("write row groups of about 1,000 documents" in warning for warning in inspect(tmp_path).warnings)
    chat = tmp_path / "chat"
    chat.mkdir()
    pq.write_table(pa.table({"messages": [["a"]], "body": ["b"]}), chat / "lists.parquet")
    warnings = "\n".join(inspect(chat).warnings)
    assert "column `messages` is a list: conversations" in warnings
    assert "no text in a column `text`" in warnings
    assert "pass --text-column body" in warnings
    assert command(chat).returncode == 0


@pytest.mark.parametrize(
    ("values", "said"),
    [([1, 2, 3], "is int64, which is no text: the loader refuses it"), ([b"a", b"b"], "is binary; it is read as text")],
)
def test_a_column_of_another_type_is_said(tmp_path: Path, values: list[object], said: str):
    pq.write_table(pa.table({"text": values}), tmp_path / "shard.parquet")
    assert any(said in warning for warning in inspect(tmp_path).warnings)


def test_token_files_are_looked_at_too(data: Path, tmp_path: Path):
    out = tmp_path / "tokens.bin"
    tokenize(data, out, Tokenizer.from_name("r50k_base"))
    (file,) = json.loads(command(out, "--json").stdout)
    assert (file["num_documents"], file["dtype"], file["tokenizer"]) == (300, "uint16", "r50k_base")
    assert file["num_tokens"] * 2 == out.stat().st_size
    assert "300 documents; made with r50k_base" in command(out).stdout
    assert command(out, "--html", tmp_path / "page.html").returncode == 0
    assert "300 documents; made with r50k_base" in (tmp_path / "page.html").read_text("utf-8")
    out.write_bytes(out.read_bytes()[:-1])
    Path(f"{out}.json").unlink()
    done = command(out)
    assert done.returncode == 2
    assert "no whole number of uint16 ids" in done.stderr


def test_a_page_for_readers_names_the_figures(data: Path):
    text = described(inspect(data))
    assert "shards      3" in text
    assert "9, of 20 to 40 documents" in text
    assert "`id` int64, `text` string" in text


def command(*words: object) -> subprocess.CompletedProcess[str]:
    return data_command("inspect", *words)


def test_json_is_for_scripts(data: Path):
    found = command(data, "--json", "--world-size", 2)
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["ranks"]["documents_per_rank"] == 150


def test_a_mistake_is_one_line_and_exit_code_2(data: Path, tmp_path: Path):
    (tmp_path / "not.parquet").write_text("no parquet")
    pq.write_table(pa.table({"messages": [["a"]]}), tmp_path / "lists.parquet")
    mistakes = {
        ("nowhere",): "nowhere",
        (tmp_path / "not.parquet",): "not.parquet",
        (tmp_path / "lists.parquet", "--text-column", "messages"): "list",
        (data / "shard_0.parquet", "--text-column", "body"): "body",
        (data / "shard_0.parquet", "--world-size", "0"): "argument --world-size: expected a whole number from 1",
        (data / "shard_0.parquet", "--tokenizer", "r50k"): "r50k_base",
    }
    for words, message in mistakes.items():
        found = command(*words)
        assert found.returncode == 2, words
        assert message in found.stderr, found.stderr
        assert found.stderr.count("\n") == 1, found.stderr
