"""Finite epochs over several ranks: all end in the same round, and nobody waits for a collective that never comes.

    rank 0   rounds 0 … 12 surely have data, more may come     ─┐
    rank 1   rounds 0 … 9, and then no more                    ─┴─ gather ─▶ both may deliver rounds 0 … 12

Each rank tells how many rounds it is sure to have data for, and whether these are all. From the answers every rank
computes the same two numbers: the rounds that all may deliver (ranks without data give padding), and the round at which
the next exchange begins, half of the way. An exchange is a gather of three integers on a gloo group of its own, started
in the background, so its cost is spread over the rounds between and no collective of the training waits for it.

A restored loader begins a generation; an exchange that some ranks had begun before is answered and thrown away.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from nanofast.errors import InvalidError, LoaderError

if TYPE_CHECKING:
    from nanofast import _nanofast

LOCAL_WAIT_SECONDS = 0.05  # Python handles signals in between; too short costs CPU while data is read
POLL_SECONDS = (20e-6, 1e-3)  # first and longest sleep while others are waited for: a gather takes some 100 µs


class SharedEnd:
    """What the ranks have told each other. Making one is a collective: all ranks make theirs in the same order."""

    def __init__(self, native: _nanofast.NativeLoader, drop_last: bool) -> None:
        import torch.distributed as dist

        self._native = native
        self._drop_last = drop_last
        self._group: Any = dist.new_group(backend="gloo")
        self._granted = 0
        self._is_over = False
        self._generation = 0
        self._work: Any = None
        self._answers: Any = None
        self.restart()

    def restart(self) -> None:
        """Begins anew from the loader's position, which is the same round on every rank."""
        self._generation += 1
        self._granted, _ = self._native.position()  # rounds that may be delivered
        self._due = self._granted  # the round at which the next exchange begins
        self._is_over = False

    def allows(self, number: int, wait: bool) -> bool | None:
        """Whether round `number` is delivered; None when that is not known yet and `wait` is False."""
        while not self._is_over:
            if self._work is None and number >= self._due:
                if number < self._granted:
                    self._begin()
                elif wait:
                    self._begin_with_news()
            if number < self._granted:
                return True
            if self._work is None or not (wait or self._work.is_completed()):
                return None
            self._finish()
        return number < self._granted

    def _begin_with_news(self) -> None:
        while True:
            rounds, is_last = self._native.known_rounds(self._granted, LOCAL_WAIT_SECONDS)
            if rounds > self._granted or is_last:
                return self._begin()

    def _begin(self) -> None:
        import torch
        import torch.distributed as dist

        rounds, is_last = self._native.known_rounds(0, 0.0)
        mine = torch.tensor([self._generation, rounds, is_last], dtype=torch.int64)
        self._answers = [torch.empty_like(mine) for _ in range(dist.get_world_size(self._group))]
        self._work = dist.all_gather(self._answers, mine, group=self._group, async_op=True)

    def _finish(self) -> None:
        pause, longest = POLL_SECONDS
        try:
            while not self._work.is_completed():
                time.sleep(pause)
                pause = min(2 * pause, longest)
            self._work.wait()
        except RuntimeError as error:
            raise LoaderError(
                f"the ranks could not agree on the end of the epochs: another rank is gone ({error}); "
                "restart all ranks from the last checkpoint"
            ) from error
        self._work = None
        answers = [answer.tolist() for answer in self._answers]
        if any(generation > self._generation for generation, _, _ in answers):
            raise LoaderError(
                "another rank loaded a state, or was reconfigured, and this one was not; do it on all ranks alike"
            )
        if any(generation != self._generation for generation, _, _ in answers):
            self._due = self._granted  # another rank answered from before it was restored: ask again
            return
        rounds = [count for _, count, _ in answers]
        granted = max(self._granted, min(rounds) if self._drop_last else max(rounds))
        if self._drop_last:
            self._is_over = any(is_last and count <= granted for _, count, is_last in answers)
        else:
            self._is_over = all(is_last for _, _, is_last in answers)
        self._due = (self._granted + granted) // 2
        self._granted = granted
        self._native.grant(granted)


def require_group(epochs: int, world_size: int) -> None:
    """Refuses finite epochs over ranks that cannot talk to each other."""
    from nanofast import distributed

    if not distributed.is_connected():
        raise InvalidError(
            f"epochs = {epochs}: with world_size = {world_size} the ranks have to agree on the last batch, and there "
            "is no process group; call nanofast.distributed.connect() (or torch's init_process_group) first, or use "
            "epochs=None and count steps"
        )
    import torch.distributed as dist

    if dist.get_world_size() != world_size:
        raise InvalidError(
            f"epochs = {epochs}: world_size = {world_size} and the process group has {dist.get_world_size()} ranks; "
            "pass the group's size, or use epochs=None and count steps"
        )
