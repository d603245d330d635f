"""What all tests share: the profiles (fast by default, `NANOFAST_TEST_LONG=1` for many more cases) and places.

Tests marked `long` run only in the long profile. `shared_data` is optional real text beside the checkout; a test that
needs it skips where it is absent.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    import nanofast

IS_LONG = bool(os.environ.get("NANOFAST_TEST_LONG"))

# A shell that starts the tests in the background hands down that Ctrl-C is ignored, to the processes of tests as well.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The models of tests are so small that several threads of torch mostly wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Machines differ tenfold in speed, so no case has a deadline; an example that fails is printed, not stored.
settings.register_profile(
    "fast", max_examples=25, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("long", settings.get_profile("fast"), max_examples=1000)
settings.load_profile("long" if IS_LONG else "fast")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if IS_LONG:
        return
    skip = pytest.mark.skip(reason="runs in the long profile only (make test-long)")
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker(skip)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real text and files beside the checkout."""
    folder = Path(__file__).resolve().parents[3] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"needs the optional data in {folder}")
    return folder


@pytest.fixture(scope="session")
def chat_tokenizer() -> nanofast.Tokenizer:
    """r50k with the special tokens of nanochat's template."""
    from chat_twin import nanochat_tokenizer

    return nanochat_tokenizer()


@pytest.fixture(scope="module")
def home_aside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What a module's tests keep in NANOFAST_HOME lies in a place of this test run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NANOFAST_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="session")
def sample_corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(data folder, tokenizer.json) of the sample corpus, made once in a place of this test run."""
    from nanofast.data.sample import ensure_sample

    return ensure_sample(tmp_path_factory.mktemp("home"))
