"""TokenLoader: raw parquet text in, batches of tokens out.

    Rust ring of slots ──▶ slot [B, T+1] int32 (torch's or numpy's memory, pinned for CUDA)
                             │ copy, then the slot is given back
                             ▼
                           inputs_BT int32, targets_BT int64 on the device; targets are -1 where nothing is learned

Shape legend: B rows a batch, T inputs a row, S slots of the ring. A token with its highest bit set is not learned as a
target. On CUDA batches are copied ahead on a stream of their own, and a slot is given back to Rust only when the
event behind its copy has completed. A batch that was handed over belongs to the caller.

Torch is imported when the first tensor is made, so that numpy and JAX users need none.
"""

from __future__ import annotations

import atexit
import json
import os
import weakref
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nanofast import _nanofast
from nanofast.errors import InvalidError, LoaderError, WrongTypeError

if TYPE_CHECKING:
    import torch

    from nanofast.tokenizer import Tokenizer

State = dict[str, Any]
Data = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]

ID_MASK = 0x7FFFFFFF
IGNORE = -1

_open_loaders: weakref.WeakSet[TokenLoader] = weakref.WeakSet()


class TokenLoader:
    """An iterator of `(inputs, targets)`: int32 `[B, T]` and int64 `[B, T]` on `device`.

    The sequence of batches is a function of the data, the tokenizer and the arguments up to `seed`; threads, ring and
    machine have no part in it. `state_dict()` describes the batch that was returned last; a loader that loads it goes
    on with the very next one.

    Args:
        data: a parquet file, a folder of them, a glob, or a list of these; shards are read in the order of their names
            (a list keeps its own).
        tokenizer: a `nanofast.Tokenizer`.
        batch_size: rows a batch, B.
        sequence_length: inputs a row, T.
        text_column: the column that holds the documents.
        split: "train" is all shards but the last, "val" the last; of a single shard, its last twentieth. None: all.
        packing: "concat", "best_fit" or "one_per_row".
        overflow: what best_fit does when nothing fits: "carry" (every token is trained), "crop" (nanochat), "pad".
        rank: this process. None: from the process group or torchrun's environment, else 0.
        world_size: number of processes. None: as for rank, else 1.
        lanes: streams that are packed apart; world sizes that divide it see the same rounds and can take over each
            other's state. None: 8 where the world size divides 8, else the world size.
        unit_documents: documents that a lane is dealt at a time; 0: whole row groups; None: chosen from the data.
        deal: "stream", or "per_file" (nanochat: row group i of every file goes to lane i mod lanes).
        shuffle: permute units within the epoch, and documents within a window.
        shuffle_window: documents that are permuted together.
        seed: of the permutations.
        epochs: passes over the data; None: for ever.
        bos_token: the special token before each document; None: the tokenizer's own.
        pad_id: the token that fills rows; None: BOS.
        device: where tensors go: "cpu" (None), "cuda", "cuda:1" or a torch.device.
        num_threads: native threads, a budget for reading, tokenizing and packing together; None: the cores that this
            process may use.
        num_slots: batches that the ring holds ready.
        memory_limit_bytes: text and tokens that may be held ahead of packing, about.

    Raises:
        nanofast.Error: each also the built-in that fits (FileNotFoundError, ValueError, TypeError, OSError …).
    """

    def __init__(
        self,
        data: Data,
        tokenizer: Tokenizer,
        batch_size: int,
        sequence_length: int,
        *,
        text_column: str = "text",
        split: str | None = None,
        packing: str = "best_fit",
        overflow: str = "carry",
        rank: int | None = None,
        world_size: int | None = None,
        lanes: int | None = None,
        unit_documents: int | None = None,
        deal: str = "stream",
        shuffle: bool = False,
        shuffle_window: int = 4096,
        seed: int = 0,
        epochs: int | None = None,
        bos_token: str | None = None,
        pad_id: int | None = None,
        device: str | torch.device | None = None,
        num_threads: int | None = None,
        num_slots: int = 4,
        memory_limit_bytes: int = 1 << 30,
    ) -> None:
        if rank is None or world_size is None:
            from nanofast import distributed

            found_rank, found_world_size = distributed.rank_and_world_size()
            rank = found_rank if rank is None else rank
            world_size = found_world_size if world_size is None else world_size
        if epochs is not None and world_size > 1:
            raise InvalidError(
                f"epochs = {epochs}: with world_size = {world_size} the ranks would end at different batches; "
                "use epochs=None and count steps"
            )
        if not hasattr(tokenizer, "_native"):
            raise WrongTypeError(f"tokenizer is {type(tokenizer).__name__}; expected a nanofast.Tokenizer")
        bos_id = _bos_id(tokenizer, bos_token)
        self._native = _nanofast.NativeLoader(
            _paths(data),
            tokenizer._native,
            text_column=text_column,
            split=split,
            batch_size=_count("batch_size", batch_size),
            sequence_length=_count("sequence_length", sequence_length),
            packing=packing,
            overflow=overflow,
            rank=_count("rank", rank, least=0),
            world_size=_count("world_size", world_size),
            lanes=None if lanes is None else _count("lanes", lanes),
            unit_documents=None if unit_documents is None else _count("unit_documents", unit_documents, least=0),
            deal=deal,
            shuffle=shuffle,
            shuffle_window=_count("shuffle_window", shuffle_window),
            seed=_count("seed", seed, least=0),
            epochs=None if epochs is None else _count("epochs", epochs),
            bos_id=bos_id,
            pad_id=bos_id if pad_id is None else _count("pad_id", pad_id, least=0),
            num_threads=_available_cores() if num_threads is None else _count("num_threads", num_threads),
            num_slots=_count("num_slots", num_slots, least=2),
            memory_limit_bytes=_count("memory_limit_bytes", memory_limit_bytes),
        )
        self.batch_size = batch_size
        self.sequence_length = sequence_length
        self.num_slots = num_slots
        self.rank = rank
        self.world_size = world_size
        self.tokenizer = tokenizer
        self.device = "cpu" if device is None else device
        self._identity: State | None = None
        self._slots: Any = None  # [S, B, T+1] int32, torch tensor or numpy array
        self._copies: _DeviceCopies | None = None
        self._lent: int | None = None  # sequence of the slot behind the last view without a copy
        self._fetched: deque[Any] = deque()
        self._closed = False

    # ---- batches -----------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return self

    def __next__(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The next `(inputs, targets)`; StopIteration behind the last epoch."""
        import torch

        if self._copies is None:
            self._copies = _DeviceCopies(self, torch.device(self.device))
        batch = self._copies.next()
        if batch is None:
            raise StopIteration
        return batch

    def numpy(self, copy: bool = True) -> Iterator[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
        """An iterator of numpy `(inputs int32 [B, T], targets [B, T])`, without torch.

        With `copy` targets are int64 and both belong to the caller. Without, both are int32 views of the ring's memory,
        valid until the next batch is asked for; a batch with targets that are not learned (-1) is copied all the same.
        """
        while True:
            self._give_back()
            fetched = self._fetch(None)
            if not fetched:
                return
            sequence, slot, width, _, masked = fetched
            self._native.accept()
            tokens_BC = self._numpy_slots()[slot][:, :width]
            if copy or masked:
                inputs_BT, targets_BT = tokens_BC[:, :-1] & ID_MASK, tokens_BC[:, 1:].astype(np.int64)
                if masked:
                    targets_BT[targets_BT < 0] = IGNORE
                self._native.release(sequence)
            else:
                inputs_BT, targets_BT = tokens_BC[:, :-1], tokens_BC[:, 1:]
                self._lent = sequence
            yield inputs_BT, targets_BT

    def _fetch(self, timeout_seconds: float | None) -> Any:
        if self._slots is None:
            self._lend_memory(np.zeros(self._slots_shape(), np.int32))
        _open_loaders.add(self)
        return self._native.fetch(timeout_seconds)

    def _give_back(self) -> None:
        if self._lent is not None:
            self._native.release(self._lent)
            self._lent = None

    def _slots_shape(self) -> tuple[int, int, int]:
        return self.num_slots, self.batch_size, self.sequence_length + 1

    def _lend_memory(self, slots: Any) -> None:
        address = slots.ctypes.data if isinstance(slots, np.ndarray) else slots.data_ptr()
        self._native.set_memory(address, self.num_slots * self._native.slot_len, slots)
        self._slots = slots
        if not _open_loaders:  # registering twice is harmless: closing is idempotent
            atexit.register(_close_all)

    def _numpy_slots(self) -> np.ndarray[Any, Any]:
        return self._slots if isinstance(self._slots, np.ndarray) else self._slots.numpy()

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
        self._native.restore(text)
        self._lent = None
        self._copies = None
        self._slots = None

    # ---- the rest ----------------------------------------------------------------------------------------------

    @property
    def lanes(self) -> int:
        """Number of lanes as resolved."""
        return self._native.lanes

    def metrics(self) -> dict[str, Any]:
        """Counters: the token `ledger` of delivered batches, seconds by stage, waits in `next()`.

        `ledger`: documents, bytes, read, learned, masked, bos, padding, cropped, carried, waiting (tokens).
        `tokens`: tokens tokenized so far, read-ahead included; `stage_seconds`: decode, tokenize, pack, idle, summed
        over threads; `wait_seconds`, `wait_p50_seconds`, `wait_p99_seconds`, `wait_max_seconds`: of `next()`;
        `bottleneck`: "consumer" when batches were there before they were asked for, else the busiest stage.
        """
        metrics = self._native.metrics()
        documents, num_bytes, tokens = metrics.pop("tokenized")
        metrics.update(documents=documents, bytes=num_bytes, tokens=tokens)
        ahead, shared = metrics.pop("held_bytes")
        metrics.update(read_ahead_bytes=ahead, shared_row_group_bytes=shared)
        rounds, turn = self._native.position()
        metrics.update(round=rounds, turn=turn)
        seconds = metrics["stage_seconds"]
        busy = {stage: seconds[stage] for stage in ("decode", "tokenize", "pack")}
        idle = seconds["idle"] > sum(busy.values())
        metrics["bottleneck"] = "consumer" if idle else max(busy, key=lambda stage: busy[stage])
        return metrics

    def close(self) -> None:
        """Ends every thread; a further `next()` is an error. Closing twice is fine."""
        self._closed = True
        self._native.close()
        self._lent = None
        self._copies = None
        self._slots = None
        _open_loaders.discard(self)

    def __enter__(self) -> TokenLoader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        units, documents, _ = self._native.plan
        return (
            f"TokenLoader(batch_size={self.batch_size}, sequence_length={self.sequence_length}, rank={self.rank} of "
            f"{self.world_size}, lanes={self.lanes}, {documents} documents in {units} units)"
        )


class _DeviceCopies:
    """Slots → tensors on a device, ahead of the consumer where the device copies by itself."""

    def __init__(self, loader: TokenLoader, device: torch.device) -> None:
        import torch

        self.torch = torch
        self.native = loader._native
        self.loader = loader
        self.device = device
        self.cuda = device.type == "cuda"
        if loader._slots is None:
            slots = torch.zeros(loader._slots_shape(), dtype=torch.int32, pin_memory=self.cuda)
            loader._lend_memory(slots)
        elif isinstance(loader._slots, np.ndarray):
            if self.cuda:
                raise LoaderError("numpy() was used on this loader: make another one for tensors on a GPU")
            loader._slots = torch.from_numpy(loader._slots)
        self.stream = torch.cuda.Stream(device) if self.cuda else None
        self.ready: deque[tuple[torch.Tensor, torch.cuda.Event, bool]] = deque()
        self.copying: deque[tuple[torch.cuda.Event, int]] = deque()
        self.ended = False

    def next(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        self.loader._give_back()
        return self.next_cuda() if self.cuda else self.next_cpu()

    def next_cpu(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        fetched = self.loader._fetch(None)
        if not fetched:
            return None
        sequence, slot, width, _, masked = fetched
        tokens_BC = self.loader._slots[slot][:, :width]
        if self.device.type != "cpu":
            tokens_BC = tokens_BC.to(self.device)
        batch = self.split(tokens_BC, masked)
        self.native.accept()
        self.native.release(sequence)  # the tensors are copies
        return batch

    def next_cuda(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        self.give_back()
        while not self.ended and len(self.ready) < max(1, self.loader.num_slots - 1):
            # Wait for the batch that is needed at once; take those behind it only if they are there already.
            fetched = self.loader._fetch(None if not self.ready else 0.0)
            if fetched is None:
                self.ended = True
            elif fetched is False:
                break
            else:
                self.copy(fetched)
            if len(self.copying) >= self.loader.num_slots - 1:
                break
        if not self.ready:
            return None
        tokens_BC, copied, masked = self.ready.popleft()
        stream = self.torch.cuda.current_stream(self.device)
        stream.wait_event(copied)
        tokens_BC.record_stream(stream)
        batch = self.split(tokens_BC, masked)
        self.native.accept()
        return batch

    def copy(self, fetched: tuple[int, int, int, int, bool]) -> None:
        sequence, slot, width, _, masked = fetched
        with self.torch.cuda.stream(self.stream):
            tokens_BC = self.loader._slots[slot].to(self.device, non_blocking=True)[:, :width]
            copied = self.torch.cuda.Event()
            copied.record(self.stream)
        self.ready.append((tokens_BC, copied, masked))
        self.copying.append((copied, sequence))

    def give_back(self) -> None:
        """Gives back the slots whose copies have completed; waits for one when Rust has none left to write."""
        while self.copying:
            copied, sequence = self.copying[0]
            if not copied.query():
                if len(self.copying) < self.loader.num_slots - 1:
                    return
                copied.synchronize()
            self.copying.popleft()
            self.native.release(sequence)

    def split(self, tokens_BC: torch.Tensor, masked: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and targets, shifted by one, both with memory of their own."""
        inputs_BT = tokens_BC[:, :-1].contiguous()
        if inputs_BT.data_ptr() == tokens_BC.data_ptr():
            inputs_BT = inputs_BT.clone()
        targets_BT = tokens_BC[:, 1:].to(self.torch.int64)
        if masked:
            inputs_BT &= ID_MASK
            targets_BT.masked_fill_(targets_BT < 0, IGNORE)
        return inputs_BT, targets_BT


def merge_states(states: Sequence[Mapping[str, Any]]) -> State:
    """The states of all ranks of one moment as one, which any world size that divides the lanes can load."""
    whole: State = json.loads(_nanofast.merge_states([json.dumps(state) for state in states]))
    whole["identity"] = states[0]["identity"]
    return whole


def _paths(data: Data) -> list[str]:
    if isinstance(data, str | os.PathLike):
        return [os.fspath(data)]
    if isinstance(data, Sequence):
        return [os.fspath(path) for path in data]
    raise WrongTypeError(f"data is {type(data).__name__}; expected a path, a glob, or a list of these")


def _count(field: str, value: int, least: int = 1) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise WrongTypeError(f"{field} = {value!r}: must be a whole number")
    if value < least:
        raise InvalidError(f"{field} = {value}: must be at least {least}")
    return value.__index__()


def _bos_id(tokenizer: Tokenizer, bos_token: str | None) -> int:
    if bos_token is not None:
        if bos_token not in tokenizer.special_tokens:
            names = ", ".join(f"`{name}`" for name in tokenizer.special_tokens) or "none"
            raise InvalidError(f"bos_token = `{bos_token}` is no special token of the tokenizer (has: {names})")
        return tokenizer.special_tokens[bos_token]
    if tokenizer.bos_id is None:
        raise InvalidError("the tokenizer declares no BOS; pass bos_token= with one of its special tokens")
    return tokenizer.bos_id


def _available_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _close_all() -> None:
    for loader in list(_open_loaders):
        loader.close()
