"""How fast does each tokenizer encode, beside the ones that people use, with the same vocabulary on the same text?

    pytest benches/python/bench_tokenizer.py -s [--vocabulary r50k_base] [--corpus web_en] [--threads 1] [--rounds 5]

Each peer runs in a fresh process a round: its first pass is cold, the best of the later ones is warm. Medians of
rounds, MB of text a second by the clock; in brackets by processor time of all threads, which neighbours on the
machine disturb less. Token counts are held to tiktoken's (a peer that differs is named), ids by the tests. What is
unfair: `tokenizer_peers.py` says which peers make objects or lists. A pre-release of Hugging Face tokenizers is
measured where `--tokenizers-pre` names a folder: `pip install --pre --target FOLDER tokenizers`.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow as pa
import pytest

import nanofast
from corpus import SHARED
from tokenizer_peers import PEERS, Run

# What `ByteLevel` of Hugging Face tokenizers splits by when it is given no pattern: GPT-2's.
BUILT_IN_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
VOCABULARIES = ("r50k_base", "cl100k_base", "o200k_base", "llama3")
CORPORA = ("web_en", "multi", "code", "hard")
NUM_BYTES, SMOKE_BYTES = 60_000_000, 1_000_000
# These take a minute for what others do in a second; their speed does not depend on how much there is.
SLOW_PEERS, SLOW_BYTES = ("tiktoken", "tokenizers"), 6_000_000


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


def summary(reports: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians of the rounds of one peer."""

    def cold(clock: str) -> float:
        return median(report[clock][0] for report in reports)

    def warm(clock: str) -> float:
        return median(max(report[clock][1:]) for report in reports)

    return {
        "version": reports[0]["version"],
        "load": median(report["load_seconds"] for report in reports),
        "cold": cold("speeds"),
        "cold_cpu": cold("cpu_speeds"),
        "warm": warm("speeds"),
        "warm_cpu": warm("cpu_speeds"),
    }


def compare(base: Run, num_rounds: int, pre: str | None, say: Callable[[str], None]) -> None:
    """Time all peers in turns and print a table."""
    reports: dict[str, list[dict[str, Any]]] = {}
    for number in range(num_rounds):
        order = list(PEERS) if number % 2 == 0 else list(PEERS)[::-1]
        for peer in order:
            if peer == "tokenizers (pre)" and pre is None:
                continue
            num_bytes = min(base.num_bytes, SLOW_BYTES) if peer in SLOW_PEERS else base.num_bytes
            packages = pre if peer == "tokenizers (pre)" else None
            changes = {"peer": peer, "num_bytes": num_bytes, "packages": packages}
            try:
                report = run_process(Run(**{**asdict(base), **changes}))
            except RuntimeError as failed:
                say(f"{peer}: not measured ({failed})")
                continue
            reports.setdefault(peer, []).append(report)
    rows = {peer: summary(reports[peer]) for peer in PEERS if peer in reports}
    say(f"\n{base.corpus}, {base.vocabulary}, {base.num_threads} thread(s), {num_rounds} round(s); MB/s (MB/CPU-s)")
    ours = rows["nanofast"]
    for peer, row in rows.items():
        ratios = (
            "" if peer == "nanofast" else f"  ours {ours['cold'] / row['cold']:6.2f} {ours['warm'] / row['warm']:6.2f}"
        )
        cold = f"cold {row['cold']:6.1f} ({row['cold_cpu']:6.1f})"
        warm = f"warm {row['warm']:6.1f} ({row['warm_cpu']:6.1f})"
        say(f"{peer:>17} {row['version']:<11} load {1e3 * row['load']:6.0f} ms  {cold}  {warm}{ratios}")
    same_text = {peer: reports[peer][0] for peer in rows if peer not in SLOW_PEERS}
    for peer, report in same_text.items():
        if report["num_tokens"] != same_text["nanofast"]["num_tokens"]:
            say(f"{peer}: {report['num_tokens']:,} tokens, nanofast {same_text['nanofast']['num_tokens']:,}")


def hold_to_tiktoken(base: Run) -> None:
    """The same number of tokens as tiktoken on the same documents."""
    changes = {"num_bytes": min(base.num_bytes, SLOW_BYTES), "num_passes": 1}
    counts = [
        run_process(Run(**{**asdict(base), **changes, "peer": peer}))["num_tokens"] for peer in ("nanofast", "tiktoken")
    ]
    assert counts[0] == counts[1], f"{base.corpus}, {base.vocabulary}: {counts[0]} tokens, tiktoken gives {counts[1]}"


@pytest.mark.timeout(7200)
def test_tokenizers_side_by_side(
    smoke: bool,
    num_rounds: int,
    vocabularies: list[str] | None,
    pytestconfig: pytest.Config,
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
    for vocabulary in vocabularies or (VOCABULARIES[:1] if smoke else VOCABULARIES):
        write_vocabulary(vocabulary, tmp_path)
        for corpus in corpora:
            base = Run("nanofast", vocabulary, corpus, 1, num_bytes, 2 if smoke else 4, str(tmp_path))
            hold_to_tiktoken(base)
            for num_threads in threads:
                compare(Run(**{**asdict(base), "num_threads": num_threads}), num_rounds, pre, say)
