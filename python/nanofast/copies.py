"""Slots of the ring → tensors on a device, ahead of the consumer where the device copies by itself.

    fetch(n) ──▶ slot ──▶ tokens_BC on the device ──▶ inputs_BT, targets_BT ──▶ accept

Every step can be repeated: a batch that was fetched is given again until it is accepted, and a slot can be given back
twice. So an exception between two lines (Ctrl-C) loses no batch and keeps no slot.

Invariant: on CUDA a slot goes back to Rust only when the event behind its copy has completed.
Shapes: B rows a batch, T inputs a row, C = T + 1 tokens; tokens of a narrower batch end earlier.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import torch

    from nanofast.batch_loader import BatchLoader

ID_MASK = 0x7FFFFFFF  # a token whose highest bit is set is not learned as a target
IGNORE = -1

Batch = tuple["torch.Tensor", "torch.Tensor"]


class Copied(NamedTuple):
    """A batch on its way to the device."""

    tokens_BC: torch.Tensor
    event: torch.cuda.Event
    masked: bool


class DeviceCopies:
    """The copies of one loader."""

    def __init__(self, loader: BatchLoader, device: torch.device) -> None:
        import torch

        self.torch = torch
        self.native = loader._native
        self.loader = loader
        self.device = device
        self.cuda = device.type == "cuda"
        self.slots: Any = loader._pinned_slots() if self.cuda else None
        self.stream = torch.cuda.Stream(device) if self.cuda else None  # type: ignore[no-untyped-call]
        self.ahead: dict[int, Copied] = {}  # by the number of the batch, oldest first
        self.copying: dict[int, torch.cuda.Event] = {}  # slots that are not given back yet

    def make(self, sequence: int) -> Batch | None:
        """The tensors of batch `sequence`; None behind the last one."""
        return self._make_on_cuda(sequence) if self.cuda else self._make_here(sequence)

    def _make_here(self, sequence: int) -> Batch | None:
        """On the CPU. torch's own copies would take its threads, which fight the loader's for the cores."""
        fetched = self.loader._fetch(sequence)
        if not fetched:
            return None
        inputs_BT, targets_BT = map(self.torch.from_numpy, self.loader._owned_arrays(fetched))
        if self.device.type != "cpu":
            return inputs_BT.to(self.device), targets_BT.to(self.device)
        return inputs_BT, targets_BT

    def _make_on_cuda(self, sequence: int) -> Batch | None:
        for done in [number for number in self.ahead if number < sequence]:
            del self.ahead[done]
        self._give_back()
        # One slot at least stays with Rust. Wait for the batch that is needed at once; take those behind it only if
        # they are there already.
        for number in range(sequence, sequence + max(1, self.loader.num_slots - 1)):
            if number in self.ahead:
                continue
            if len(self.copying) >= self.loader.num_slots - 1 and number > sequence:
                break
            fetched = self.loader._fetch(number, ahead=number - sequence)
            if not fetched:
                break
            self._copy(number, fetched)
        if sequence not in self.ahead:
            return None
        tokens_BC, copied, masked = self.ahead[sequence]
        stream = self.torch.cuda.current_stream(self.device)
        stream.wait_event(copied)
        tokens_BC.record_stream(stream)
        return self._split(tokens_BC, masked)

    def _copy(self, sequence: int, fetched: Any) -> None:
        _, slot, width, _, masked = fetched
        with self.torch.cuda.stream(self.stream):
            tokens_BC = self.slots[slot].to(self.device, non_blocking=True)[:, :width]
            copied = self.torch.cuda.Event()  # type: ignore[no-untyped-call]
            copied.record(self.stream)
        self.copying[sequence] = copied
        self.ahead[sequence] = Copied(tokens_BC, copied, masked)

    def _give_back(self) -> None:
        """Gives back the slots whose copies have completed; waits for one when Rust has none left to write."""
        for sequence, copied in list(self.copying.items()):
            if not copied.query():  # type: ignore[no-untyped-call]
                if len(self.copying) < self.loader.num_slots - 1:
                    return
                copied.synchronize()
            self.native.release(sequence)
            del self.copying[sequence]

    def _split(self, tokens_BC: torch.Tensor, masked: bool) -> Batch:
        """Inputs and targets, shifted by one, both with memory of their own."""
        inputs_BT = tokens_BC[:, :-1].contiguous()
        if inputs_BT.data_ptr() == tokens_BC.data_ptr():
            inputs_BT = inputs_BT.clone()
        targets_BT = tokens_BC[:, 1:].to(self.torch.int64)
        if masked:
            inputs_BT &= ID_MASK
            targets_BT.masked_fill_(targets_BT < 0, IGNORE)
        return inputs_BT, targets_BT
