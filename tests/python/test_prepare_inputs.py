"""What people have is read whole: JSON lines, CSV, text, parquet, data sets, source trees; what is bad is named."""

from __future__ import annotations

import csv
import gzip
import sys
import types
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from commands import data_command
from nanofast.data.compressed import zstd_module
from nanofast.data.documents import DocumentError, Reading
from nanofast.data.inputs import find_inputs
from nanofast.data.prepare import Shape, prepare
from prepare_parts import all_of, make, texts_of, write_jsonl


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst"])
def test_json_lines(tmp_path, suffix):
    texts = texts_of(50)
    path = write_jsonl(tmp_path / f"a{suffix}", [*texts, None], "content")
    made = make([path], tmp_path / "out", reading=Reading(column="content"), shuffle=False)
    assert all_of(tmp_path / "out") == texts
    assert made["counts"]["bad"] == 1


def packed(suffix: str, content: bytes) -> bytes:
    return {".gz": gzip.compress, ".zst": zstd_module("").compress}[suffix](content)


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_packed_files_of_several_parts_are_read_to_the_end(tmp_path, suffix):
    (tmp_path / f"a.jsonl{suffix}").write_bytes(
        packed(suffix, b'{"text": "one"}\n') + packed(suffix, b'{"text": "two"}')
    )
    make([tmp_path / f"a.jsonl{suffix}"], tmp_path / "out", shuffle=False)
    assert all_of(tmp_path / "out") == ["one", "two"]


@pytest.mark.parametrize(
    ("suffix", "damage"),
    [(".gz", "cut"), (".gz", "wrong checksum"), (".gz", "not packed"), (".zst", "cut"), (".zst", "not packed")],
)
def test_a_packed_file_that_is_damaged_is_named_and_never_taken_for_its_beginning(tmp_path, suffix, damage):
    content = packed(suffix, "".join(f'{{"text": "{number:09} {number**5}"}}\n' for number in range(20_000)).encode())
    content = {
        "cut": content[:-9],
        "wrong checksum": content[:-8] + bytes(4) + content[-4:],
        "not packed": b'{"text": "plain"}\n' * 100,
    }[damage]
    (tmp_path / f"a.jsonl{suffix}").write_bytes(content)
    with pytest.raises(ValueError, match=f"a.jsonl{suffix}` is damaged or cut short"):
        make([tmp_path / f"a.jsonl{suffix}"], tmp_path / "out", reading=Reading(skip_bad=True))
    assert not list((tmp_path / "out").glob("*.parquet"))


def test_a_byte_order_mark_is_no_text(tmp_path):
    for name, content in {"a.csv": "text\nof csv\n", "b.jsonl": '{"text": "of json"}', "c.txt": "of text"}.items():
        (tmp_path / name).write_bytes(content.encode("utf-8-sig"))
    make([tmp_path], tmp_path / "out", shuffle=False)
    assert all_of(tmp_path / "out") == ["of csv", "of json", "of text"]


def test_csv_with_quotes_and_line_breaks(tmp_path):
    texts = ['plain "quoted", with comma', "two\nlines", "tab\there"]
    with (tmp_path / "a.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerows([["id", "text"], *([index, text] for index, text in enumerate(texts))])
    make([tmp_path / "a.csv"], tmp_path / "out", shuffle=False)
    assert all_of(tmp_path / "out") == texts


def test_text_files_whole_or_cut_at_a_separator(tmp_path, monkeypatch):
    monkeypatch.setattr("nanofast.data.documents.READ_BYTES", 7)
    texts = texts_of(20)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("<|end|>".join(texts))
    (tmp_path / "in" / "b.txt").write_text("another")
    make([tmp_path / "in"], tmp_path / "cut", reading=Reading(separator="<|end|>"), shuffle=False)
    assert all_of(tmp_path / "cut") == [*texts, "another"]
    make([tmp_path / "in"], tmp_path / "whole", shuffle=False)
    assert all_of(tmp_path / "whole") == ["<|end|>".join(texts), "another"]


def test_parquet_of_others(tmp_path):
    texts: list[str | None] = [*texts_of(100), "", None]
    pq.write_table(pa.table({"body": texts, "n": range(102)}), tmp_path / "a.parquet", row_group_size=7)
    made = make([tmp_path / "a.parquet"], tmp_path / "out", reading=Reading(column="body"), shuffle=False)
    assert all_of(tmp_path / "out") == texts[:100]
    assert made["counts"]["too_short"] == 2


def test_source_trees_without_what_is_no_source(tmp_path):
    tree = tmp_path / "tree"
    for name, content in {
        "b.py": b"print(1)\n",
        "__init__.py": b"import b\n",
        "a/c.rs": b"fn main() {}\n",
        "a/picture.png": b"\x89PNG\0\0",
        "latin.txt": "café".encode("latin-1"),
        ".git/config": b"secret",
        "node_modules/x.js": b"theirs",
    }.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(content)
    (tree / "link.py").symlink_to("/etc/hostname")
    made = prepare(find_inputs([str(tree)], code=True), tmp_path / "out", Reading(), Shape(shuffle=False))
    assert sorted(all_of(tmp_path / "out")) == ["fn main() {}\n", "import b\n", "print(1)\n"]
    assert made["counts"]["bad"] == 2
    prepare(find_inputs([str(tree / "b.py")], code=True), tmp_path / "one")
    assert all_of(tmp_path / "one") == ["print(1)\n"]


def test_shards_within_the_inputs_are_not_read_again(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", texts_of(5))
    made = [data_command("prepare", tmp_path, tmp_path / "shards", "--json") for _ in range(2)]
    assert [done.returncode for done in made] == [0, 0], made[1].stderr
    assert made[0].stdout == made[1].stdout
    assert len(all_of(tmp_path / "shards")) == 5


def test_globs_and_links_are_followed_in_the_order_of_names(tmp_path):
    for name in "ba":
        (tmp_path / f"{name}.txt").write_text(name)
    (tmp_path / "c.txt").symlink_to(tmp_path / "a.txt")  # as in the hub's cache
    make([tmp_path / "*.txt"], tmp_path / "out", shuffle=False)
    assert all_of(tmp_path / "out") == ["a", "b", "a"]
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        find_inputs([str(tmp_path / "*.csv")])


def test_what_two_names_cover_is_taken_once_or_refused(tmp_path):
    (tmp_path / "deep").mkdir()
    for place, name in ((tmp_path, "a"), (tmp_path / "deep", "b")):
        (place / f"{name}.txt").write_text(name)
    found = find_inputs([str(tmp_path / "**")])
    assert sorted(Path(source.path).name for source in found) == ["a.txt", "b.txt"]
    for again in (tmp_path / "deep" / "b.txt", tmp_path):
        with pytest.raises(ValueError, match=r".txt` is named twice, by `.*` and `.*`; name it once"):
            find_inputs([str(tmp_path), str(again)])


def test_hugging_face_datasets(tmp_path, monkeypatch):
    """By a stand-in of the library: what it is asked for, and what is made of its rows."""
    asked = []
    stand_in = types.ModuleType("datasets")
    stand_in.load_dataset = lambda name, config, **options: (
        asked.append((name, config, options)) or [{"text": "one"}, {"text": "two"}]
    )
    stand_in.load_from_disk = lambda path: asked.append(path) or [{"text": "three"}]
    monkeypatch.setitem(sys.modules, "datasets", stand_in)
    saved = tmp_path / "saved"
    saved.mkdir()
    (saved / "state.json").touch()
    (saved / "dataset_info.json").touch()
    inputs = find_inputs(["hub:owner/name:config", str(saved)])
    prepare(inputs, tmp_path / "out", Reading(split="validation"), Shape(shuffle=False))
    assert all_of(tmp_path / "out") == ["one", "two", "three"]
    assert asked == [("owner/name", "config", {"split": "validation", "streaming": True}), str(saved)]
    stand_in.load_from_disk = lambda path: {"train": [{"text": "four"}], "test": []}
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits" / "dataset_dict.json").touch()
    make([tmp_path / "splits"], tmp_path / "four", shuffle=False)
    assert all_of(tmp_path / "four") == ["four"]
    with pytest.raises(DocumentError, match="no split `val`; pass --split, train or test"):
        make([tmp_path / "splits"], tmp_path / "five", reading=Reading(split="val"))


def test_a_dataset_that_was_saved_to_disk(tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_dict({"text": ["a", "b"]})
    rows.save_to_disk(str(tmp_path / "saved"))
    datasets.DatasetDict({"test": rows}).save_to_disk(str(tmp_path / "splits"))
    for name, split in (("saved", "train"), ("splits", "test")):
        make([tmp_path / name], tmp_path / "out" / name, reading=Reading(split=split), shuffle=False)
        assert all_of(tmp_path / "out" / name) == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"text": "a"}\n{"text": \n', "a.jsonl`, line 2: no JSON"),
        ("a.jsonl", b'{"body": "a"}\n', "line 1: no `text` .has: `body`.; pass --column"),
        ("a.jsonl", b'{"text": ["a"]}\n', "`text` is list; expected text"),
        ("a.jsonl", b"[" * 100_000, "line 1: no JSON"),
        ("a.jsonl", b'{"text": "\\ud800"}\n', "line 1: no valid UTF-8"),
        ("a.txt", b"caf\xe9", "a.txt`: no valid UTF-8 at byte 3"),
        ("a.csv", b'text\n"open\n', "a.csv`, behind line 1: no CSV"),
        ("a.csv", b"body\na\n", "no `text`"),
        ("a.jsonl", b"\n", "no document is left of 0"),
    ],
)
def test_bad_input_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        make([tmp_path / name], tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.parquet"))


def test_bad_text_is_left_out_on_request(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "\\ud800"}\n{"text": "\xff"}\n{"text": "good"}\n')
    made = make([tmp_path / "a.jsonl"], tmp_path / "out", reading=Reading(skip_bad=True))
    assert all_of(tmp_path / "out") == ["good"]
    assert made["counts"]["bad"] == 2


def test_what_would_not_fit_into_memory_is_refused(tmp_path):
    for name, separator, advice in (
        ("a.txt", None, "pass --separator"),
        ("a.txt", "|", "without a separator"),
        ("a.jsonl", None, "line 1: more than"),
        ("a.csv", None, "line 1: more than"),
    ):
        (tmp_path / name).write_text("a" * 101)
        with pytest.raises(DocumentError, match=advice):
            make([tmp_path / name], tmp_path / "out", reading=Reading(separator=separator, most_bytes=100))
