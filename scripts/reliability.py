"""Which faults are survived, as a page: `python scripts/reliability.py [--long] [--fuzz SECONDS] [--only NUMBER …]`

Runs the tests behind each promise and writes docs/RELIABILITY.md: how it was tried, how often, and what came of it.
Counts come from the tests themselves (`record_property`; in Rust, lines that begin with `tried: `) and from libFuzzer,
results from their outcome; nothing is written by hand. The short profile takes minutes, the long one an hour. With
`--only` the other lines of the page stay, each with the commit that it was tried at.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import re
import shlex
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TESTS = ROOT / "tests" / "python"
PAGE = ROOT / "docs" / "RELIABILITY.md"
FUZZ = ("+nightly", "fuzz", "run")


@dataclass(frozen=True)
class Promise:
    """A line of the page: what must hold, and the Python tests (pytest's words), Rust tests and fuzz targets."""

    title: str
    python: tuple[str, ...] = ()
    rust: tuple[str, ...] = ()
    fuzz: tuple[str, ...] = ()


PROMISES = (
    Promise(
        "Parquet of many writers is read as pyarrow reads it, or refused with its place; what a file claims "
        "takes no memory",
        ("test_reading.py", "test_bad_input.py", "test_memory.py"),
        ("--test source reads_", "--test source rejects_", "--test source refuses_"),
    ),
    Promise(
        "A flipped bit or a cut file is an error, or the same text; page checksums are verified (not covered by them: "
        "how many rows a page's header claims, which may shift the names of rows behind it)",
        ("test_reading.py -k flipped", "test_quarantine.py"),
        ("--test source damage::",),
    ),
    Promise(
        "No bytes crash a reader: parquet, vocabularies, states, token files, conversations, documents to pack",
        fuzz=("shard", "vocabulary", "state", "token_file", "conversation", "packing"),
    ),
    Promise(
        "Ids are those of tiktoken and Hugging Face tokenizers and of the slow twins, for every Unicode scalar; "
        "long runs take time in proportion to their length",
        ("test_tokenizer.py", "test_tokenizer_files.py"),
        (
            "--test tokenizer encoding",
            "--test tokenizer splitting",
            "--test tokenizer merging",
            "--test tokenizer many",
        ),
        ("tokenizer",),
    ),
    Promise(
        "A resumed stream goes on with the very next token, also after SIGKILL, also on other ranks; "
        "what is torn or flipped is refused, and the one before it loads",
        ("test_resume.py test_elastic.py test_killed.py", "test_checkpoint.py test_survival.py"),
    ),
    Promise(
        "The stream is that of its definition, whatever the threads and the load",
        ("test_stream.py test_mixture.py test_giants.py",),
        ("--test packing", "--test loader"),
    ),
    Promise("All ranks end together (real gloo ranks)", ("test_epochs.py",)),
    Promise(
        "A loader ends at once, however it is left; a failure in any stage is raised with its place",
        ("test_life.py -k 'not stay_flat'",),
        ("--lib faults",),
    ),
    Promise("Memory and open files stay flat", ("test_life.py -k stay_flat",)),
    Promise(
        "A download that was accepted is right, whatever the server does",
        ("test_download.py test_download_command.py test_published.py",),
    ),
    Promise(
        "Nothing in a file is executed, nothing leaves its folder, hostile vocabularies are refused in bounded time "
        "and memory",
        (
            "test_bad_vocabularies.py",
            "test_audit.py",
            "test_published.py test_download.py -k 'leave_the_folder or climb or links'",
        ),
        ("--test tokenizer bad_files",),
    ),
)
NOT_RUN = (
    ("Copies to a GPU, with a delayed stream", "pytest tests/python/test_gpu.py, on a machine with CUDA"),
    ("All interleavings of the ring's slots (loom)", "scripts/model_ring.sh"),
    (
        "Leaks and races in Rust (address and thread sanitizer)",
        "scripts/sanitize.sh address; scripts/sanitize.sh thread",
    ),
    ("Known weaknesses of what we depend on", "cargo audit; pip-audit, where their databases can be reached"),
    ("Free-threaded Python; macOS; an Arm processor that is none of qemu's", "scripts/test_wheel.sh on such a machine"),
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
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-o",
            "junit_family=xunit1",
            f"--junitxml={report}",
            *shlex.split(words),
        ]
        code = subprocess.run(command, cwd=TESTS, check=False, stdout=subprocess.DEVNULL).returncode
        if code not in (0, 1) or not report.exists():  # 1: some failed, which the report names
            found.failures.append(f"pytest {words} ended with {code}")
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
    """Runs cargo test and takes outcomes and counts from what it prints."""
    command = ["cargo", "test", "--locked", *words.split(), "--", "--show-output"]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    results = re.findall(r"test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored.*?([\d.]+)s", done.stdout)
    for passed, failed, ignored, seconds in results:
        found.outcomes.update(passed=int(passed), failed=int(failed), skipped=int(ignored))
        found.seconds += float(seconds)
    for tried in re.findall(r"^tried: (.*)$", done.stdout, flags=re.MULTILINE):
        for count, what in re.findall(r"(\d+) ([^,]+)", tried):
            found.counts[what] += int(count)
    if not any(int(passed) for passed, *_ in results):
        found.failures.append(f"cargo test {words} ran nothing")
    if done.returncode != 0:
        found.failures += re.findall(r"^test (\S+) \.\.\. FAILED", done.stdout, flags=re.MULTILINE)


def run_fuzz(target: str, seconds: int, found: Found) -> None:
    """Lets libFuzzer look for a crash, a hang of 20 s or 2 GB from the seeds on, and counts what it tried."""
    with tempfile.TemporaryDirectory() as corpus:
        seeds = [str(path) for path in [ROOT / "fuzz" / "seeds" / target] if path.is_dir()]
        limits = [f"-max_total_time={seconds}", "-timeout=20", "-rss_limit_mb=2048", "-print_final_stats=1"]
        command = ["cargo", *FUZZ, target, corpus, *seeds, "--", *limits]
        done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    number = re.search(r"stat::number_of_executed_units: (\d+)", done.stderr)
    if number is None:
        found.failures.append(f"fuzzing {target} did not run")
        return
    found.counts["inputs made by a fuzzer"] += int(number[1])
    found.seconds += seconds
    if done.returncode != 0:
        said = re.findall(r"^(?:.*panicked at .*|.*ERROR: .*|SUMMARY: .*)$", done.stderr, flags=re.MULTILINE)
        found.failures.append(f"fuzzing {target}: {'; '.join(said[:2])}")
        print(done.stderr[-4000:], file=sys.stderr)


def line(number: int, promise: Promise, found: Found, fuzzed: bool, profile: str) -> str:
    """A row of the page's table."""
    counts = ", ".join(f"{count:,} {name}" for name, count in sorted(found.counts.items()))
    tests = f"{found.outcomes['passed']} tests passed" if found.outcomes else ""
    tests += f", {found.outcomes['skipped']} skipped" if found.outcomes["skipped"] else ""
    tried = "; ".join(filter(None, [tests, counts]))
    result = "held" if not found.failures else f"**failed**: {', '.join(found.failures)}"
    how = [*(f"pytest {words}" for words in promise.python), *(f"cargo test {words}" for words in promise.rust)]
    how += [f"cargo fuzz run {target}" for target in promise.fuzz if fuzzed]
    words = f"`{'; '.join(how)}` | {tried} | {result if tried or found.failures else 'not run'}"
    return f"| {number} | {promise.title} | {words} | {profile}, {commit()} |"


def commit() -> str:
    """The commit at hand, shortened; with a + where files differ from it."""
    command = ["git", "rev-parse", "--short=10", "HEAD"]
    name = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()
    command = ["git", "status", "--porcelain", "--", ".", f":!{PAGE.relative_to(ROOT)}"]
    changed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return name + "+" * bool(changed)


def can_fuzz() -> bool:
    """Whether cargo-fuzz and a nightly toolchain are there."""
    return subprocess.run(["cargo", *FUZZ[:2], "--version"], cwd=ROOT, check=False, capture_output=True).returncode == 0


def main() -> int:
    """Run, write the page, and say by the exit code whether all held."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--long", action="store_true", help="as many cases as `make test-long`")
    parser.add_argument(
        "--fuzz", type=int, metavar="SECONDS", help="a fuzz target (long: 120; needs cargo-fuzz, nightly)"
    )
    parser.add_argument("--only", type=int, nargs="+", metavar="NUMBER", help="these lines, and keep the others")
    arguments = parser.parse_args()
    if arguments.long:
        os.environ |= {"NANOFAST_TEST_LONG": "1", "PROPTEST_CASES": "4096"}
    seconds = arguments.fuzz if arguments.fuzz is not None else 120 * arguments.long
    if seconds and not can_fuzz():
        print("no fuzzing: it needs `cargo install cargo-fuzz` and `rustup toolchain install nightly`", file=sys.stderr)
        seconds = 0
    rows, failed, profile = kept_rows(), 0, "long" if arguments.long else "short"
    for number, promise in enumerate(PROMISES, start=1):
        if arguments.only and number not in arguments.only:
            continue
        if not (promise.python or promise.rust or seconds):
            continue  # a line of fuzzing alone
        found = Found()
        for words in promise.python:
            run_python(words, found)
        for words in promise.rust:
            run_rust(words, found)
        for target in promise.fuzz if seconds else ():
            run_fuzz(target, seconds, found)
        rows[number] = line(number, promise, found, bool(seconds), profile)
        failed += bool(found.failures)
        print(f"{rows[number]} ({found.seconds:.0f} s)", flush=True)
        write_page(rows)
    return 1 if failed else 0


def kept_rows() -> dict[int, str]:
    """The rows of the page that is there, by number."""
    text = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    return {int(row.split("|")[1]): row for row in text.splitlines() if re.match(r"\| \d+ \|", row)}


def unsafe_blocks() -> list[str]:
    """A row for each unsafe block and implementation: where it is, and the SAFETY note before it."""
    rows = []
    for path in sorted((ROOT / "rust" / "src").rglob("*.rs")):
        note: list[str] = []
        for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            words = text.strip()
            if words.startswith("// SAFETY"):
                note = [words.removeprefix("// SAFETY").lstrip(": ")]
            elif note and words.startswith("//"):
                note.append(words.lstrip("/ "))
            elif re.search(r"\bunsafe (\{|impl)", words):
                rows.append(f"| `{path.relative_to(ROOT)}:{number}` | {' '.join(note)} |")
                note = []
    return rows


def write_page(rows: dict[int, str]) -> None:
    """docs/RELIABILITY.md."""
    head = (
        f"# Reliability\n\nWritten by `scripts/reliability.py` on {datetime.date.today()}, Python "
        f"{platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores. Counts are "
        "those that the tests and libFuzzer reported.\n"
    )
    table = ["| | promise | how | how often | result | profile, commit |", "|---|---|---|---|---|---|"]
    table += [rows[number] for number in sorted(rows)]
    rest = ["| not run here | command |", "|---|---|", *(f"| {what} | `{how}` |" for what, how in NOT_RUN)]
    unsafe = ["## Unsafe blocks\n", "| where | why it is sound |", "|---|---|", *unsafe_blocks()]
    PAGE.write_text("\n".join([head, *table, "", *rest, "", *unsafe]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
