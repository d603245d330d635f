"""nanochat's loaders by its names: change the import, keep the training script.

    from nanofast.compat.nanochat import tokenizing_distributed_data_loader_with_state_bos_bestfit

The batches are nanochat's own, one by one, on any number of ranks; only the state differs: it is exact. A loader that
is given it goes on with the very next batch, where nanochat drops its buffers and the rest of the row group. It is of
the batch that it came with: a loop that fetches a batch ahead keeps the state of the one that it trained last.

With several ranks the state that each of them gets is that of all, since nanochat's checkpoint keeps the first rank's
alone; so a loader that yields states gathers them over a gloo group, once a batch.

Rules, names and defaults after `nanochat/dataloader.py` of github.com/karpathy/nanochat.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nanofast import _nanofast, distributed
from nanofast.batch_loader import merge_states
from nanofast.errors import InvalidError, WrongTypeError
from nanofast.loader import TokenLoader
from nanofast.tokenizer import Tokenizer

if TYPE_CHECKING:
    import torch

Batch = tuple["torch.Tensor", "torch.Tensor"]
BatchAndState = tuple["torch.Tensor", "torch.Tensor", dict[str, Any]]

FORMAT = "nanofast.nanochat"
# nanochat's numbers, which are what `crop` is defined by.
BUFFER_DOCUMENTS = 1000
CHUNK_DOCUMENTS = 128


def tokenizing_distributed_data_loader_with_state_bos_bestfit(
    tokenizer: Any,
    B: int,
    T: int,
    split: str,
    tokenizer_threads: int = 4,
    tokenizer_batch_size: int = CHUNK_DOCUMENTS,
    device: str | torch.device = "cuda",
    resume_state_dict: Mapping[str, Any] | None = None,
    buffer_size: int = BUFFER_DOCUMENTS,
    *,
    data: str | os.PathLike[str] | None = None,
) -> Batches:
    """Yield `inputs, targets, state` for ever: rows that begin with BOS, filled by best fit, cropped where nothing
    fits.

    Args:
        tokenizer: nanochat's, a `tiktoken.Encoding`, whatever holds one of these, or a `nanofast.Tokenizer`.
        B: rows a batch.
        T: inputs a row.
        split: "train" is all shards but the last, "val" the last.
        tokenizer_threads: native threads, no more than this process has cores.
        tokenizer_batch_size: documents by which the buffer is refilled: 128.
        device: where both int64 tensors `[B, T]` go.
        resume_state_dict: a state that this function yielded; None begins anew.
        buffer_size: documents below which the buffer is refilled: 1000.
        data: the shards. None: `base_data_climbmix`, else `base_data`, in NANOCHAT_BASE_DIR (`~/.cache/nanochat`).

    Raises:
        ValueError: a rank without a row group, a state of nanochat's own or of other data, another buffer.
    """
    settings = {"tokenizer_batch_size": (tokenizer_batch_size, CHUNK_DOCUMENTS)}
    settings["buffer_size"] = (buffer_size, BUFFER_DOCUMENTS)
    for name, (found, expected) in settings.items():
        if found != expected:
            raise InvalidError(f"{name} = {found}: the batches are nanochat's with {expected} alone; leave it out")
    rule = {"packing": "best_fit", "overflow": "crop"}
    loader = _loader(tokenizer, (B, T), split, tokenizer_threads, device, resume_state_dict, data, rule)
    return Batches(loader, _rows)


def tokenizing_distributed_data_loader_bos_bestfit(*args: Any, **kwargs: Any) -> Iterator[Batch]:
    """As `tokenizing_distributed_data_loader_with_state_bos_bestfit`, without states."""
    return tokenizing_distributed_data_loader_with_state_bos_bestfit(*args, **kwargs).without_states()


def tokenizing_distributed_data_loader_with_state(
    tokenizer: Any,
    B: int,
    T: int,
    split: str,
    tokenizer_threads: int = 4,
    tokenizer_batch_size: int = CHUNK_DOCUMENTS,
    device: str | torch.device = "cuda",
    resume_state_dict: Mapping[str, Any] | None = None,
    *,
    data: str | os.PathLike[str] | None = None,
) -> Batches:
    """Yield `inputs, targets, state` for ever: one stream of documents, each behind a BOS, B · T + 1 tokens a batch.

    Batches share no token, so each loses one target: the first token of the next. (`TokenLoader` with "concat" does
    not; its batches are others.) `tokenizer_batch_size` is without effect. The rest: see the loader of best fit.
    """
    del tokenizer_batch_size
    # A row of T + 1 tokens shares its last with the next row; one of B · T + 2 leaves exactly nanochat's behind it.
    loader = _loader(
        tokenizer, (1, B * T + 1), split, tokenizer_threads, device, resume_state_dict, data, {"packing": "concat"}
    )
    return Batches(loader, functools.partial(_stretch, B, T))


def tokenizing_distributed_data_loader(*args: Any, **kwargs: Any) -> Iterator[Batch]:
    """As `tokenizing_distributed_data_loader_with_state`, without states."""
    return tokenizing_distributed_data_loader_with_state(*args, **kwargs).without_states()


class Batches:
    """What the functions with states return: an iterator of `inputs, targets, state`. Dropping it ends its threads."""

    def __init__(self, loader: TokenLoader, shaped: Callable[[torch.Tensor, torch.Tensor], Batch]) -> None:
        self._loader = loader
        self._shaped = shaped
        self._group: Any = None
        if loader.world_size > 1 and distributed.is_connected():
            import torch.distributed as dist

            self._group = dist.new_group(backend="gloo")

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> BatchAndState:
        inputs_BT, targets_BT = self._shaped(*next(self._loader))
        return inputs_BT, targets_BT, self._state()

    def without_states(self) -> Iterator[Batch]:
        """The batches alone: nothing is gathered."""
        for batch in self._loader:
            yield self._shaped(*batch)

    def _state(self) -> dict[str, Any]:
        own = self._loader.state_dict()
        identity = own.pop("identity")
        ranks = distributed.gather_objects(own, self._group) if self._group is not None else [own]
        return {"format": FORMAT, "identity": identity, "ranks": ranks}


def _rows(inputs_BT: torch.Tensor, targets_BT: torch.Tensor) -> Batch:
    return inputs_BT.long(), targets_BT


def _stretch(B: int, T: int, inputs_1N: torch.Tensor, _: torch.Tensor) -> Batch:
    """N = B · T + 1 tokens of the stream as rows."""
    tokens_N = inputs_1N[0].long()
    return tokens_N[:-1].view(B, T), tokens_N[1:].view(B, T)


def _loader(
    tokenizer: Any,
    sizes: tuple[int, int],
    split: str,
    num_threads: int,
    device: str | torch.device,
    state: Mapping[str, Any] | None,
    data: str | os.PathLike[str] | None,
    rule: dict[str, Any],
) -> TokenLoader:
    if split not in ("train", "val"):
        raise InvalidError(f"split = {split!r}: must be 'train' or 'val'")
    rank, world_size = distributed.rank_and_world_size()
    ours, bos_token = _tokenizer(tokenizer)
    states = None if state is None else _states(state)
    loader = TokenLoader(
        _data_folder() if data is None else data,
        ours,
        *sizes,
        split=split,
        rank=rank,
        world_size=world_size,
        # Row group i of every file goes to rank i mod world size; a run that moves to fewer ranks keeps its lanes.
        deal="per_file",
        unit_documents=0,
        lanes=world_size if states is None else states[0]["identity"]["lanes"],
        bos_token=bos_token,
        device=device,
        num_threads=max(1, min(num_threads, distributed.own_cores())),
        **rule,
    )
    if states is not None:
        own = [state for state in states if (state["rank"], state["world_size"]) == (rank, world_size)]
        loader.load_state_dict(own[0] if own else merge_states(states))
    return loader


def _states(state: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each rank's state."""
    if "pq_idx" in state or "rg_idx" in state:
        raise InvalidError(
            f"resume_state_dict is nanochat's own (file {state.get('pq_idx')}, row group {state.get('rg_idx')}): it "
            "does not say which documents were buffered, so no loader can go on exactly; begin anew with "
            "resume_state_dict=None, or end this run with nanochat's loader"
        )
    try:
        if state["format"] == FORMAT and state["ranks"] and state["identity"]["lanes"]:
            return [{**rank, "identity": state["identity"]} for rank in state["ranks"]]
    except (KeyError, TypeError):
        pass
    raise InvalidError(
        f"resume_state_dict is no state of this loader: expected the dict that came with a batch (format `{FORMAT}`)"
    )


def _tokenizer(found: Any) -> tuple[Tokenizer, str]:
    """nanofast's tokenizer for `found`, and its BOS: what `found` says it is, else the tokenizer's own."""
    ours = found if isinstance(found, Tokenizer) else _converted(_held(found))
    bos_id = found.get_bos_token_id() if hasattr(found, "get_bos_token_id") else ours.bos_id
    names = [name for name, number in ours.special_tokens.items() if number == bos_id]
    if not names:
        raise InvalidError(f"the tokenizer's BOS is {bos_id}, which is none of its special tokens")
    return ours, names[0]


def _held(found: Any) -> Any:
    """The `tiktoken.Encoding` or `tokenizers.Tokenizer` that `found` is or holds."""
    for candidate in (found, *getattr(found, "__dict__", {}).values()):
        if hasattr(candidate, "_mergeable_ranks") or (hasattr(candidate, "to_str") and hasattr(candidate, "get_vocab")):
            return candidate
    raise WrongTypeError(
        f"tokenizer is {type(found).__name__}; expected nanochat's, a tiktoken.Encoding, something that holds one, or "
        "a nanofast.Tokenizer"
    )


@functools.lru_cache(maxsize=4)
def _converted(theirs: Any) -> Tokenizer:
    """Kept, since nanochat makes a loader for each evaluation."""
    if hasattr(theirs, "_mergeable_ranks"):
        return Tokenizer.from_tiktoken(theirs)
    return Tokenizer(_nanofast.Tokenizer.from_json(theirs.to_str().encode(), type(theirs).__name__))


def _data_folder() -> Path:
    base = Path(os.environ.get("NANOCHAT_BASE_DIR") or "~/.cache/nanochat").expanduser()
    current, legacy = base / "base_data_climbmix", base / "base_data"
    return legacy if legacy.is_dir() and not current.is_dir() else current
