"""Arguments of loaders: checked, and found out where they are not given."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from nanofast import distributed
from nanofast.errors import InvalidError, WrongTypeError
from nanofast.mixture import Data

if TYPE_CHECKING:
    from nanofast.tokenizer import Tokenizer


def paths_of(data: Data) -> list[str]:
    """What names a data set, as a list."""
    if isinstance(data, str | os.PathLike):
        return [os.fspath(data)]
    if isinstance(data, Sequence):
        return [os.fspath(path) for path in data]
    raise WrongTypeError(f"data is {type(data).__name__}; expected a path, a glob, or a list of these")


def count(field: str, value: int, least: int = 1) -> int:
    """A whole number of at least `least`, or an error that names the field."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise WrongTypeError(f"{field} = {value!r}: must be a whole number")
    if value < least:
        raise InvalidError(f"{field} = {value}: must be at least {least}")
    return value.__index__()


def place_among_all(rank: int | None, world_size: int | None, worker: tuple[int, int] | None) -> tuple[int, int]:
    """Rank and world size, found out where they are not given; `worker` of a rank is a rank of its own."""
    if rank is None or world_size is None:
        found_rank, found_world_size = distributed.rank_and_world_size()
        if worker is not None:
            found_rank, found_world_size = found_rank + worker[0] * found_world_size, found_world_size * worker[1]
        rank = found_rank if rank is None else rank
        world_size = found_world_size if world_size is None else world_size
    return rank, count("world_size", world_size)


def bos_id(tokenizer: Tokenizer, bos_token: str | None) -> int:
    """The id of the token before each document: that asked for, or the tokenizer's own."""
    if bos_token is not None:
        if bos_token not in tokenizer.special_tokens:
            names = ", ".join(f"`{name}`" for name in tokenizer.special_tokens) or "none"
            raise InvalidError(f"bos_token = `{bos_token}` is no special token of the tokenizer (has: {names})")
        return tokenizer.special_tokens[bos_token]
    if tokenizer.bos_id is None:
        raise InvalidError("the tokenizer declares no BOS; pass bos_token= with one of its special tokens")
    return tokenizer.bos_id
