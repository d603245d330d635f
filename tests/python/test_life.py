"""A loader ends cleanly, however it ends: nothing hangs, and no thread, file or memory stays behind."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nanofast
from conftest import IS_LONG
from memory_parts import least_memory
from shards import random_texts, write_shards

HANGS_AFTER = 60  # seconds; only guards against waiting for ever


@pytest.fixture(scope="module")
def tokenizer() -> nanofast.Tokenizer:
    return nanofast.Tokenizer.from_name("r50k_base")


@pytest.fixture
def data(tmp_path: Path) -> str:
    return write_shards(tmp_path, random_texts(1, [[100, 100]]))[0]


def num_threads() -> int:
    return sum(1 for _ in Path("/proc/self/task").iterdir())


def num_open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def open_files() -> set[str]:
    found = set()
    for place in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.add(str(place.readlink()))
    return found


@contextlib.contextmanager
def leaves_nothing(data: str) -> Iterator[None]:
    """No thread more than before, and no open file of the data."""
    gc.collect()
    before = num_threads()
    yield
    gc.collect()
    deadline = time.monotonic() + HANGS_AFTER  # a joined thread leaves /proc a moment later
    while num_threads() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert num_threads() == before
    assert data not in open_files()


@pytest.fixture
def make(data: str, tokenizer: nanofast.Tokenizer) -> Callable[..., nanofast.TokenLoader]:
    def maker(**settings: Any) -> nanofast.TokenLoader:
        return nanofast.TokenLoader(
            data, tokenizer, **{"batch_size": 2, "sequence_length": 32, "num_threads": 3} | settings
        )

    return maker


Make = Callable[..., nanofast.TokenLoader]


def test_threads_start_with_the_first_batch_and_end_with_close(make: Make, data: str) -> None:
    with leaves_nothing(data):
        before = num_threads()
        loader = make()
        loader.state_dict()
        assert num_threads() == before
        next(loader.numpy())
        assert num_threads() == before + 3
        loader.close()


@pytest.mark.parametrize("reads", [0, 1, 5])
def test_left_in_many_ways(make: Make, data: str, reads: int) -> None:
    def read(loader: nanofast.TokenLoader) -> None:
        assert sum(1 for _ in itertools.islice(loader.numpy(), reads)) == reads

    with leaves_nothing(data):  # close, twice
        loader = make()
        read(loader)
        loader.close()
        loader.close()
    with leaves_nothing(data), make() as loader:  # with
        read(loader)
    with leaves_nothing(data):  # del
        loader = make()
        read(loader)
        del loader
    with leaves_nothing(data):  # a cycle
        cycle: list[Any] = [make()]
        cycle.append(cycle)
        read(cycle[0])
        del cycle
    with leaves_nothing(data), contextlib.suppress(ZeroDivisionError), make() as loader:  # an exception
        read(loader)
        _ = 1 / 0
    with leaves_nothing(data):  # break, with an iterator left half way
        loader = make()
        batches = loader.numpy(copy=False)
        for number, _ in enumerate(batches):
            if number >= reads:
                break
        del batches, loader


def test_a_slow_consumer_gets_the_same_batches(make: Make) -> None:
    with make(num_slots=2) as slow, make() as fast:
        for (left, _), (right, _) in itertools.islice(zip(slow.numpy(), fast.numpy(), strict=True), 20):
            time.sleep(0.005)
            np.testing.assert_array_equal(left, right)


def test_batches_that_were_handed_over_are_the_callers(make: Make) -> None:
    torch = pytest.importorskip("torch")
    with make(num_slots=2) as loader, make() as again:
        kept = list(itertools.islice(loader, 100))
        expected = [(inputs, targets) for inputs, targets in itertools.islice(again.numpy(), 100)]
    del loader, again
    gc.collect()
    for (inputs, targets), (inputs_again, targets_again) in zip(kept, expected, strict=True):
        assert torch.equal(inputs, torch.from_numpy(inputs_again))
        assert torch.equal(targets, torch.from_numpy(targets_again))


def test_two_loaders_take_turns(make: Make, data: str) -> None:
    with leaves_nothing(data), make(seed=1, shuffle=True) as one, make(seed=2, shuffle=True) as other:
        with make(seed=1, shuffle=True) as again:
            alone = [inputs for inputs, _ in itertools.islice(again.numpy(), 20)]
        pairs = zip(one.numpy(), other.numpy(), strict=True)
        together = list(itertools.islice(pairs, 20))
        assert all(np.array_equal(pair[0][0], inputs) for pair, inputs in zip(together, alone, strict=True))
        assert any(not np.array_equal(pair[0][0], pair[1][0]) for pair in together)


def test_used_from_another_thread_and_closed_from_a_third(make: Make, data: str) -> None:
    with leaves_nothing(data):
        loader = make()
        seen: list[Any] = []

        def consume() -> None:
            try:
                for inputs, _ in loader.numpy():
                    seen.append(inputs.shape)
            except nanofast.Error as error:
                seen.append(str(error))

        thread = threading.Thread(target=consume)
        thread.start()
        while not seen:
            time.sleep(0.001)
        assert loader.metrics()["ledger"]["learned"] > 0
        loader.close()
        thread.join(HANGS_AFTER)
        assert not thread.is_alive()
        assert "closed" in seen[-1]


def test_several_threads_share_one_loader(make: Make) -> None:
    with make() as alone:
        expected = [inputs.tobytes() for inputs, _ in itertools.islice(alone.numpy(), 200)]
    with make() as loader:
        parts: list[list[bytes]] = [[], [], [], []]

        def consume(part: list[bytes]) -> None:
            for inputs, _ in itertools.islice(loader.numpy(), 50):
                part.append(inputs.tobytes())

        threads = [threading.Thread(target=consume, args=(part,)) for part in parts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(HANGS_AFTER)
    assert sorted(itertools.chain(*parts)) == sorted(expected)


def test_closed_while_it_waits_for_a_batch(make: Make, data: str) -> None:
    loader = make()
    Path(data).unlink()
    os.mkfifo(data)  # reading it waits for a writer
    errors: list[str] = []

    def consume() -> None:
        try:
            next(loader.numpy())
        except nanofast.Error as error:
            errors.append(str(error))

    thread = threading.Thread(target=consume)
    thread.start()
    time.sleep(0.2)
    closing = threading.Thread(target=loader.close)
    closing.start()
    thread.join(HANGS_AFTER)  # learns of it at once, while close() still waits for those that read
    deadline = time.monotonic() + HANGS_AFTER
    while closing.is_alive() and time.monotonic() < deadline:  # opening and closing the pipe lets these go
        with contextlib.suppress(OSError):
            os.close(os.open(data, os.O_WRONLY | os.O_NONBLOCK))
        time.sleep(0.01)
    assert not thread.is_alive()
    assert not closing.is_alive()
    assert "closed" in errors[0]


def memory_kib() -> int:
    """Of this process alone: pages of its files come and go as the system likes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("RssAnon", "VmSwap")))


@pytest.mark.timeout(3600)
def test_memory_and_files_stay_flat_over_many_loaders(
    make: Make, data: str, tokenizer: nanofast.Tokenizer, record_property: Callable[[str, object], None]
) -> None:
    """200 loaders (10,000 in the long profile) made, read for 0 to 5 batches and dropped."""
    count = 10_000 if IS_LONG else 200
    record_property("loaders", count)
    # Encoders go back to the tokenizer and stay, one for each thread that ever worked beside others: with this limit
    # they take some 3 MB each. (Without, one more or less of them is 30 to 50 MB between one run and another.)
    limit = least_memory(data, tokenizer, 2, 32, num_threads=3)
    with leaves_nothing(data):
        for number in range(count):
            loader = make(num_threads=1 + number % 3, memory_limit_bytes=limit)
            for _ in itertools.islice(loader.numpy(), number % 6):
                pass
            if number % 2:
                loader.close()
            if number == count // 2:
                del loader
                gc.collect()
                half, files = memory_kib(), num_open_files()
        del loader
        gc.collect()
        assert num_open_files() <= files
        # A ring and the texts of one loader take about 1 MB: 100 would show.
        assert memory_kib() - half < 12_000


def test_memory_and_files_stay_flat_over_many_batches_and_epochs(
    make: Make, record_property: Callable[[str, object], None]
) -> None:
    """From a tenth of 10,000 batches (of 100,000 in the long profile) to all of them: some 150 epochs (1,500)."""
    count = 100_000 if IS_LONG else 10_000
    record_property("batches", count)
    with make(num_threads=2, shuffle=True) as loader:
        batches = loader.numpy(copy=False)
        for _ in itertools.islice(batches, count // 10):
            pass
        early, files = memory_kib(), num_open_files()
        for _ in itertools.islice(batches, count - count // 10):
            pass
        assert num_open_files() <= files + 2  # each thread may have a shard open
        record_property("KiB grown from a tenth of these to all", memory_kib() - early)
        assert memory_kib() - early < 4_000  # 1 byte a token would be 600 KB (6 MB), a state a batch 9 MB


# ---- in processes of their own -------------------------------------------------------------------------------------


def live(name: str, data: str, *words: str, returncode: int = 0) -> str:
    command = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("lives.py")), name, data, *words]
    found = subprocess.run(command, capture_output=True, text=True, timeout=HANGS_AFTER, check=False)
    assert found.returncode == returncode, found.stderr
    return found.stdout


def test_ctrl_c_while_waiting(data: str) -> None:
    assert live("interrupted_while_it_waits", data) == "interrupted\n"


def test_sigterm_while_waiting(data: str) -> None:
    live("terminated_while_it_waits", data, returncode=-signal.SIGTERM)


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_signals_at_any_moment_lose_no_batch(data: str, kind: str) -> None:
    assert live("interrupted_again_and_again", data, kind) == "disturbed\nsame\n"


def test_ctrl_c_at_any_moment_ends_the_process(data: str, record_property: Callable[[str, object], None]) -> None:
    count = 200 if IS_LONG else 5
    record_property("interrupts", count)
    moments = random.Random(4)
    command = [sys.executable, str(Path(__file__).with_name("lives.py")), "interrupted_while_it_reads", data]
    slowest = 0.0
    for _ in range(count):
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout and process.stderr
            assert process.stdout.readline() == "reading\n"
            time.sleep(moments.random() * 0.05)
            process.send_signal(signal.SIGINT)
            begun = time.monotonic()
            said = process.stderr.read()
            assert process.wait(HANGS_AFTER) == -signal.SIGINT
            slowest = max(slowest, time.monotonic() - begun)
            assert said.endswith("KeyboardInterrupt\n"), said
    record_property("milliseconds at most until an interrupted process was gone", round(1000 * slowest))


@pytest.mark.parametrize("name", ["to_the_interpreter", "in_a_cycle", "by_exit", "to_a_daemon_thread"])
def test_the_interpreter_ends_with_a_live_loader(data: str, name: str) -> None:
    assert live(f"left_{name}", data) == "leaving\n"


def test_an_exception_ends_the_process(data: str) -> None:
    live("left_by_an_exception", data, returncode=1)


def test_a_fork_after_start_raises_in_the_child_at_once(data: str) -> None:
    assert live("forked_after_start", data) == "child [True, True, True]\nparent 0\n"


def test_a_fork_while_another_thread_reads(data: str) -> None:
    assert live("forked_while_another_thread_reads", data) == "parent\n"


def test_a_fork_before_start_works_on_both_sides(data: str) -> None:
    assert live("forked_before_start", data) == "parent 0\n"


def test_forks_again_and_again(data: str, record_property: Callable[[str, object], None]) -> None:
    count = 200 if IS_LONG else 10
    record_property("forks", count)
    assert live("forked_again_and_again", data, str(count)) == "children {7}\n"


def test_without_torch_numpy_gives_the_batches_and_says_so(data: str) -> None:
    code = (
        "import sys\n"
        "class NoTorch:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'torch': raise ModuleNotFoundError('no torch here', name='torch')\n"
        "sys.meta_path.insert(0, NoTorch())\n"
        "import nanofast\n"
        "tokenizer = nanofast.Tokenizer.from_name('r50k_base')\n"
        "with nanofast.TokenLoader(sys.argv[1], tokenizer, 2, 8) as loader:\n"
        "    inputs, targets = next(loader.numpy())\n"
        "    print(inputs.dtype, inputs.shape, targets.dtype, targets.shape)\n"
        "with nanofast.TokenLoader(sys.argv[1], tokenizer, 2, 8) as loader:\n"
        "    try: next(loader)\n"
        "    except ModuleNotFoundError as error: print(error)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code, data], env=environment, capture_output=True, text=True, timeout=HANGS_AFTER
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "int32 (2, 8) int64 (2, 8)",
        "torch is not installed; loader.numpy() gives the same batches without it",
    ]
