"""A packed batch shown to a reader: every token of the batch is in it, and what was cut is marked as cut."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from commands import data_command
from nanofast import Tokenizer
from nanofast.data.show import Piece, Shown, as_html, render, show_batch
from shards import write_shards

TOKENIZER = Tokenizer.from_name("r50k_base")
SHORT, LONG = "a short one", "one two three four five six seven eight nine ten " * 3


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_shards(tmp_path, [[[SHORT, LONG, SHORT + " more"]]])
    return tmp_path


def shown(data: Path, **options: object) -> Shown:
    return show_batch(data, TOKENIZER, 0, **{"batch_size": 3, "sequence_length": 24, **options})  # type: ignore[arg-type]


def pieces(data: Path, **options: object) -> list[list[tuple[str, bool, bool]]]:
    return [[(p.text, p.begins, p.ends) for p in row if not p.is_padding] for row in shown(data, **options).rows]


def test_a_cut_document_ends_in_one_row_and_begins_in_none_of_the_others(data: Path):
    rows = pieces(data, packing="best_fit", overflow="carry")
    parts = [piece for row in rows for piece in row if piece[0] in LONG and piece[0] not in (SHORT, SHORT + " more")]
    assert "".join(text for text, _, _ in parts) == LONG
    assert [(begins, ends) for _, begins, ends in parts] == [(True, False), (False, True)]
    assert (SHORT, True, True) in [piece for row in rows for piece in row]


def test_a_cropped_document_begins_and_does_not_end(data: Path):
    found = shown(data, packing="best_fit", overflow="crop")
    assert found.counts["cropped"] > 0
    cropped = [piece for row in found.rows for piece in row if not piece.is_padding and not piece.ends]
    assert cropped
    assert all(piece.begins and LONG.startswith(piece.text) for piece in cropped)


def test_whole_documents_and_padding(data: Path):
    found = shown(data, packing="best_fit", overflow="pad", sequence_length=64)
    assert [(p.begins, p.ends) for row in found.rows for p in row if not p.is_padding] == [(True, True)] * 3
    assert sum(p.num_tokens for row in found.rows for p in row if p.is_padding) >= found.counts["padding"] > 0


def test_rows_of_one_stream_begin_and_end_within_documents(data: Path):
    (first, *_) = shown(data, packing="concat", sequence_length=12, batch_size=1).rows
    assert [(p.has_bos, p.begins, p.ends) for p in first] == [(True, True, True), (True, True, False)]


def test_every_token_of_the_batch_is_shown(data: Path):
    for packing in ("best_fit", "concat", "one_per_row"):
        found = shown(data, packing=packing)
        for row in found.rows:
            assert sum(piece.num_tokens + piece.has_bos for piece in row) in (25, max(25, len(row)))


def test_borders_cuts_and_padding_have_signs():
    rows = [
        [
            Piece("whole\ntext", 2, has_bos=True, begins=True, ends=True),
            Piece("cut", 1, has_bos=True, begins=False, ends=False),
            Piece("", 7, has_bos=False, begins=False, ends=False, is_padding=True),
        ],
        [Piece("x" * 2000, 500, has_bos=True, begins=True, ends=True)],
    ]
    console = Console(file=io.StringIO(), width=400)
    console.print(render(Shown(3, "best_fit, carry", rows, {"learned": 5})))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "batch 3, best_fit, carry: 5 learned" in text
    assert "row 0 ▌whole↵text▌◂cut▸░░░ 7 of padding" in text
    assert "⋯ 500 tokens ⋯" in text


def test_a_page_holds_what_a_terminal_shows(data: Path, tmp_path: Path):
    found = shown(data)
    page = as_html(render(found))
    assert page.lstrip().startswith("<!DOCTYPE html>")
    assert "a short one" in page
    assert "color: #" in page
    done = data_command(
        "inspect",
        data,
        "--tokenizer",
        "r50k_base",
        "--batch",
        0,
        "--sequence-length",
        24,
        "--html",
        tmp_path / "p.html",
    )
    assert done.returncode == 0, done.stderr
    assert "row 0 ▌" in done.stdout
    assert "row groups" in (tmp_path / "p.html").read_text("utf-8")
    done = data_command("inspect", data, "--tokenizer", "r50k_base", "--batch", 0, "--json")
    assert json.loads(done.stdout)["batch"]["rows"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--batch", 0], "--batch needs --tokenizer"),
        (["--batch", -1, "--tokenizer", "r50k_base"], "batches count from 0"),
        (["--batch", 99, "--tokenizer", "r50k_base"], "has fewer batches"),
        (["--batch", "x"], "invalid int value"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(data: Path, words: list[object], message: str):
    done = data_command("inspect", data, *words)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
