"""Preparing shards: in the stated order and shape, after any kill, the same each time."""

from __future__ import annotations

import hashlib
import json
import random
import signal
import subprocess
import sys
import time

import pyarrow.parquet as pq
import pytest

from commands import SMALL_FILES, data_command
from nanofast.data import prepare as preparing
from nanofast.data.spill import merged, write_run
from prepare_parts import all_of, make, shards_of, texts_of, write_jsonl


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
