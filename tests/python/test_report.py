"""The report: self-contained, whatever the log holds, and telling what the log says."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from nanofast.charts import MAX_POINTS, Curve, line_chart, short_number, thinned
from nanofast.report import write_report

PROMPT, CONTINUATION = "def ", "f(x): return x < 1 & '<script>alert(1)</script>'"


def run_line(**fields: Any) -> dict[str, Any]:
    config = {"model": {"depth": 4, "n_embd": 256}, "run": {"seed": 0, "report": True, "resume": None}}
    machine = {
        "cpu": "A Processor",
        "cores": 2,
        "memory_bytes": 25_000_000_000,
        "device": "cpu",
        "device_name": "A Processor",
    }
    return {
        "kind": "run",
        "step": 0,
        "resumed_from": None,
        "config": config,
        "machine": machine,
        "parameters": {"total": 5_243_000},
        "versions": {"torch": "2.15.0", "cuda": None},
        "command": ["python", "-m", "nanofast.train"],
        **fields,
    }


def step_line(step: int, **fields: Any) -> dict[str, Any]:
    loss = 2 + 6 * math.exp(-step / 20)
    phases = {"data": 0.01, "forward_backward": 0.6, "optimizer": 0.05}
    return {
        "kind": "step",
        "step": step,
        "loss": loss,
        "loss_smooth": loss,
        "bpb": loss / 2.5,
        "lr": 0.003,
        "grad_norm": 1.0,
        "tokens": 4096 * step,
        "seconds": 0.66,
        "phase_seconds": phases,
        "tokens_per_second": 6206.0,
        "wait_fraction": 0.015,
        "memory_bytes": 1_100_000_000,
        **fields,
    }


def whole_log(num_steps: int = 40) -> list[dict[str, Any]]:
    loader = {"stage_seconds": {"decode": 0.5, "tokenize": 61.0, "idle": 9.0}, "bottleneck": "consumer"}
    ledger = {"documents": 70, "read": 1000, "learned": 800, "masked": 0, "cropped": 50, "waiting": 150, "carried": 3}
    return [
        run_line(),
        *(step_line(step) for step in range(1, num_steps + 1)),
        {"kind": "validation", "step": num_steps, "loss": 2.5, "bpb": 0.987},
        {"kind": "ledger", "step": num_steps, "ledger": ledger, "loader": loader},
        {"kind": "sample", "step": 20, "prompt": PROMPT, "text": "an earlier one"},
        {"kind": "sample", "step": num_steps, "prompt": PROMPT, "text": CONTINUATION},
        {"kind": "event", "step": 3, "level": "warning", "message": "a batch of 16 rows is split in 2"},
        {
            "kind": "end",
            "step": num_steps,
            "reason": "finished",
            "total_seconds": 221.0,
            "phase_seconds": {"setup": 4.0, "forward_backward": 200.0, "save": 17.0},
        },
    ]


def write_log(folder: Path, entries: list[dict[str, Any]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "log.jsonl").write_text("".join(json.dumps({"time": 0.0, **entry}) + "\n" for entry in entries))
    return folder


class Page(HTMLParser):
    """Tags, what they would load, and text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.loaded: list[str] = []
        self.text = ""
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "br", "link", "img", "input"):
            self.open.append(tag)
        self.loaded += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "action", "data")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text += data


def test_loads_nothing_and_is_well_formed(tmp_path: Path):
    page = Page(write_report(write_log(tmp_path / "run", whole_log())))
    assert page.open == []
    assert all(address.startswith("#") for address in page.loaded), page.loaded
    assert not {"script", "link", "iframe", "img"} & set(page.tags)
    assert "url(http" not in (tmp_path / "run" / "report.html").read_text("utf-8")


def test_says_what_the_log_says(tmp_path: Path):
    page = Page(write_report(write_log(tmp_path / "run", whole_log())))
    markdown = (tmp_path / "run" / "report.md").read_text("utf-8")
    for text in (page.text, markdown):
        assert "A GPT of 5.24M parameters trained on 164k tokens in 3 min 41 s on A Processor (2 cores)" in text
        assert "0.987 bits per byte on text it has not seen" in text
        assert "finished" in text
        assert CONTINUATION in text, "a sample is shown as it is, not as markup"
        assert "a batch of 16 rows is split in 2" in text
        assert "2.15.0" in text
        assert "25 GB" in text
        assert "n_embd" in text or "n embd" in text
    for title in ("loss (nats per token)", "bits per byte", "tokens per second", "learning rate", "memory (GB)"):
        assert title in page.text
    assert page.tags.count("svg") == 8
    assert "0.5 s to decode, 1 min 01 s to tokenize, 9 s idle; the slowest was the consumer." in page.text
    assert "an earlier one" in page.text


def test_lists_shares_and_what_was_left_out(tmp_path: Path):
    entries = whole_log()
    share = {"admitted": 2000, "trained": 1500, "admitted_share": 0.7, "trained_share": 0.75}
    [ledger] = [entry for entry in entries if entry["kind"] == "ledger"]
    ledger["loader"]["shares"] = {"web-text": share}
    parts = [
        {"file": "a.parquet", "row_group": 3, "rows": [5, 8], "reason": "a page whose checksum is wrong"},
        {"file": "b.parquet", "reason": "it ends with `xxxx`"},
    ]
    entries[5:5] = [
        {"kind": "quarantine", "step": 4, "parts": parts[:1]},
        {"kind": "quarantine", "step": 5, "parts": parts},
    ]
    page = Page(write_report(write_log(tmp_path / "run", entries)))
    markdown = (tmp_path / "run" / "report.md").read_text("utf-8")
    for text in (page.text, markdown):
        for word in ("web-text", "70 %", "75 %", "a.parquet", "5 to 7", "checksum", "b.parquet", "all", "it ends with"):
            assert word in text, word
        assert text.count("a.parquet") == 1


def test_shows_what_xz_and_unigrams_reach_the_cost_core_and_what_stood_out(tmp_path: Path):
    entries = whole_log()
    entries[0]["config"]["run"]["price_per_hour"] = 3.6
    entries[10].update(spike=True, momentum=0.9)
    found = {"accuracy": 0.31, "centered": 0.08, "centered_v2": 0.02}
    entries[-1:-1] = [
        {"kind": "baselines", "step": 40, "xz_bpb": 1.9876, "unigram_bpb": 3.4567, "bytes": 100_000},
        {"kind": "core", "step": 40, "core_v1": 0.1234, "core_v2": 0.0987, "tasks": {"copa": found}, "max_per_task": 0},
    ]
    page = Page(write_report(write_log(tmp_path / "run", entries)))
    markdown = (tmp_path / "run" / "report.md").read_text("utf-8")
    for text in (page.text, markdown):
        for figure in ("1.9876", "3.4567", "0.1234", "0.0987", "copa", "0.3100", "0.0800", "0.0200"):
            assert figure in text
        assert "0.22" in text, "221 s at 3.6 an hour"
    assert "On the first 100 kB of this text" in page.text
    assert page.text.count("spike") >= 2, "on the losses and among what is worth knowing"
    assert "unigram" in page.text
    assert "momentum of the matrices" in page.text
    assert page.open == []


def test_the_ledger_is_checked_not_believed(tmp_path: Path):
    entries = whole_log()
    good = Page(write_report(write_log(tmp_path / "good", entries))).text
    assert "✓ 1,000" in good
    ledger = next(entry for entry in entries if entry["kind"] == "ledger")["ledger"]
    ledger["waiting"] -= 1
    bad = Page(write_report(write_log(tmp_path / "bad", entries))).text
    assert "✗ 1,000 ≠ 999" in bad
    assert "DOES NOT HOLD" in (tmp_path / "bad" / "report.md").read_text("utf-8")


@pytest.mark.parametrize("kept", [0, 1, 2, 4, 7, 10])
def test_a_log_cut_anywhere_makes_a_page(tmp_path: Path, kept: int):
    page = Page(write_report(write_log(tmp_path / "run", whole_log(3)[:kept])))
    assert page.open == []
    assert ("finished" in page.text) == (kept == len(whole_log(3)))


def test_nulls_and_unknown_kinds_and_torn_lines_are_no_trouble(tmp_path: Path):
    nulls = dict.fromkeys(step_line(1), None)
    entries = [
        run_line(config=None, machine=None, versions=None),
        {**nulls, "kind": "step", "step": 1},
        {"kind": "surprise"},
    ]
    folder = write_log(tmp_path / "run", entries)
    with (folder / "log.jsonl").open("a") as file:
        file.write('{"kind": "step", "st')
    assert "running, or killed" in Page(write_report(folder)).text


def test_comparing_lays_curves_over_and_lists_what_differs(tmp_path: Path):
    one = write_log(tmp_path / "one", whole_log())
    theirs = [
        run_line(config={"model": {"depth": 6, "n_embd": 256}, "run": {"seed": 0, "report": True, "resume": None}})
    ]
    two = write_log(tmp_path / "two", theirs + whole_log(30)[1:])
    page = Page(write_report(one, two))
    assert "two, validation" in page.text
    assert "Set differently from two" in page.text
    assert "model.depth46" in page.text.replace("\n", "").replace(" ", "")
    assert "model.n_embd" not in page.text


def test_the_same_log_gives_the_same_bytes(tmp_path: Path):
    folder = write_log(tmp_path / "run", whole_log())
    first = write_report(folder).read_bytes()
    assert write_report(folder).read_bytes() == first
    assert sorted(path.name for path in folder.iterdir()) == ["log.jsonl", "report.html", "report.md"]


def test_a_million_steps_stay_a_small_page(tmp_path: Path):
    steps = list(range(200_000))
    values = [1.0 + (step % 7) for step in steps]
    assert len(line_chart([Curve("loss", steps, values)], "loss")) < 100_000


def test_thinning_keeps_extremes_and_leaves_out_what_was_not_measured():
    steps = range(10 * MAX_POINTS)
    values: list[float | None] = [1.0] * len(steps)
    values[1234], values[77], values[78] = 50.0, -3.0, None
    x, mean, low, high = thinned(steps, values)
    assert len(x) == MAX_POINTS
    assert (low.min(), high.max()) == (-3.0, 50.0)
    assert list(x) == sorted(x)
    assert not any(map(math.isnan, mean))


def test_a_chart_takes_its_colours_from_the_page():
    svg = line_chart([Curve("a", [1, 2], [1.0, 2.0]), Curve("b", [1, 2], [2.0, 3.0], 1)], "two curves")
    assert "var(--c1)" in svg
    assert "var(--c2)" in svg
    assert "#0" not in svg.replace("url(#", "")


def test_a_chart_of_nothing_is_nothing():
    assert line_chart([Curve("a", [], []), Curve("b", [1], [None])], "nothing") == ""


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.00312, "0.00312"), (999, "999"), (12_300, "12.3k"), (5_243_000, "5.24M")]
)
def test_numbers_are_short(value: float, text: str):
    assert short_number(value) == text


def command_line(*arguments: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nanofast.report", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_on_the_command_line_a_mistake_is_one_line(tmp_path: Path):
    for arguments, message in (([tmp_path], "has no `log.jsonl`"), ([], "arguments are required: run; see")):
        found = command_line(*arguments)
        assert found.returncode == 2
        assert found.stderr.count("\n") == 1
        assert found.stderr.startswith("error: ")
        assert message in found.stderr


def test_on_the_command_line_the_page_is_named(tmp_path: Path):
    folder = write_log(tmp_path / "run", whole_log())
    found = subprocess.run(
        [sys.executable, "-m", "nanofast.report", folder], capture_output=True, text=True, check=True
    )
    assert Path(found.stdout.strip()) == folder / "report.html"


def test_a_live_page_loads_itself_anew_until_the_run_ends(tmp_path: Path):
    *so_far, end = whole_log(3)
    folder = write_log(tmp_path / "run", so_far)
    command = [sys.executable, "-m", "nanofast.report", "--live", "--every", "0.1", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert 'http-equiv="refresh"' in (folder / "report.html").read_text("utf-8")
        with (folder / "log.jsonl").open("a") as file:
            file.write(json.dumps({"time": 0.0, **end}) + "\n")
        assert process.wait(120) == 0
    page = (folder / "report.html").read_text("utf-8")
    assert 'http-equiv="refresh"' not in page
    assert "finished" in Page(folder / "report.html").text
