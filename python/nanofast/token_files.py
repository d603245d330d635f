"""Batches from files that are tokenized already: nanoGPT's flat .bin, llm.c's and modded-nanogpt's .bin, .npy.

    [id id id …]  ──▶  window i: inputs ids[i : i + T], targets ids[i + 1 : i + T + 1]  ──▶  B windows a batch

`TokenFileLoader` is `TokenLoader` for such files: threads, ring, state, lanes and metrics are the same.
`TokenDataset` is the map-style data set over them, for those who keep their DataLoader.

`python -m nanofast.data tokenize` writes such files, each with a description beside it (`NAME.json`) from which
dtype, vocabulary and length are taken. Without one the file speaks for itself, and a flat .bin counts as uint16.
"""

from __future__ import annotations

import bisect
import glob
import itertools
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nanofast import _nanofast, distributed
from nanofast.batch_loader import BatchLoader
from nanofast.errors import InvalidError, NotFoundError
from nanofast.loader_arguments import count, paths_of, place_among_all
from nanofast.mixture import Data
from nanofast.remote import is_remote, require_local, shown

if TYPE_CHECKING:
    import torch

    from nanofast.tokenizer import Tokenizer

SUFFIXES = (".bin", ".npy")
STARTS_SUFFIX = ".starts.npy"  # where the documents of a token file begin
ABOUT_SUFFIX = ".json"  # what `tokenize` knows of the file beside it
TOKENIZER_SUFFIX = ".tokenizer.json"
# Ids are int32 in a batch, and the highest bit is taken.
MOST_IDS = 1 << 31


class TokenFileLoader(BatchLoader):
    """An iterator of `(inputs, targets)` over token files: int32 `[B, T]` and int64 `[B, T]` on `device`.

    Everything but the arguments is as with `TokenLoader`: order and batches are a function of files and arguments up to
    `seed`, a state resumes exactly, world sizes that divide `lanes` take over each other's state. A state is bound to
    `sequence_length`, by which windows are cut; `batch_size` may change. `rank`, `world_size`, `lanes`, `seed`,
    `drop_last`, `device` and `num_slots` are as for `TokenLoader`.

    Args:
        files: a token file, a folder of them, a glob, or a list of these; read in the order of their names (a list
            keeps its own).
        batch_size: windows a batch, B.
        sequence_length: inputs a window, T.
        shuffle: "none": windows that do not overlap, from front to back. "window": these, permuted anew in each epoch.
            "random": a window at every offset, permuted anew in each epoch, as DataLoader(shuffle=True) over a
            map-style data set gives. Permutations need no memory.
        split: "train" is all files but the last, "val" the last; of a single file, its last twentieth. None: all.
        vocab_size: ids are below it, else the batch is an error that names file and offset. None: as the files'
            descriptions say, else unchecked.
        dtype: "uint16" or "uint32" of flat files. None: as described, else uint16.
        format: "flat", "llm.c" or "npy". None: found out.
        epochs: passes over the windows; None: for ever. Ranks end together without talking to each other.
        pad_id: the token of rows that a last batch lacks; their targets are -1.
        num_threads: threads that read; they wait for the disk more than they compute. None: 4.

    Raises:
        nanofast.Error: a file that is truncated, has a wrong magic number or an odd length is refused by name.
    """

    def __init__(
        self,
        files: Data,
        batch_size: int,
        sequence_length: int,
        shuffle: str = "none",
        *,
        split: str | None = None,
        vocab_size: int | None = None,
        dtype: str | None = None,
        format: str | None = None,
        rank: int | None = None,
        world_size: int | None = None,
        lanes: int | None = None,
        seed: int = 0,
        epochs: int | None = None,
        drop_last: bool = False,
        pad_id: int = 0,
        device: str | torch.device | None = None,
        num_threads: int | None = None,
        num_slots: int = 4,
    ) -> None:
        arguments = {name: value for name, value in locals().items() if name != "self"}
        rank, world_size = place_among_all(rank, world_size, distributed.worker_and_count())
        paths = find_token_files(files)
        described = _described(paths)
        native = _nanofast.open_token_file_loader(
            paths,
            format=format,
            dtype=dtype or described.get("dtype"),
            vocab_size=_vocab_size(vocab_size, described),
            split=split,
            batch_size=count("batch_size", batch_size),
            sequence_length=count("sequence_length", sequence_length),
            shuffle=shuffle,
            rank=count("rank", rank, least=0),
            world_size=world_size,
            lanes=None if lanes is None else count("lanes", lanes),
            seed=count("seed", seed, least=0),
            epochs=None if epochs is None else count("epochs", epochs),
            drop_last=drop_last,
            pad_id=count("pad_id", pad_id, least=0),
            num_threads=4 if num_threads is None else count("num_threads", num_threads),
            num_slots=count("num_slots", num_slots, least=2),
        )
        self._hold(native, {**arguments, "rank": rank, "world_size": world_size})


class TokenDataset:
    """A map-style data set for torch: `[i]` is `(inputs, targets)`, int32 `[T]` and int64 `[T]`.

    Windows begin every `stride` tokens of each file: T (None) for windows that do not overlap, 1 for one at every
    offset. It pickles, may be read by several threads or forked workers, and holds no tokens.

    Args:
        files: as for `TokenFileLoader`; also `vocab_size`, `dtype` and `format`.
    """

    def __init__(
        self,
        files: Data,
        sequence_length: int,
        *,
        stride: int | None = None,
        vocab_size: int | None = None,
        dtype: str | None = None,
        format: str | None = None,
    ) -> None:
        self._arguments = {name: value for name, value in locals().items() if name != "self"}
        paths = find_token_files(files)
        described = _described(paths)
        self._files = _nanofast.TokenFiles(paths, format, dtype or described.get("dtype"))
        self._vocab_size = _vocab_size(vocab_size, described)
        self.sequence_length = count("sequence_length", sequence_length)
        self.stride = sequence_length if stride is None else count("stride", stride)
        counts = [max(0, (num - sequence_length - 1) // self.stride + 1) for *_, num in self._files.facts()]
        self._ends = list(itertools.accumulate(counts))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Several windows at once, as DataLoader asks for the ones of a batch."""
        import torch

        places = [self._place(int(index)) for index in indices]
        tokens_NC = torch.from_numpy(self._files.read(places, self.sequence_length + 1, self._vocab_size))
        inputs_NT, targets_NT = tokens_NC[:, :-1], tokens_NC[:, 1:].to(torch.int64)
        return list(zip(inputs_NT, targets_NT, strict=True))

    def _place(self, index: int) -> tuple[int, int]:
        length = len(self)
        if not -length <= index < length:
            raise IndexError(f"window {index} of {length}")
        index %= length
        file = bisect.bisect_right(self._ends, index)
        return file, (index - (self._ends[file - 1] if file else 0)) * self.stride

    def __reduce__(self) -> tuple[Any, ...]:
        arguments = dict(self._arguments)
        return _dataset, (arguments.pop("files"), arguments.pop("sequence_length"), arguments)

    def __repr__(self) -> str:
        return f"TokenDataset({len(self)} windows of {self.sequence_length}, every {self.stride} tokens)"


def _dataset(files: Data, sequence_length: int, arguments: dict[str, Any]) -> TokenDataset:
    return TokenDataset(files, sequence_length, **arguments)


def is_token_data(data: Data) -> bool:
    """Whether data is token files rather than parquet: by the names alone; a folder with a shard in it is parquet."""
    try:
        for path in paths_of(data):
            if is_remote(path) and not shown(path).endswith(SUFFIXES):
                return False
            if next(Path(path).glob("*.parquet"), None):
                return False
        return all(path.endswith(SUFFIXES) for path in find_token_files(data))
    except NotFoundError:
        return False


def find_token_files(data: Data) -> list[str]:
    """The token files that `data` names.

    Raises:
        NotFoundError: a path that does not exist; a folder or glob without a token file. InvalidError: a URL.
    """
    found: list[str] = []
    for path in paths_of(data):
        require_local("token data", path, "token files are read from this machine's disks alone: fetch them first")
        if os.path.isdir(path):  # noqa: PTH112  # a glob is no Path
            found += _token_files_in(path, sorted(entry.name for entry in Path(path).iterdir()))
        elif os.path.exists(path):  # noqa: PTH110
            found.append(path)
        elif glob.has_magic(path):
            found += _token_files_in(path, sorted(glob.glob(path)))  # noqa: PTH207
        else:
            raise NotFoundError(f"no such file or folder: `{path}`; check the path")
    if not found:
        raise NotFoundError("no token files in an empty list; expected files that end in .bin or .npy")
    return found


def _token_files_in(place: str, names: list[str]) -> list[str]:
    is_folder = os.path.isdir(place)  # noqa: PTH112
    found = [
        os.path.join(place, name) if is_folder else name  # noqa: PTH118
        for name in names
        if name.endswith(SUFFIXES) and not name.endswith(STARTS_SUFFIX) and not Path(name).name.startswith((".", "_"))
    ]
    if not found:
        raise NotFoundError(f"no token files in `{place}`; expected files that end in .bin or .npy")
    return found


def description_of(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """What `tokenize` wrote beside a token file; None where it did not write that file.

    Raises:
        InvalidError: what lies there is no such description.
    """
    about = Path(f"{os.fspath(path)}{ABOUT_SUFFIX}")
    try:
        description: dict[str, Any] = json.loads(about.read_text("utf-8"))
        if description["kind"] != "nanofast.tokens":
            return None
        for value, expected in (
            (description["size_bytes"], int),
            (description["vocab_size"], int),
            (description["dtype"], str),
            (description["tokenizer"]["name"], str),
            (description["tokenizer"]["fingerprint"], str),
        ):
            if type(value) is not expected:
                raise TypeError(f"{value!r} where {expected.__name__} is expected")
        return description
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidError(
            f"`{about}` does not describe a token file ({error}); write it again, or remove it"
        ) from error


def tokenizer_beside(data: Data) -> str:
    """The tokenizer that `tokenize` left with token files: beside a file, or in the folder of several.

    Raises:
        NotFoundError: it left none.
    """
    first = find_token_files(data)[0]
    for path in (Path(f"{first}{TOKENIZER_SUFFIX}"), Path(first).with_name(TOKENIZER_SUFFIX[1:])):
        if path.is_file():
            return str(path)
    raise NotFoundError(f"no tokenizer beside `{first}`; pass --tokenizer with the one that its ids are of")


def require_tokenizer(data: Data, tokenizer: Tokenizer) -> None:
    """Refuses a tokenizer that is not the one with which described token files were made."""
    for path in find_token_files(data):
        description = description_of(path)
        if description is not None and description["tokenizer"]["fingerprint"] != tokenizer.fingerprint:
            raise InvalidError(
                f"`{path}` was made with tokenizer `{description['tokenizer']['name']}`, which gives other ids than "
                f"`{tokenizer.name}`; leave out --tokenizer, or write the file again"
            )


def _described(paths: Sequence[str]) -> dict[str, Any]:
    """What the descriptions of all files agree on: dtype, vocab_size. Each is held against its file's size."""
    descriptions = [(path, description) for path in paths if (description := description_of(path)) is not None]
    for path, description in descriptions:
        size = Path(path).stat().st_size
        if size != description["size_bytes"]:
            raise InvalidError(
                f"bad token file `{path}`: it has {size} bytes; its description says {description['size_bytes']}; "
                "fetch or write it again"
            )
    agreed = {}
    for field in ("dtype", "vocab_size"):
        values = {description[field] for _, description in descriptions}
        if len(values) > 1:
            raise InvalidError(f"the token files differ in {field}: {', '.join(map(str, sorted(values)))}")
        if len(descriptions) == len(paths):
            agreed[field] = values.pop()
    return agreed


def _vocab_size(asked: int | None, described: dict[str, Any]) -> int:
    found = described.get("vocab_size", MOST_IDS) if asked is None else count("vocab_size", asked)
    return min(int(found), MOST_IDS)
