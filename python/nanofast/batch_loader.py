"""What all loaders share once they are made: batches, states, metrics, the end.

    Rust ring of slots ──▶ slot [B, T+1] int32 (torch's or numpy's memory, pinned for CUDA)
                             │ copy, then the slot is given back
                             ▼
                           inputs_BT int32, targets_BT int64 on the device; targets are -1 where nothing is learned

Shape legend: B rows a batch, T inputs a row, S slots of the ring, C = T + 1. A token with its highest bit set is not
learned as a target. A batch that was handed over belongs to the caller; its slot is written again only after the caller
has asked for the next one (on CUDA: after the copy, see copies.py).

Torch is imported when the first tensor is made, so that numpy and JAX users need none.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from nanofast import _nanofast, distributed
from nanofast.documents import BatchDocuments, batch_documents
from nanofast.errors import InvalidError, LoaderError
from nanofast.loader_arguments import count
from nanofast.loader_metrics import bottleneck, shares
from nanofast.mixture import Mixture, checked_weights

if TYPE_CHECKING:
    import torch
    from typing_extensions import Self

    from nanofast.copies import DeviceCopies
    from nanofast.shared_end import SharedEnd

State = dict[str, Any]
Loader = TypeVar("Loader", bound="BatchLoader")

Arrays = tuple["np.ndarray[Any, Any]", "np.ndarray[Any, Any]"]
_log = logging.getLogger("nanofast")
_open_loaders: weakref.WeakSet[BatchLoader] = weakref.WeakSet()
_closes_at_exit = threading.Event()  # set once the handler is registered


class BatchLoader:
    """An iterator of `(inputs, targets)`: int32 `[B, T]` and int64 `[B, T]` on `device`.

    Subclasses make a native loader and hand it to `_hold`.
    """

    _end: SharedEnd | None

    def _hold(self, native: _nanofast.NativeLoader, arguments: dict[str, Any]) -> None:
        """Begins with a native loader that was made from `arguments`, which a copy of this one is made from too."""
        if "MALLOC_ARENA_MAX" not in os.environ:  # who set it knows better
            _nanofast.share_heaps()
        self._native = native
        self._arguments = arguments
        mixture = arguments.get("data")
        self.weights = dict(mixture.weights) if isinstance(mixture, Mixture) else None
        self.batch_size: int = arguments["batch_size"]
        self.sequence_length: int = arguments["sequence_length"]
        self.num_slots: int = arguments["num_slots"]
        self.rank: int = arguments["rank"]
        self.world_size: int = arguments["world_size"]
        self.device = "cpu" if arguments["device"] is None else arguments["device"]
        self.return_documents: bool = arguments.get("return_documents", False)
        self._files = tuple(native.shard_names()) if self.return_documents else ()
        self._closed = False
        self._is_in_worker = distributed.worker_and_count() is not None
        self._in_worker: BatchLoader | None = None
        self._identity: State | None = None
        self._slots: Any = None  # [S, B, T+1] int32, torch tensor or numpy array
        self._copies: DeviceCopies | None = None
        self._lock = threading.RLock()  # one thread at a time asks for a batch
        self._started: float | None = None
        self._seconds_copying = 0.0
        self._end = None
        _be_a_torch_dataset()

    # ---- batches -----------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Itself; in a DataLoader's worker that it was brought to, the loader of that worker's part."""
        worker = distributed.worker_and_count()
        if worker is None or self._is_in_worker:
            return self
        if self._in_worker is None:
            self._in_worker = self._part(*worker)
        return self._in_worker

    def __next__(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The next `(inputs, targets)`; StopIteration behind the last epoch."""
        copies = self._copies
        if copies is None:
            copies = self._device_copies()
        batch: tuple[torch.Tensor, torch.Tensor] | None = self._hand_over(copies.make)
        if batch is None:
            raise StopIteration
        return batch

    def numpy(self, copy: bool = True) -> Iterator[Arrays]:
        """An iterator of numpy `(inputs int32 [B, T], targets [B, T])`, without torch.

        With `copy` targets are int64 and both belong to the caller. Without, both are int32 views of the ring's memory,
        valid until the next batch is asked for; a batch with targets that are not learned (-1) is copied all the same.
        """

        def make(sequence: int) -> Arrays | None:
            fetched = self._fetch(sequence)
            if not fetched:
                return None
            _, slot, width, _, masked = fetched
            if copy or masked:
                return self._owned_arrays(fetched)
            tokens_BC = self._numpy_slots()[slot][:, :width]
            return tokens_BC[:, :-1], tokens_BC[:, 1:]

        while (batch := self._hand_over(make)) is not None:
            yield batch

    def _owned_arrays(self, fetched: Any) -> Arrays:
        """A fetched batch as inputs int32 and targets int64 with memory of their own, written in one pass."""
        start = time.perf_counter()
        shape = (self.batch_size, fetched[2] - 1)
        inputs_BT, targets_BT = np.empty(shape, np.int32), np.empty(shape, np.int64)
        self._native.split(fetched, inputs_BT, targets_BT)
        self._seconds_copying += time.perf_counter() - start
        return inputs_BT, targets_BT

    def _hand_over(self, make: Callable[[int], Any]) -> Any:
        """Makes the next batch and counts it as the caller's; not when the caller is interrupted on the way."""
        sequence = self._native.next_to_accept()  # after a fork this raises, before a lock that nobody would give back
        try:
            with self._lock:
                sequence = self._native.next_to_accept()
                batch = make(sequence)
                if batch is None:
                    return None
                if self.return_documents:
                    batch = (*batch, self._documents(sequence, batch[0]))
                self._native.accept()
                return batch
        except BaseException:
            self._native.take_back(sequence)
            raise

    def _documents(self, sequence: int, inputs_BT: Any) -> BatchDocuments:
        documents = batch_documents(self._native.origins(sequence), tuple(inputs_BT.shape), self._files)
        return documents if isinstance(inputs_BT, np.ndarray) else documents.to(inputs_BT.device)

    def _fetch(self, sequence: int, ahead: int = 0) -> Any:
        """Batch `sequence`: slot, width and more; None at the end. One that is `ahead` is not waited for (False)."""
        if self._started is None:
            self._started = time.monotonic()
        if self._slots is None:
            self._lend_memory(np.zeros(self._slots_shape(), np.int32))
        if ahead == 0 and sequence > 0 and (self._copies is None or not self._copies.cuda):
            self._native.release(sequence - 1)  # the caller is done with the slot of the batch before
        if self._end is not None:
            rounds, turn = self._native.position()
            number = rounds + (turn + ahead) // (self.lanes // self.world_size)
            allowed = self._end.allows(number, wait=ahead == 0)
            if not allowed:
                return None if allowed is False else False
        return self._native.fetch(sequence, 0.0 if ahead else None)

    def _slots_shape(self) -> tuple[int, int, int]:
        return self.num_slots, self.batch_size, self.sequence_length + 1

    def _lend_memory(self, slots: Any) -> None:
        address = slots.ctypes.data if isinstance(slots, np.ndarray) else slots.data_ptr()
        self._native.set_memory(address, self.num_slots * self.batch_size * (self.sequence_length + 1), slots)
        self._slots = slots
        _open_loaders.add(self)
        if not _closes_at_exit.is_set():
            _closes_at_exit.set()
            atexit.register(_close_all)

    def _numpy_slots(self) -> np.ndarray[Any, Any]:
        return self._slots if isinstance(self._slots, np.ndarray) else self._slots.numpy()

    def _pinned_slots(self) -> Any:
        """The ring's memory as a pinned tensor, lent to Rust where it has none yet."""
        import torch

        if self._slots is None:
            self._lend_memory(torch.zeros(self._slots_shape(), dtype=torch.int32, pin_memory=True))
        elif isinstance(self._slots, np.ndarray):
            raise LoaderError("numpy() was used on this loader: make another one for tensors on a GPU")
        return self._slots

    def _device_copies(self) -> DeviceCopies:
        try:
            import torch
        except ModuleNotFoundError:
            raise ModuleNotFoundError(
                "torch is not installed; loader.numpy() gives the same batches without it", name="torch"
            ) from None

        from nanofast.copies import DeviceCopies

        self._native.next_to_accept()  # after a fork, or when closed, there is nothing to copy
        if self._closed:
            self._native.fetch(0, 0.0)  # raises in words
        self._copies = DeviceCopies(self, torch.device(self.device))
        return self._copies

    # ---- state -------------------------------------------------------------------------------------------------

    def state_dict(self) -> State:
        """The state of the batch that was returned last, as a dict that JSON can hold. Takes microseconds."""
        state: State = json.loads(self._native.state_json())
        if self._identity is None:
            self._identity = json.loads(self._native.identity_json())
        state["identity"] = self._identity
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on behind the batch that `state` describes.

        Raises:
            ValueError: the state is damaged, or what must match does not; the loader is then as it was.
        """
        try:
            text = json.dumps(state)
        except (TypeError, ValueError) as error:
            raise InvalidError(f"cannot resume: this is no state of a loader ({error})") from error
        with self._lock:
            self._native.restore(text)
            self._begin_anew()
        if self.weights is not None and state["weights"] != list(self.weights.values()):
            self._log_weights(dict(zip(self.weights, state["weights"], strict=True)))
        shape = (state["batch_size"], state["sequence_length"])
        if shape != (self.batch_size, self.sequence_length):
            self._log_shape(shape)

    def reconfigure(
        self,
        *,
        batch_size: int | None = None,
        sequence_length: int | None = None,
        mixture: Mixture | Mapping[str, float] | None = None,
    ) -> None:
        """Other batches from here on: what was packed ahead is packed again, so no token is lost or repeated.

        `mixture` gives new weights for the sources of a mixture, by their names (of a `Mixture` its weights alone
        count); the counters of what was admitted begin anew. With several ranks all do it behind the same batch. The
        position goes to the log.

        Raises:
            ValueError: a value breaks its rule; the loader is then as it was.
        """
        before, weights_before = (self.batch_size, self.sequence_length), self.weights
        weights = self._wanted_weights(mixture)
        wanted_B = before[0] if batch_size is None else count("batch_size", batch_size)
        wanted_T = before[1] if sequence_length is None else count("sequence_length", sequence_length)
        with self._lock:
            self._native.reconfigure(wanted_B, wanted_T, None if weights is None else list(weights.values()))
            self.batch_size, self.sequence_length, self.weights = wanted_B, wanted_T, weights
            self._arguments |= {"batch_size": wanted_B, "sequence_length": wanted_T}
            if weights is not None:
                self._arguments["data"] = self._arguments["data"].with_weights(weights)
            self._begin_anew()
        if before != (wanted_B, wanted_T):
            self._log_shape(before)
        if weights_before is not None and weights != weights_before:
            self._log_weights(weights_before)

    def _wanted_weights(self, mixture: Mixture | Mapping[str, float] | None) -> dict[str, float] | None:
        if mixture is None:
            return self.weights
        if self.weights is None:
            raise InvalidError("mixture: this loader reads one data set; make one on a nanofast.Mixture")
        return checked_weights(mixture.weights if isinstance(mixture, Mixture) else mixture, list(self.weights))

    def _begin_anew(self) -> None:
        self._copies = None
        self._slots = None
        if self._end is not None:
            self._end.restart()

    def _log_shape(self, before: tuple[int, int]) -> None:
        rounds, turn = self._native.position()
        _log.info(
            "batches of %d x %d instead of %d x %d from round %d, batch %d on",
            *(self.batch_size, self.sequence_length, *before, rounds, turn),
        )

    def _log_weights(self, before: Mapping[str, float]) -> None:
        rounds, turn = self._native.position()
        _log.info("weights %s instead of %s from round %d, batch %d on", self.weights, before, rounds, turn)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (type(self), self._arguments, self.state_dict())

    def _part(self, worker: int, num_workers: int) -> Self:
        """What worker `worker` of `num_workers` of this rank has to deliver, from this loader's position on."""
        if str(self.device) != "cpu":
            raise InvalidError(
                f"device = {self.device}: in a DataLoader's worker tensors stay on the CPU; move them later"
            )
        state = self.state_dict()
        cores = max(1, distributed.own_cores() // num_workers)
        arguments = {**self._arguments, "num_threads": self._arguments["num_threads"] or cores, "lanes": self.lanes}
        arguments["rank"] = self.rank + worker * self.world_size
        arguments["world_size"] = self.world_size * num_workers
        return _restored(type(self), arguments, state)

    # ---- the rest ----------------------------------------------------------------------------------------------

    @property
    def lanes(self) -> int:
        """Number of lanes as resolved."""
        return self._native.lanes

    def metrics(self) -> dict[str, Any]:
        """Counters: the token `ledger` of delivered batches, seconds by stage, waits in `next()`.

        `ledger`: documents, bytes, read, learned, masked, bos, padding, cropped, carried, waiting (tokens).
        `tokens`: tokens tokenized so far, read-ahead included. `stage_seconds`: read, decode, tokenize, pack, ring_full
        (nothing to do, since every slot is full), idle (nothing to do otherwise), summed over threads, and copy, of the
        caller's thread. `wait_seconds`, `wait_p50_seconds`, `wait_p99_seconds`, `wait_max_seconds`: of `next()`.
        `tokens_per_second`: since the first `next()`. `cache_hit_rate`: the part of all pretokens that a cache of the
        tokenizer knew. `ready_batches`, `read_ahead_bytes`, `shared_row_group_bytes`: what lies in the queues.
        `memory`: `limit_bytes`; `used_bytes` of it at the moment and `peak_bytes` since the threads started, never more
        than the limit; `reserved_bytes`, of these, for the ring, the caches and what is asked of
        servers ahead (zeros for token files).
        `quarantine`: what was left out up to the last batch, each part with its file, row group, rows (first, behind
        the last) and reason. `shares`: for each source of a mixture the tokens admitted (BOS included) and trained, and
        what share of all sources' they are. `bottleneck`: the stage that kept batches from coming faster; "ring_full"
        when they were there before they were asked for.
        """
        metrics = self._native.metrics()
        documents, num_bytes, tokens = metrics.pop("tokenized")
        metrics.update(documents=documents, bytes=num_bytes, tokens=tokens)
        seconds_running = 0.0 if self._started is None else time.monotonic() - self._started
        metrics["tokens_per_second"] = tokens / seconds_running if seconds_running else 0.0
        metrics["shares"] = shares(list(self.weights or ()), metrics["shares"])
        rounds, turn = self._native.position()
        metrics.update(round=rounds, turn=turn)
        seconds = metrics["stage_seconds"]
        seconds["copy"] = self._seconds_copying
        metrics["bottleneck"] = bottleneck(seconds, seconds_running)
        return metrics

    def close(self) -> None:
        """Ends every thread; a further `next()` is an error. Closing twice is fine."""
        self._closed = True
        self._native.close()
        if self._in_worker is not None:
            self._in_worker.close()
        self._copies = None
        self._slots = None
        _open_loaders.discard(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        units, documents, _ = self._native.plan
        return (
            f"{type(self).__name__}(batch_size={self.batch_size}, sequence_length={self.sequence_length}, "
            f"rank={self.rank} of {self.world_size}, lanes={self.lanes}, {documents} documents in {units} units)"
        )


def merge_states(states: Sequence[Mapping[str, Any]]) -> State:
    """The states of all ranks of one moment as one, which any world size that divides the lanes can load."""
    # An identity names every shard: one that states share, as those of one checkpoint do, is written once.
    known = {id(state["identity"]) for state in states[:1] if isinstance(state, dict) and "identity" in state}
    apart = [
        {**state, "identity": None} if isinstance(state, dict) and id(state.get("identity")) in known else state
        for state in states[1:]
    ]
    whole: State = json.loads(_nanofast.merge_states([json.dumps(state) for state in (*states[:1], *apart)]))
    whole["identity"] = states[0]["identity"]
    return whole


def _restored(kind: type[Loader], arguments: dict[str, Any], state: State) -> Loader:
    loader = kind(**arguments)
    loader.load_state_dict(state)
    return loader


def _be_a_torch_dataset() -> None:
    """DataLoader takes what calls itself an IterableDataset; being one would mean to import torch."""
    data = sys.modules.get("torch.utils.data")
    if data is not None:
        data.IterableDataset.register(BatchLoader)


def _close_all() -> None:
    for loader in list(_open_loaders):
        loader.close()
