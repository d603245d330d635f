"""Flags of the benches: `pytest benches` measures, `pytest benches --smoke` runs each once on little data."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parent / "python"))
# The batches that a loader must give are computed by the tests' twin of the stream.
sys.path.append(str(Path(__file__).resolve().parent.parent / "tests" / "python"))

from results import Results

RESULTS = pytest.StashKey[Results]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("benches")
    group.addoption("--smoke", action="store_true", help="run each bench once, on little data")
    group.addoption("--vocabulary", action="append", help="bench this vocabulary only (may be given again)")
    group.addoption("--corpus", action="append", help="bench the tokenizer on this corpus only (may be given again)")
    group.addoption("--threads", action="append", type=int, help="bench the tokenizer with so many threads only")
    group.addoption("--tokenizers-pre", help="folder with a pre-release of Hugging Face tokenizers")
    group.addoption("--rounds", type=int, default=5, help="fresh processes of each contender (5)")


@pytest.fixture(scope="session")
def smoke(pytestconfig: pytest.Config) -> bool:
    return bool(pytestconfig.getoption("smoke"))


@pytest.fixture(scope="session")
def results(pytestconfig: pytest.Config) -> Results:
    """Where a bench puts its tables."""
    return pytestconfig.stash[RESULTS]


def pytest_configure(config: pytest.Config) -> None:
    config.stash[RESULTS] = Results(bool(config.getoption("smoke")))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    found = config.stash[RESULTS]
    if found.tables:
        terminalreporter.write_line(f"\n{found.text()}\n\nin {found.store()}.md, .csv and .json")


@pytest.fixture(scope="session")
def vocabularies(pytestconfig: pytest.Config) -> list[str] | None:
    """Those asked for; None: each bench's own."""
    asked: list[str] | None = pytestconfig.getoption("vocabulary")
    return asked


@pytest.fixture(scope="session")
def num_rounds(pytestconfig: pytest.Config, smoke: bool) -> int:
    return 1 if smoke else int(pytestconfig.getoption("rounds"))
