"""`python -m nanofast.bench`: what it writes is what it measured, and mistakes are one line."""

from __future__ import annotations

import json
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import nanofast
from nanofast.bench import differing, sample_places
from nanofast.peers import BATCHES, ENTRIES, IDS, TEXT
from shards import random_texts, write_shards

SMALL = ("--threads", "1", "--seconds", "0.02", "--batch-size", "2", "--sequence-length", "64")


def bench(*words: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "nanofast.bench", *map(str, words)]
    return subprocess.run(line, capture_output=True, text=True, check=False)


def folder(place: Path) -> Path:
    (place / "data").mkdir()
    return place / "data"


class Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.charts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if name in ("href", "src") and value and value[0] != "#"]
        self.charts += tag == "svg"


def test_a_page_and_figures_of_all_that_is_installed(tmp_path: Path) -> None:
    write_shards(folder(tmp_path), random_texts(0, [[50] * 4] * 2))
    done = bench(tmp_path / "data", *SMALL, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads((tmp_path / "out" / "bench.json").read_text("utf-8"))
    measured = {(row["kind"], row["name"]) for row in report["rows"]}
    left_out = {(entry["kind"], entry["name"]) for entry in report["left_out"]}
    assert measured | left_out == {(entry.kind, entry.name) for entry in ENTRIES.values()}
    # What the tests need is installed, and gives the same.
    for key in ("nanofast_best_fit", "pyarrow_text", "tiktoken_ids", "tokenizers_ids", "plain_batches"):
        assert (ENTRIES[key].kind, ENTRIES[key].name) in measured, report["left_out"]
    assert all("not installed; pip install" in entry["reason"] for entry in report["left_out"])
    for row in report["rows"]:
        assert row["num_threads"] == 1
        assert row["cold_mb_per_second"] > 0
        assert row["warm_mb_per_second"] > 0
        assert (row["warm_tokens_per_second"] is None) == (row["kind"] == TEXT)
    page = (tmp_path / "out" / "bench.html").read_text("utf-8")
    links = Links()
    links.feed(page)
    assert links.found == []
    assert links.charts == 4
    assert all(name in page and name in done.stdout for _, name in measured)
    assert {row["kind"] for row in report["rows"]} == {TEXT, IDS, BATCHES}


def test_who_cannot_read_a_vocabulary_is_left_out_with_the_reason(tmp_path: Path) -> None:
    write_shards(folder(tmp_path), [[["some words " * 20] * 30]])
    base = tmp_path / "base.json"
    nanofast.Tokenizer.from_name("r50k_base").save(base, format="huggingface")
    definition = {**json.loads(base.read_text("utf-8")), "normalizer": {"type": "NFC"}}
    (tmp_path / "normal.json").write_text(json.dumps(definition), encoding="utf-8")
    done = bench(tmp_path / "data", *SMALL, "--tokenizer", tmp_path / "normal.json", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out" / "bench.json").read_text("utf-8"))
    reasons = {(entry["kind"], entry["name"]): entry["reason"] for entry in report["left_out"]}
    assert "split by one pattern" in reasons[IDS, "tiktoken"]
    assert (BATCHES, "pyarrow and tiktoken, concat") in reasons
    assert "left out: it failed: this vocabulary does more than" in done.stdout


def test_another_answer_is_a_reason() -> None:
    reports = {"nanofast_ids": {"answer": "a"}, "tiktoken_ids": {"answer": "a"}, "gigatoken_ids": {"answer": "b"}}
    assert differing("nanofast_ids", reports) is None
    assert differing("tiktoken_ids", reports) is None
    assert differing("gigatoken_ids", reports) == "it gives something else than nanofast"


def test_the_sample_is_the_first_row_groups_with_enough_text(tmp_path: Path) -> None:
    write_shards(tmp_path, [[["x" * 100] * 10] * 3, [["x" * 100] * 10] * 3])
    places, num_bytes = sample_places(str(tmp_path), "text", 1)
    assert [group for _, group in places] == [0]
    assert sample_places(str(tmp_path), "text", num_bytes + 1)[0] == [places[0], (places[0][0], 1)]
    every, _ = sample_places(str(tmp_path), "text", 1e9)
    assert [(Path(path).name[-9:-8], group) for path, group in every] == [
        (str(shard), group) for shard in range(2) for group in range(3)
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--threads", 100_000], "this process may use"),
        (["--text-column", "body"], "pass --text-column"),
        (["--seconds", 0], "argument --seconds: expected a number above 0"),
        (["--tokenizer", "r50k_bse"], "r50k_base"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, words: list[object], message: str) -> None:
    write_shards(tmp_path, [[["text"] * 20]])
    done = bench(tmp_path, *words)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr


def test_data_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    done = bench(tmp_path / "nowhere")
    assert done.returncode == 2
    assert "nowhere" in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
