"""Loaders in processes of their own, to be interrupted, forked and left: python lives.py NAME DATA

Each prints what it saw; test_life.py reads it. None may hang, and what it prints is its only way to pass.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from itertools import islice
from pathlib import Path
from typing import Any

import nanofast


def make(data: str, **settings: Any) -> nanofast.TokenLoader:
    tokenizer = nanofast.Tokenizer.from_name("r50k_base")
    return nanofast.TokenLoader(
        data, tokenizer, **{"batch_size": 2, "sequence_length": 32, "num_threads": 2} | settings
    )


def waiting(data: str) -> nanofast.TokenLoader:
    """A loader whose next batch does not come for long: it must read a pipe that nobody writes to."""
    loader = make(data)
    Path(data).unlink()
    os.mkfifo(data)
    return loader


def interrupted_while_it_waits(data: str) -> None:
    loader = waiting(data)
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        next(loader.numpy())
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    os._exit(0)  # its thread still waits for the pipe, inside the system


def interrupted_while_it_reads(data: str) -> None:
    """Says when it begins, then reads for ever; Ctrl-C ends it as any Python program."""
    loader = make(data)
    print("reading", flush=True)
    for _ in loader.numpy(copy=False):
        pass


def terminated_while_it_waits(data: str) -> None:
    loader = waiting(data)
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
    next(loader.numpy())


def interrupted_again_and_again(data: str) -> None:
    """Signals at any moment: what is delivered is what an undisturbed loader delivers, none lost, none twice."""
    expected = [inputs.tolist() for (inputs, _), _ in zip(make(data).numpy(), range(3000), strict=False)]
    loader = make(data)
    batches: list[Any] = []
    count = 0
    done = armed = False

    def disturb() -> None:
        while not done:
            time.sleep(0.0007)
            os.kill(os.getpid(), signal.SIGUSR1)

    class DisturbedError(Exception):
        pass

    def handler(*_: object) -> None:
        nonlocal armed, count
        if armed:  # not again before the interruption has been caught
            armed = False
            count += 1
            raise DisturbedError

    tensors = "torch" in sys.argv
    if tensors:
        import torch  # noqa: F401  an import that is interrupted cannot be repeated
    signal.signal(signal.SIGUSR1, handler)
    thread = threading.Thread(target=disturb)
    thread.start()
    while not done:
        try:
            armed = True
            while len(batches) < len(expected):
                # one call of C fetches and stores: between two, Python may handle a signal and drop what was fetched
                batches.extend(islice(loader if tensors else loader.numpy(), 1))
            done = True
        except DisturbedError:
            pass
    armed = False
    thread.join()
    print("disturbed" if count > 5 else "undisturbed")
    print("same" if [inputs.tolist() for inputs, _ in batches] == expected else "different")


def forked_again_and_again(data: str) -> None:
    """sys.argv[3] children, each in the middle of a loader's life: every one raises, and the parent loses no batch."""
    loader, undisturbed = make(data), make(data)
    batches, expected = loader.numpy(), undisturbed.numpy()
    codes = set()
    for _ in range(int(sys.argv[3])):
        assert next(batches)[0].tolist() == next(expected)[0].tolist()
        child = os.fork()
        if child == 0:
            try:
                loader.metrics()
            except nanofast.Error:
                fresh = make(data)
                os._exit(7 if next(fresh.numpy())[0].size else 1)
            os._exit(1)
        codes.add(os.waitpid(child, 0)[1] >> 8)
    print("children", codes)


def left_to_the_interpreter(data: str) -> None:
    loader = make(data)
    next(loader.numpy())
    globals()["kept"] = loader
    print("leaving")


def left_in_a_cycle(data: str) -> None:
    loader = make(data)
    next(loader.numpy())
    cycle: list[Any] = [loader]
    cycle.append(cycle)
    print("leaving")


def left_by_exit(data: str) -> None:
    loader = make(data)
    next(loader.numpy())
    print("leaving", flush=True)
    os._exit(0)


def left_to_a_daemon_thread(data: str) -> None:
    loader = make(data)
    begun = threading.Event()

    def consume() -> None:
        for _ in loader.numpy():
            begun.set()

    threading.Thread(target=consume, daemon=True).start()
    begun.wait()
    print("leaving")


def left_by_an_exception(data: str) -> None:
    for _ in make(data).numpy():
        raise SystemExit("leaving")


def forked_after_start(data: str) -> None:
    loader = make(data)
    batches = loader.numpy()
    first = next(batches)[0].tolist()
    child = os.fork()
    if child == 0:
        said = []
        for use in (loader.numpy, iter):
            try:
                next(use() if use is not iter else loader)  # type: ignore[operator]
            except nanofast.Error as error:
                said.append("before a fork" in str(error))
        loader.close()
        del loader
        fresh = make(data)
        said.append(next(fresh.numpy())[0].tolist() == first)
        os.write(1, f"child {said}\n".encode())
        sys.exit(0)
    _, status = os.waitpid(child, 0)
    next(batches)
    print("parent", status)


def forked_while_another_thread_reads(data: str) -> None:
    loader = make(data)
    stop = threading.Event()

    def consume() -> None:
        for _ in loader.numpy():
            if stop.is_set():
                return

    thread = threading.Thread(target=consume)
    thread.start()
    for _ in range(20):
        time.sleep(0.005)
        child = os.fork()
        if child == 0:
            try:
                loader.metrics()
            except nanofast.Error:
                loader.close()
                os._exit(7)
            os._exit(1)
        assert os.waitpid(child, 0)[1] == 7 << 8
    stop.set()
    thread.join()
    print("parent")


def forked_before_start(data: str) -> None:
    loader = make(data)
    child = os.fork()
    inputs = next(loader.numpy())[0].tolist()
    if child == 0:
        os._exit(0 if inputs == next(make(data).numpy())[0].tolist() else 1)
    print("parent", os.waitpid(child, 0)[1])


if __name__ == "__main__":
    globals()[sys.argv[1]](sys.argv[2])
