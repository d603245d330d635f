"""Preparing shards: whatever people have comes out whole, in the stated order, after any kill, the same each time."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import random
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from commands import SMALL_FILES, data_command
from nanofast.data import prepare as preparing
from nanofast.data.compressed import zstd_module
from nanofast.data.documents import DocumentError, Reading
from nanofast.data.inputs import find_inputs
from nanofast.data.prepare import Shape, prepare
from nanofast.data.spill import merged, write_run
from shards import random_text


def texts_of(count: int, seed: int = 0) -> list[str]:
    generator = random.Random(seed)
    return [f"{index} {random_text(generator, 30)}" for index in range(count)]


def shards_of(out: Path) -> list[list[str]]:
    return [pq.read_table(path)["text"].to_pylist() for path in sorted(out.glob("*.parquet"))]


def all_of(out: Path) -> list[str]:
    return [text for shard in shards_of(out) for text in shard]


def write_jsonl(path: Path, texts: list[str | None], column: str = "text") -> Path:
    lines = "".join(json.dumps({"id": index, column: text}) + "\n" for index, text in enumerate(texts))
    opened = {".gz": gzip.open, ".zst": zstd_module("").open}.get(path.suffix, open)
    with opened(path, "wt", encoding="utf-8") as file:
        file.write(lines)
    return path


def make(inputs: list[Path], out: Path, *, reading: Reading | None = None, memory_bytes: int = 1 << 20, **shape):
    found = find_inputs([str(path) for path in inputs])
    return prepare(found, out, reading or Reading(), Shape(**shape), memory_bytes=memory_bytes)


# ---- kinds of input -----------------------------------------------------------------------------------------------


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


# ---- order, shape and filters -------------------------------------------------------------------------------------


def keyed(texts: list[str], seed: int, *, by_text: bool) -> list[str]:
    """The order, by sorting everything at once."""

    def key(index: int) -> bytes:
        place = (0).to_bytes(8, "little") + index.to_bytes(8, "little")
        content = texts[index].encode() if by_text else place
        return hashlib.blake2b(content, digest_size=16, key=seed.to_bytes(8, "little")).digest()

    return [texts[index] for index in sorted(range(len(texts)), key=key)]


@pytest.mark.parametrize("memory_bytes", [1, 5_000, 1 << 30])
def test_the_order_is_seeded_and_does_not_depend_on_memory(tmp_path, memory_bytes):
    texts = texts_of(200)
    path = write_jsonl(tmp_path / "a.jsonl", texts)
    for seed in (0, 7):
        out = tmp_path / f"out{seed}"
        make([path], out, seed=seed, memory_bytes=memory_bytes, shard_bytes=4000)
        assert all_of(out) == keyed(texts, seed, by_text=False)
    assert all_of(tmp_path / "out0") != all_of(tmp_path / "out7")


def test_equal_documents_are_kept_once(tmp_path):
    texts = texts_of(100)
    doubled = [*texts, *texts[::3], texts[0]]
    path = write_jsonl(tmp_path / "a.jsonl", doubled)
    made = make([path], tmp_path / "out", deduplicate=True, memory_bytes=3_000, shard_bytes=2_000)
    assert all_of(tmp_path / "out") == keyed(texts, 0, by_text=True)
    assert made["counts"]["duplicates"] == 35
    assert made["num_documents"] == 100


def test_shards_are_of_the_stated_size_and_row_groups_of_the_stated_documents(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", texts_of(1000))
    for shuffle in (True, False):
        out = tmp_path / f"out{shuffle}"
        made = make([path], out, shuffle=shuffle, shard_bytes=5_000, row_group_documents=20)
        sizes = [file["text_bytes"] for file in made["files"].values()]
        assert all(abs(size - 5_000) < 700 for size in sizes[:-1])
        assert sum(sizes) == made["counts"]["text_bytes"]
        for name, file in made["files"].items():
            content = (out / name).read_bytes()
            assert (len(content), hashlib.sha256(content).hexdigest()) == (file["size_bytes"], file["sha256"])
            metadata = pq.ParquetFile(out / name).metadata
            assert metadata.num_rows == file["num_documents"]
            groups = [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]
            assert groups[:-1] == [20] * (len(groups) - 1)
            assert metadata.row_group(0).column(0).compression == "ZSTD"


def test_lengths_are_filtered_and_counted(tmp_path):
    texts = ["", "a", "ü" * 3, "b" * 10, "c" * 11]
    path = write_jsonl(tmp_path / "a.jsonl", texts)
    made = make([path], tmp_path / "out", shuffle=False, min_bytes=6, max_bytes=10)
    assert all_of(tmp_path / "out") == ["ü" * 3, "b" * 10]
    assert (made["counts"]["too_short"], made["counts"]["too_long"], made["counts"]["read"]) == (2, 1, 5)


# ---- going on -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shuffle", [True, False])
def test_goes_on_wherever_it_was_stopped(tmp_path, monkeypatch, shuffle):
    texts = [*texts_of(300), "x", "x"]
    path = write_jsonl(tmp_path / "a.jsonl", texts)
    shape = {"shuffle": shuffle, "deduplicate": shuffle, "shard_bytes": 2_500, "memory_bytes": 12_000}
    whole = make([path], tmp_path / "whole", **shape)
    append, out, steps = preparing.Worklog.append, tmp_path / "out", 0

    def append_or_die(log, step):
        nonlocal steps
        steps += 1
        if steps % 3 == 2:
            raise KeyboardInterrupt  # the step's file is there, and nobody noted it
        append(log, step)
        if steps % 3 == 0:
            raise KeyboardInterrupt

    monkeypatch.setattr(preparing.Worklog, "append", append_or_die)
    stops = 0
    while not (out / "manifest.json").exists():
        steps = stops % 2
        try:
            made = make([path], out, **shape)
        except KeyboardInterrupt:
            stops += 1
            assert not (out / "manifest.json").exists()
    assert stops > 5
    assert shards_of(out) == shards_of(tmp_path / "whole")
    assert made["files"] == whole["files"]
    assert made["counts"] == whole["counts"]
    assert not (out / ".prepare").exists()


def test_a_job_does_not_go_on_with_inputs_that_changed(tmp_path, monkeypatch):
    path, out = write_jsonl(tmp_path / "a.jsonl", ["one", "two", "six"] * 200), tmp_path / "out"
    append = preparing.Worklog.append

    def append_a_run(log, step):
        append(log, step)
        if "run" in step:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(preparing.Worklog, "append", append_a_run)
        with pytest.raises(KeyboardInterrupt):
            make([path], out, memory_bytes=40_000)
    write_jsonl(path, ["uno", "due", "sei"] * 200)  # as long as it was
    make([path], out, memory_bytes=40_000)
    assert set(all_of(out)) == {"uno", "due", "sei"}
    assert len(all_of(out)) == 600


def test_what_a_job_left_that_was_killed_at_its_very_end_goes(tmp_path):
    path, out = write_jsonl(tmp_path / "a.jsonl", ["one", "two"]), tmp_path / "out"
    made = make([path], out)
    (out / ".prepare").mkdir()
    (out / ".prepare" / "steps").write_text("what the log held")
    assert make([path], out) == made
    assert not (out / ".prepare").exists()


@pytest.mark.parametrize("flags", [["--deduplicate"], ["--no-shuffle"]])
def test_kills_at_any_moment_are_healed(tmp_path, flags):
    path = write_jsonl(tmp_path / "a.jsonl", texts_of(3000))
    words = ["prepare", path, tmp_path / "out", *flags, "--shard-mb", 0.03, "--memory-mb", 0.2]
    line = [sys.executable, "-m", "nanofast.data", *map(str, words)]
    steps, kills = tmp_path / "out" / ".prepare" / "steps", 0
    while kills < 4:
        done = steps.stat().st_size if steps.exists() else 0
        process = subprocess.Popen(line, stdout=subprocess.DEVNULL)
        while process.poll() is None and not (steps.exists() and steps.stat().st_size > done):
            time.sleep(0.002)
        time.sleep(0.003 * kills)
        process.send_signal(signal.SIGKILL)
        process.wait(60)
        kills += 1
        for shard in (tmp_path / "out").glob("*.parquet"):
            assert pq.ParquetFile(shard).metadata.num_rows, "what has its name is whole"
    assert data_command(*words).returncode == 0
    words[2] = tmp_path / "whole"
    assert data_command(*words).returncode == 0
    assert shards_of(tmp_path / "out") == shards_of(tmp_path / "whole")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        path.name for path in (tmp_path / "whole").iterdir()
    )


@pytest.mark.parametrize("flags", [[], ["--no-shuffle"]])
def test_a_full_disk_is_one_line_and_what_was_done_counts(tmp_path, flags):
    path = write_jsonl(tmp_path / "a.jsonl", texts_of(400))
    words = ["prepare", str(path), str(tmp_path / "out"), "--shard-mb", "0.02", "--memory-mb", "0.02", *flags]
    done = subprocess.run([sys.executable, "-c", SMALL_FILES, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "File too large" in done.stderr
    assert str(tmp_path / "out") in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert data_command(*words).returncode == 0
    assert sorted(all_of(tmp_path / "out")) == sorted(texts_of(400))


def test_what_is_made_is_not_made_again_nor_replaced(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", texts_of(20))
    out = tmp_path / "out"
    made = make([path], out)
    stamp = (out / "shard_00000.parquet").stat().st_mtime_ns
    assert make([path], out) == made
    assert (out / "shard_00000.parquet").stat().st_mtime_ns == stamp
    with pytest.raises(ValueError, match="made in another way"):
        make([path], out, seed=1)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "shard_00000.parquet").touch()
    with pytest.raises(ValueError, match="holds shards that were made in another way"):
        make([path], foreign)


def test_runs_are_merged_from_any_record_on(tmp_path):
    generator = random.Random(3)
    records = [(generator.randbytes(16), generator.randbytes(generator.choice([0, 5, 200_000]))) for _ in range(60)]
    for index in range(4):
        write_run(tmp_path / f"run{index}", records[index::4])
    runs = [tmp_path / f"run{index}" for index in range(4)]
    for stop in (0, 1, 31, 60):
        offsets = [0] * 4
        reader = merged(runs, offsets, memory_bytes=1)
        begun = [next(reader) for _ in range(stop)]
        assert begun + list(merged(runs, list(offsets), memory_bytes=1)) == sorted(records)


# ---- mistakes -----------------------------------------------------------------------------------------------------


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


def test_the_command_line(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", texts_of(10))
    done = data_command("prepare", path, tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["num_documents"] == 10
    (tmp_path / "empty").mkdir()
    for words, message in {
        ("nowhere",): "no such file or folder: `nowhere`",
        (tmp_path / "empty",): "--code takes every text file",
        (path, "--deduplicate", "--no-shuffle"): "leave out --no-shuffle",
        (path, "--shard-mb", "0"): "argument --shard-mb: expected a number above 0",
        (path, "--separator", ""): "--separator is empty",
        (path, "--min-bytes", "5", "--max-bytes", "2"): "max_bytes = 2: at least 5",
    }.items():
        inputs, flags = words[0], words[1:]
        done = data_command("prepare", inputs, tmp_path / "other", *flags)
        assert done.returncode == 2
        assert message in done.stderr
        assert done.stderr.count("\n") == 1, done.stderr
