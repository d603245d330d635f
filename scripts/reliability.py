"""Which faults are survived, as a page: `python scripts/reliability.py [--long] [--only NUMBER …]`

Runs the tests behind each promise and writes docs/RELIABILITY.md: how it was tried, how often, and what came of it.
Counts come from the tests themselves (`record_property`), results from their outcome; nothing is written by hand. The
short profile takes minutes, the long one hours.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Promise:
    """A line of the page: what must hold, the Python tests (pytest's words) and the Rust tests (filters) behind it."""

    title: str
    python: tuple[str, ...] = ()
    rust: tuple[str, ...] = ()


PROMISES = (
    Promise(
        "Parquet of many writers is read as pyarrow reads it, or refused with its place",
        ("tests/python/test_reading.py", "tests/python/test_bad_input.py", "tests/python/test_quarantine.py"),
        ("--test source reads_", "--test source rejects_", "--test source refuses_"),
    ),
    Promise(
        "A flipped bit or a cut file is an error, or the same text",
        ("tests/python/test_reading.py -k flipped", "tests/python/test_quarantine.py -k flipped"),
        ("--test source flip", "--test source damage", "--lib flipped"),
    ),
    Promise(
        "Ids are those of tiktoken and Hugging Face tokenizers, and of the slow twins",
        ("tests/python/test_tokenizer.py", "tests/python/test_tokenizer_files.py"),
        ("--test tokenizer",),
    ),
    Promise(
        "A resumed stream goes on with the very next token, also after SIGKILL, also on other ranks",
        (
            "tests/python/test_resume.py tests/python/test_elastic.py tests/python/test_killed.py",
            "tests/python/test_checkpoint.py tests/python/test_survival.py",
        ),
    ),
    Promise(
        "The stream is that of its definition, whatever the threads",
        ("tests/python/test_stream.py tests/python/test_mixture.py tests/python/test_giants.py",),
        ("--test packing", "--test loader"),
    ),
    Promise("All ranks end together", ("tests/python/test_epochs.py",)),
    Promise(
        "A loader ends at once, and leaves no thread, file or memory; memory stays flat",
        ("tests/python/test_life.py",),
        ("--lib faults",),
    ),
    Promise("A download that was accepted is right, whatever the server does", ("tests/python/test_download.py",)),
    Promise(
        "Nothing in a file is executed, nothing leaves its folder, hostile vocabularies are bounded",
        ("tests/python/test_bad_vocabularies.py", "tests/python/test_audit.py"),
        ("--test tokenizer bad_files",),
    ),
)
NOT_RUN = (
    ("Copies to a GPU, with a delayed stream", "pytest tests/python/test_gpu.py on a machine with CUDA"),
    ("All interleavings of the ring's slots (loom)", "scripts/model_ring.sh"),
    ("Address and thread sanitizer", "scripts/sanitize.sh address; scripts/sanitize.sh thread (nightly Rust)"),
    ("Fuzzing", "cargo +nightly fuzz run TARGET, for each of fuzz/fuzz_targets (cargo-fuzz)"),
    ("Free-threaded Python; macOS; aarch64", "scripts/test_wheel.sh on such a machine (.github/workflows/release.yml)"),
)


@dataclass
class Found:
    """What the tests of a promise said."""

    outcomes: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0


def run_python(words: str, found: Found) -> None:
    """Runs pytest and takes outcomes and counts from its report."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        where, _, which = words.partition(" -k ")
        command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", *where.split()]
        command += ["-k", which] if which else []
        code = subprocess.run(command, cwd=ROOT, check=False, stdout=subprocess.DEVNULL).returncode
        if not report.exists():
            found.failures.append(f"pytest {words} ended with {code} and no report")
            return
        for case in ElementTree.parse(report).iter("testcase"):
            found.seconds += float(case.get("time", 0))
            kinds = {child.tag for child in case} & {"failure", "error", "skipped"}
            kind = "skipped" if kinds == {"skipped"} else "failed" if kinds else "passed"
            found.outcomes[kind] += 1
            if kind == "failed":
                found.failures.append(f"{case.get('classname')}.{case.get('name')}")
            for entry in case.iter("property"):
                found.counts[str(entry.get("name"))] += int(str(entry.get("value")))


def run_rust(words: str, found: Found) -> None:
    """Runs cargo test and takes outcomes from what it prints."""
    command = ["cargo", "test", "--locked", *words.split()]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    results = re.findall(r"test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored.*?([\d.]+)s", done.stdout)
    for passed, failed, ignored, seconds in results:
        found.outcomes.update(passed=int(passed), failed=int(failed), skipped=int(ignored))
        found.seconds += float(seconds)
    if done.returncode != 0:
        found.failures += re.findall(r"^test (\S+) \.\.\. FAILED", done.stdout, flags=re.MULTILINE)
        found.failures += [] if results else [f"cargo test {words} did not run"]


def line(number: int, promise: Promise, found: Found) -> str:
    """A row of the page's table."""
    counts = ", ".join(f"{count:,} {name}" for name, count in sorted(found.counts.items()))
    tests = f"{found.outcomes['passed']} tests passed"
    tests += f", {found.outcomes['skipped']} skipped" if found.outcomes["skipped"] else ""
    result = "held" if not found.failures else f"**failed**: {', '.join(found.failures)}"
    how = "; ".join([*promise.python, *(f"cargo test {words}" for words in promise.rust)]).replace("tests/python/", "")
    return f"| {number} | {promise.title} | `{how}` | {tests}{'; ' + counts if counts else ''} | {result} |"


def main() -> int:
    """Run, write the page, and say by the exit code whether all held."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--long", action="store_true", help="as many cases as `make test-long`")
    parser.add_argument("--only", type=int, nargs="+", metavar="NUMBER", help="these lines, and write no page")
    arguments = parser.parse_args()
    if arguments.long:
        os.environ |= {"NANOFAST_TEST_LONG": "1", "PROPTEST_CASES": "4096"}
    rows, failed = [], 0
    for number, promise in enumerate(PROMISES, start=1):
        if arguments.only and number not in arguments.only:
            continue
        found = Found()
        for words in promise.python:
            run_python(words, found)
        for words in promise.rust:
            run_rust(words, found)
        rows.append(line(number, promise, found))
        failed += bool(found.failures)
        print(f"{rows[-1]} ({found.seconds:.0f} s)", flush=True)
    if not arguments.only:
        write_page(rows, arguments.long)
    return 1 if failed else 0


def write_page(rows: list[str], is_long: bool) -> None:
    """docs/RELIABILITY.md."""
    commit = subprocess.run(["git", "rev-parse", "--short=10", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout
    profile = "long" if is_long else "short"
    head = (
        f"# Reliability\n\nWritten by `scripts/reliability.py{' --long' if is_long else ''}` on "
        f"{datetime.date.today()}, commit {commit.strip()}, {profile} profile, Python {platform.python_version()}, "
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores. Counts are those that the tests reported.\n"
    )
    table = ["| | promise | tests | how often | result |", "|---|---|---|---|---|", *rows]
    rest = ["| not run here | command |", "|---|---|", *(f"| {what} | `{how}` |" for what, how in NOT_RUN)]
    page = "\n".join([head, *table, "", *rest]) + "\n"
    (ROOT / "docs" / "RELIABILITY.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
