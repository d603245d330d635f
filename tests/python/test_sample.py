"""The sample corpus: the same bytes every time, whole or absent, shaped as people publish data."""

from __future__ import annotations

import ast
import builtins
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer

from nanofast.data import aside, sample, stdlib


def texts_of(shard: Path) -> list[str]:
    return pq.read_table(shard)["text"].to_pylist()


def shards_of(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.parquet"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_looks_as_published_data_does(sample_corpus: tuple[Path, Path]):
    shards = shards_of(sample_corpus[0])
    assert len(shards) >= 3
    for shard in shards:
        file = pq.ParquetFile(shard)
        assert file.schema_arrow.names == ["text"]
        assert str(file.schema_arrow.field("text").type) in ("string", "large_string")
        for index in range(file.num_row_groups):
            group = file.metadata.row_group(index)
            assert group.column(0).compression == "ZSTD"
            assert group.num_rows <= 1500
    train = sum(pq.ParquetFile(shard).metadata.num_rows for shard in shards[:-1])
    validation = pq.ParquetFile(shards[-1]).metadata.num_rows
    assert 0.04 < validation / (train + validation) < 0.06


def test_holds_every_document_once_and_enough_of_them(sample_corpus: tuple[Path, Path]):
    texts = [text for shard in shards_of(sample_corpus[0]) for text in texts_of(shard)]
    assert texts == stdlib.documents()
    assert len(set(texts)) == len(texts)
    assert sum(map(len, texts)) > 5_000_000


def test_documents_are_definitions_heads_and_documentation(sample_corpus: tuple[Path, Path]):
    texts = {text for shard in shards_of(sample_corpus[0]) for text in texts_of(shard)}
    assert any(text.startswith("class ArgumentParser(") for text in texts)
    assert any(text.startswith("@") and "\ndef " in text for text in texts), "decorators belong to their definition"
    assert any("import" in text and text.startswith('"""') for text in texts)
    assert any('The "assert" statement' in text for text in texts)
    assert any(text.startswith("len(obj, /)") for text in texts)


def test_cutting_a_module_loses_nothing():
    path = Path(ast.__file__)
    assert "".join(stdlib._definitions(path)) == path.read_text("utf-8")


def test_a_cut_keeps_decorators_and_comments_with_their_definition(tmp_path: Path):
    path = tmp_path / "m.py"
    path.write_text("import a\n\n# about f\n@a.b(\n    1)\ndef f():\n    pass\nx = 1\nclass C: pass\n")
    assert list(stdlib._definitions(path)) == [
        "import a\n\n",
        "# about f\n@a.b(\n    1)\ndef f():\n    pass\nx = 1\n",
        "class C: pass\n",
    ]


def test_a_broken_module_is_left_out(tmp_path: Path):
    path = tmp_path / "m.py"
    path.write_text("def f(:\n")
    assert list(stdlib._definitions(path)) == []


def test_another_process_makes_the_same_bytes(sample_corpus: tuple[Path, Path], tmp_path: Path):
    code = "import sys, pathlib, nanofast.data.sample as s; s.ensure_sample(pathlib.Path(sys.argv[1]))"
    other = {
        "PYTHONHASHSEED": "7",
        "TOKENIZERS_PARALLELISM": "false",
        "TZ": "Asia/Tokyo",
        "LC_ALL": "C",
    }
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, env={**os.environ, **other})
    data, tokenizer = sample_corpus
    assert contents(tmp_path / "data" / data.name) == contents(data)
    assert contents(tmp_path / "tokenizers" / tokenizer.parent.name) == contents(tokenizer.parent)


def test_what_others_put_among_the_builtins_is_left_out(monkeypatch: pytest.MonkeyPatch):
    """Notebooks and debuggers do so; the corpus belongs to the Python, not to who makes it."""
    before = list(stdlib._builtins())
    guest = type("Guest", (), {"__doc__": "A class that is a guest among the builtins.", "__module__": "notebook"})
    for name, thing in {"guest": guest, "visit": list_guests, "breakpoint_of_mine": guest()}.items():
        monkeypatch.setattr(builtins, name, thing, raising=False)
    assert list(stdlib._builtins()) == before


def list_guests() -> None:
    """A function that is long enough in its documentation to be a document of its own."""


def test_what_is_there_is_left_alone(sample_corpus: tuple[Path, Path]):
    data, tokenizer = sample_corpus
    paths = [*data.iterdir(), tokenizer]
    before = [(path.stat().st_mtime_ns, path.stat().st_ino) for path in paths]
    home = data.parent.parent
    assert _ensure(home) == sample_corpus
    assert [(path.stat().st_mtime_ns, path.stat().st_ino) for path in paths] == before


def test_a_folder_with_a_shard_missing_or_cut_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    _small_library(monkeypatch)
    data, _ = _ensure(tmp_path)
    whole = contents(data)
    first, second, *_ = shards_of(data)
    first.unlink()
    _ensure(tmp_path)
    assert contents(data) == whole
    second.write_bytes(second.read_bytes()[:-1])
    _ensure(tmp_path)
    assert contents(data) == whole
    (data / "manifest.json").write_text("{")
    _ensure(tmp_path)
    assert contents(data) == whole
    assert [path.name for path in data.parent.iterdir()] == [data.name], "nothing is left beside it"


def test_nothing_half_made_gets_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    _small_library(monkeypatch)

    def interrupted(*_: object, **__: object) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(json, "dumps", interrupted)  # the manifest is the last thing written
        with pytest.raises(KeyboardInterrupt):
            _ensure(tmp_path)
    assert list((tmp_path / "data").iterdir()) == []
    data, tokenizer = _ensure(tmp_path)
    assert shards_of(data)
    assert tokenizer.is_file()


def test_the_slower_of_two_processes_uses_what_the_faster_made(tmp_path: Path):
    final = tmp_path / "made"

    def is_complete(folder: Path) -> bool:
        return (folder / "done").exists()

    with aside.folder_aside(final, is_complete) as slow:
        (slow / "done").write_text("slow")
        with aside.folder_aside(final, is_complete) as fast:
            (fast / "done").write_text("fast")
    assert (final / "done").read_text() == "fast"
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_the_remains_of_a_killed_process_are_swept(tmp_path: Path):
    old, young = tmp_path / ".made.1-aa.partial", tmp_path / ".made.2-bb.partial"
    for folder in (old, young):
        folder.mkdir()
    os.utime(old, (0, 0))
    with aside.folder_aside(tmp_path / "made", Path.exists) as folder:
        (folder / "file").touch()
    assert not old.exists()
    assert young.exists()


def test_data_and_tokenizer_can_be_placed_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    _small_library(monkeypatch)
    data, tokenizer = sample.ensure_sample(tmp_path / "home", data_home=tmp_path / "d", tokenizer_home=tmp_path / "t")
    assert data.parent == tmp_path / "d"
    assert tokenizer.parent.parent == tmp_path / "t"
    assert not (tmp_path / "home").exists()


def test_an_installation_without_sources_is_refused_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stdlib, "documents", list)
    with pytest.raises(FileNotFoundError, match=r"standard library gives 0 documents; expected .* --data"):
        _ensure(tmp_path)


def test_the_vocabulary_is_a_byte_level_bpe_with_the_special_tokens_last(sample_corpus: tuple[Path, Path]):
    tokenizer = Tokenizer.from_file(str(sample_corpus[1]))
    assert tokenizer.get_vocab_size() == 4096
    assert [tokenizer.id_to_token(index) for index in range(4096 - 9, 4096)] == list(_SPECIAL)
    text = "def f(self):\n\treturn '\u00e9\u4e2d\U0001f600'  # 12345\r\n\x00"
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False).ids) == text
    python = texts_of(shards_of(sample_corpus[0])[-1])
    num_tokens = sum(len(encoding.ids) for encoding in tokenizer.encode_batch(python, add_special_tokens=False))
    assert sum(len(text.encode()) for text in python) / num_tokens > 3, "bytes per token on Python that it has not seen"


_SPECIAL = (
    "<|bos|>",
    "<|user_start|>",
    "<|user_end|>",
    "<|assistant_start|>",
    "<|assistant_end|>",
    "<|python_start|>",
    "<|python_end|>",
    "<|output_start|>",
    "<|output_end|>",
)


def _ensure(home: Path) -> tuple[Path, Path]:
    return sample.ensure_sample(home)


def _small_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few short documents in place of the library, so that making the corpus again and again is quick."""
    documents = [f"def f{number}(x):\n    return x + {number}\n" for number in range(2 * sample.MIN_DOCUMENTS)]
    monkeypatch.setattr(stdlib, "documents", lambda: documents)
