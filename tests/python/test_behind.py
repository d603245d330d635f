"""Calls behind the caller's thread: in order, all of them, and none behind one that failed."""

from __future__ import annotations

import threading
import time

import pytest

from nanofast.data.behind import Behind


def test_calls_are_done_in_order_on_another_thread():
    done, threads = [], set()
    with Behind(3) as behind:
        for number in range(100):
            behind.call(lambda number=number: (done.append(number), threads.add(threading.get_ident())))
    assert done == list(range(100))
    assert threads.isdisjoint({threading.get_ident()})
    assert len(threads) == 1


def test_no_more_wait_than_were_allowed():
    begun, gate = [], threading.Semaphore(0)

    def work(number: int) -> None:
        begun.append(number)
        gate.acquire()

    with Behind(2) as behind:
        behind.call(work, 0)
        behind.call(work, 1)
        gate.release()
        behind.call(work, 2)  # waits until the first is done
        assert begun[:2] == [0, 1] or begun == [0]
        gate.release(2)
    assert begun == [0, 1, 2]


@pytest.mark.parametrize("error", [OSError("full"), KeyboardInterrupt()])
def test_behind_one_that_fails_none_is_done(error: BaseException):
    done = []

    def work(number: int) -> None:
        if number == 5:
            raise error
        done.append(number)

    def all_of_it() -> None:
        with Behind(1000) as behind:
            for number in range(20):
                behind.call(work, number)

    with pytest.raises(type(error)):
        all_of_it()
    assert done == list(range(5))


def test_when_the_caller_fails_what_waits_is_left():
    done, begun, gate = [], threading.Event(), threading.Event()

    def work(number: int) -> None:
        begun.set()
        gate.wait()
        done.append(number)

    def open_when_over(behind: Behind) -> None:
        while not behind._is_over:
            time.sleep(0.001)
        gate.set()

    def all_of_it() -> None:
        with Behind(1000) as behind:
            for number in range(20):
                behind.call(work, number)
            begun.wait()
            threading.Thread(target=open_when_over, args=(behind,)).start()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        all_of_it()
    assert done == [0]
