"""TokenLoader: raw parquet text in, batches of tokens out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nanofast import _nanofast, distributed
from nanofast.batch_loader import BatchLoader
from nanofast.documents import Excluded, document_names
from nanofast.errors import InvalidError, WrongTypeError
from nanofast.loader_arguments import bos_id as own_bos_id
from nanofast.loader_arguments import count, paths_of, place_among_all
from nanofast.mixture import Data, Mixture
from nanofast.remote import Remote, remote_json

if TYPE_CHECKING:
    import torch

    from nanofast.tokenizer import Tokenizer


class TokenLoader(BatchLoader):
    """An iterator of `(inputs, targets)`: int32 `[B, T]` and int64 `[B, T]` on `device`.

    The sequence of batches is a function of the data, the tokenizer and the arguments up to `seed`; threads, ring and
    machine have no part in it. `state_dict()` describes the batch that was returned last; a loader that loads it goes
    on with the very next one.

    Args:
        data: a parquet file, a folder of them, a glob, a URL (s3, gs, az, http, https, hf), or a list of these; shards
            are read in the order of their names (a list keeps its own). Or a `nanofast.Mixture` of several such data
            sets.
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
        epochs: passes over the data; None: for ever. Over several ranks it takes a process group (making the loader is
            then a collective, and so is `next()` now and then), and all ranks yield the same number of batches.
        drop_last: with epochs, end with the shortest lane; else with the longest, the others giving padding.
        bos_token: the special token before each document; None: the tokenizer's own.
        pad_id: the token that fills rows; None: BOS.
        device: where tensors go: "cpu" (None), "cuda", "cuda:1" or a torch.device.
        num_threads: native threads, a budget for reading, tokenizing and packing together; None: the cores that this
            process may use, shared with the ranks beside it.
        num_slots: batches that the ring holds ready.
        memory_limit_bytes: what the loader may hold at any moment, 1 GiB by default: the ring, its threads' caches of
            the tokenizer (48 MiB each, less where that is more than half of what is left), pages, texts, tokens, what
            is asked of servers ahead, and the documents that wait for a row. The batches are the same at every limit.
            One that cannot do by what the footers tell is refused with the least that does; a page or a document that
            is larger than they let expect is a MemoryError of `next()`, with the number that would do. Beside it come
            batches that were handed over or copied to a device, footers, the tokenizer's own tables, and some 64 MB at
            most for stacks, fragments and what is too small to count.
        on_bad_data: "raise" an error that names file, row group, row and reason; "quarantine" leaves out the smallest
            part that is bad (a document; a page's rows; the rest of a row group; a file), keeps all else where it is,
            and lists it in `metrics()` and in the state.
        invalid_utf8: "refuse" takes a document that is not UTF-8 for bad data; "replace" puts U+FFFD where it is not.
        exclude: documents that are left out, all others keeping their order: names as "FILE:ROW_GROUP:ROW" or as (file,
            row group, row), or a file with one on each line. A loader that resumes leaves them out from there on, those
            excepted that already wait for a row.
        return_documents: batches are `(inputs, targets, documents)` with a `nanofast.documents.BatchDocuments`: what
            lies where, for attention within documents, and where it came from.
        remote: how URLs are read: cache folder, time-outs. None: `nanofast.Remote()`.

    A loader pickles: the copy is at the same position. Inside the workers of `torch.utils.data.DataLoader(loader,
    batch_size=None, num_workers=n)` (import torch before making the loader) worker w of n on rank r of W is rank
    r + w·W of W·n, and the batches come in the order that they have without workers.

    Raises:
        nanofast.Error: each also the built-in that fits (FileNotFoundError, ValueError, TypeError, OSError …).
    """

    _chat_json: str | None = None  # how conversations are read and rendered; None: the documents are texts

    def __init__(
        self,
        data: Data | Mixture,
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
        drop_last: bool = False,
        bos_token: str | None = None,
        pad_id: int | None = None,
        device: str | torch.device | None = None,
        num_threads: int | None = None,
        num_slots: int = 4,
        memory_limit_bytes: int = 1 << 30,
        on_bad_data: str = "raise",
        invalid_utf8: str = "refuse",
        exclude: Excluded | None = None,
        return_documents: bool = False,
        remote: Remote | None = None,
    ) -> None:
        arguments = {name: value for name, value in locals().items() if name != "self"}
        mixture = data if isinstance(data, Mixture) else None
        sources: dict[str, Data] = {}
        if isinstance(data, Mixture):
            sources = {name: source for name, (source, _) in data.sources.items()}
        else:
            sources = {"": data}
        if mixture is not None and mixture.run_out != "repeat" and epochs is None:
            epochs = 1
        worker = distributed.worker_and_count()
        rank, world_size = place_among_all(rank, world_size, worker)
        shares_end = epochs is not None and world_size > (1 if worker is None else worker[1])
        if shares_end and epochs is not None:
            if worker is not None:
                raise InvalidError(
                    f"epochs = {epochs}: DataLoader workers of several ranks cannot agree on the last batch; use the "
                    "loader without workers (it reads ahead by itself), or epochs=None and count steps"
                )
            from nanofast.shared_end import require_group

            require_group(epochs, world_size)
        if not hasattr(tokenizer, "_native"):
            raise WrongTypeError(f"tokenizer is {type(tokenizer).__name__}; expected a nanofast.Tokenizer")
        bos_id, pad_id = self._bos_and_pad(tokenizer, bos_token, pad_id)
        paths = {name: paths_of(source) for name, source in sources.items()}
        native = _nanofast.open_loader(
            [*paths.items()],
            tokenizer._native,
            text_column=text_column,
            split=split,
            batch_size=count("batch_size", batch_size),
            sequence_length=count("sequence_length", sequence_length),
            packing=packing,
            overflow=overflow,
            rank=count("rank", rank, least=0),
            world_size=count("world_size", world_size),
            lanes=None if lanes is None else count("lanes", lanes),
            unit_documents=None if unit_documents is None else count("unit_documents", unit_documents, least=0),
            deal=deal,
            shuffle=shuffle,
            shuffle_window=count("shuffle_window", shuffle_window),
            seed=count("seed", seed, least=0),
            epochs=None if epochs is None else count("epochs", epochs),
            drop_last=drop_last,
            shares_end=shares_end,
            bos_id=bos_id,
            pad_id=count("pad_id", pad_id, least=0),
            num_threads=distributed.own_cores() if num_threads is None else count("num_threads", num_threads),
            num_slots=count("num_slots", num_slots, least=2),
            memory_limit_bytes=count("memory_limit_bytes", memory_limit_bytes),
            on_bad_data=on_bad_data,
            invalid_utf8=invalid_utf8,
            exclude=document_names(exclude),
            return_documents=return_documents,
            weights=None if mixture is None else list(mixture.weights.values()),
            run_out="repeat" if mixture is None else mixture.run_out,
            chat_json=self._chat_json,
            remote_json=remote_json([path for source in paths.values() for path in source], remote),
        )
        self.tokenizer = tokenizer
        self._hold(native, {**arguments, "rank": rank, "world_size": world_size})
        if shares_end:
            from nanofast.shared_end import SharedEnd

            self._end = SharedEnd(self._native, drop_last)

    def _bos_and_pad(self, tokenizer: Tokenizer, bos_token: str | None, pad_id: int | None) -> tuple[int, int]:
        """The token before each document, and the one that fills rows."""
        bos_id = own_bos_id(tokenizer, bos_token)
        return bos_id, bos_id if pad_id is None else pad_id
