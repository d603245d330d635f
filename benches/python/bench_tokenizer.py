"""How fast does each tokenizer encode, beside the ones that people use, with the same vocabulary on the same text?

    pytest benches/python/bench_tokenizer.py -s [--vocabulary r50k_base] [--corpus web_en] [--threads 1] [--rounds 5]

Each peer runs in a fresh process a round: its first pass is cold, the best of the later ones is warm. MB of text a
second by the clock, and by processor time of all threads, which neighbours on the machine disturb less. Token counts
are held to tiktoken's (a peer that differs is named), ids by the tests. What is unfair: `tokenizer_peers.py` says which
peers make objects or lists. A pre-release of Hugging Face tokenizers is measured where `--tokenizers-pre` names a
folder: `pip install --pre --target FOLDER tokenizers`.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow as pa
import pytest

import nanofast
from corpus import SHARED
from results import Cell, Results, Table, spread
from tokenizer_peers import PEERS, Run

# What `ByteLevel` of Hugging Face tokenizers splits by when it is given no pattern: GPT-2's.
BUILT_IN_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
VOCABULARIES = ("r50k_base", "cl100k_base", "o200k_base", "llama3")
CORPORA = ("web_en", "multi", "code", "hard")
NUM_BYTES, SMOKE_BYTES = 60_000_000, 1_000_000
# These take a minute for what others do in a second; their speed does not depend on how much there is.
SLOW_PEERS, SLOW_BYTES = ("tiktoken", "tiktoken-rs", "tokenizers"), 6_000_000
HEADER = (
    *("tokenizer", "threads", "load, ms", "cold MB/s", "warm MB/s", "warm MB/CPU-s", "nanofast ÷ it, cold"),
    "nanofast ÷ it, warm",
)
LEGEND = (
    "load: from the import's end until it has encoded one word",
    "cold: the first pass of a process; warm: the best of the later ones",
    "ids: nanofast writes them into memory that is there, gigatoken into fresh arrays; tiktoken makes lists, "
    "tiktoken-rs vectors, Hugging Face tokenizers `Encoding` objects",
)


def write_vocabulary(name: str, folder: Path) -> None:
    """The files of one vocabulary as each peer reads them."""
    published = SHARED / "tokenizers" / f"{name}.tokenizer.json.zst"
    file = folder / f"{name}.json"
    if published.is_file():
        file.write_bytes(pa.input_stream(str(published), compression="zstd").read())
        (folder / f"{name}.published.json").write_bytes(file.read_bytes())
        tokenizer = nanofast.Tokenizer.from_file(file)
    else:
        tokenizer = nanofast.Tokenizer.from_name(name)
        tokenizer.save(file, format="huggingface")
    # Ids are ranks, also where a file's list of merges is not quite in their order.
    ids = [token for token, length in enumerate(tokenizer.token_bytes()) if length]
    lines = (b"%s %d" % (base64.b64encode(tokenizer.token_bytes(token)), token) for token in ids)
    file.with_suffix(".tiktoken").write_bytes(b"\n".join(lines))
    pre = json.loads(file.read_text("utf-8"))["pre_tokenizer"]
    first = pre["pretokenizers"][0] if pre["type"] == "Sequence" else pre
    pattern = first["pattern"]["Regex"] if first["type"] == "Split" else BUILT_IN_PATTERN
    file.with_suffix(".pattern").write_text(json.dumps(pattern))


def run_process(run: Run) -> dict[str, Any]:
    """One fresh process.

    Raises:
        RuntimeError: it failed; with the last line of what it said.
    """
    environment = {
        **os.environ,
        "RAYON_NUM_THREADS": str(run.num_threads),
        "TOKENIZERS_PARALLELISM": "true" if run.num_threads > 1 else "false",
    }
    command = [sys.executable, str(Path(__file__).with_name("tokenizer_peers.py")), json.dumps(asdict(run))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report


def program_of_tiktoken_rs(smoke: bool) -> str | None:
    """Builds benches/rust/tiktoken.rs; None without cargo. A smoke run does with a build that the tests have made."""
    if shutil.which("cargo") is None:
        return None
    command = ["cargo", "build", "--locked", "--bench", "tiktoken", "--message-format=json"]
    command += [] if smoke else ["--release"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True, check=True)
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return next(str(one["executable"]) for one in found if one.get("target", {}).get("name") == "tiktoken")


def compare(
    base: Run, num_rounds: int, pre: str | None, say: Callable[[str], None]
) -> tuple[list[Any], list[str], Any]:
    """Time all peers in turns; returns lines of the table, what to know of them, and all reports."""
    reports: dict[str, list[dict[str, Any]]] = {}
    notes: dict[str, None] = {}
    for number in range(num_rounds):
        for peer in list(PEERS)[:: 1 if number % 2 == 0 else -1]:
            if (peer == "tokenizers (pre)" and pre is None) or (peer == "tiktoken-rs" and base.program is None):
                continue
            num_bytes = min(base.num_bytes, SLOW_BYTES) if peer in SLOW_PEERS else base.num_bytes
            packages = pre if peer == "tokenizers (pre)" else None
            say(f"  {base.corpus}, {base.vocabulary}, {base.num_threads} threads: {peer}")
            try:
                run = replace(base, peer=peer, num_bytes=num_bytes, packages=packages)
                reports.setdefault(peer, []).append(run_process(run))
            except RuntimeError as failed:
                reason = re.sub(r"(/[\w.-]+){2,}", "…", str(failed))  # a path says nothing elsewhere
                notes[f"{peer}: not measured ({reason})"] = None
    reports = {peer: reports[peer] for peer in PEERS if reports.get(peer)}
    rows = [row_of(found, reports["nanofast"]) for found in reports.values()]
    for peer, found in reports.items():
        reference = "tiktoken" if peer in SLOW_PEERS else "nanofast"  # of the same text
        count, expected = found[0]["num_tokens"], reports[reference][0]["num_tokens"]
        if count != expected:
            notes[f"{peer}: {count:,} tokens where {reference} gives {expected:,}"] = None
    return rows, list(notes), reports


def row_of(reports: list[dict[str, Any]], ours: list[dict[str, Any]]) -> tuple[Cell, ...]:
    """The line of one peer: medians of its rounds, and what nanofast's make of them."""

    def cold(of: list[dict[str, Any]]) -> list[float]:
        return [report["speeds"][0] for report in of]

    def warm(of: list[dict[str, Any]], clock: str = "speeds") -> list[float]:
        return [max(report[clock][1:]) for report in of]

    return (
        f"{reports[0]['peer']} {reports[0]['version']}",
        reports[0]["num_threads"],
        1e3 * median(report["load_seconds"] for report in reports),
        spread(cold(reports)),
        spread(warm(reports)),
        median(warm(reports, "cpu_speeds")),
        median(cold(ours)) / median(cold(reports)),
        median(warm(ours)) / median(warm(reports)),
    )


def hold_to_tiktoken(base: Run) -> None:
    """The same number of tokens as tiktoken on the same documents."""
    once = replace(base, num_bytes=min(base.num_bytes, SLOW_BYTES), num_passes=1)
    counts = [run_process(replace(once, peer=peer))["num_tokens"] for peer in ("nanofast", "tiktoken")]
    assert counts[0] == counts[1], f"{base.corpus}, {base.vocabulary}: {counts[0]} tokens, tiktoken gives {counts[1]}"


@pytest.mark.timeout(7200)
def test_tokenizers_side_by_side(
    smoke: bool,
    num_rounds: int,
    vocabularies: list[str] | None,
    pytestconfig: pytest.Config,
    results: Results,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if not SHARED.is_dir():
        pytest.skip(f"no corpora in {SHARED}")

    def say(line: str) -> None:
        with capsys.disabled():
            print(line)

    corpora = pytestconfig.getoption("corpus") or (CORPORA[:1] if smoke else CORPORA)
    threads = pytestconfig.getoption("threads") or ([1] if smoke else [1, 2])
    pre = pytestconfig.getoption("tokenizers_pre")
    num_bytes = SMOKE_BYTES if smoke else NUM_BYTES
    program = program_of_tiktoken_rs(smoke)
    for vocabulary in vocabularies or (VOCABULARIES[:1] if smoke else VOCABULARIES):
        write_vocabulary(vocabulary, tmp_path)
        for corpus in corpora:
            base = Run("nanofast", vocabulary, corpus, 1, num_bytes, 2 if smoke else 4, str(tmp_path), program=program)
            hold_to_tiktoken(base)
            found = [compare(replace(base, num_threads=count), num_rounds, pre, say) for count in threads]
            rows = [row for lines, _, _ in found for row in lines]
            notes = dict.fromkeys(note for _, notes, _ in found for note in notes)
            about = f"{num_bytes / 1e6:.0f} MB of text at most, {SLOW_BYTES / 1e6:.0f} for {', '.join(SLOW_PEERS)}"
            title = f"Tokenizers: {corpus}, {vocabulary}"
            told = (f"{about}; rounds: {num_rounds}", *LEGEND, *notes)
            results.add(Table(title, HEADER, rows, told, [reports for _, _, reports in found]))
