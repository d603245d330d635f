"""Types of the compiled extension; one block for each file under `rust/src/bindings`."""

from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any, Literal, Never, Self, final

import numpy as np
import numpy.typing as npt

__all__ = [
    "DEBUG_BUILD",
    "SPLITTER",
    "DocumentReader",
    "Location",
    "NativeLoader",
    "ParquetWriter",
    "PretokenCounts",
    "TokenFiles",
    "Tokenizer",
    "__version__",
    "count_rows",
    "find_conversations",
    "find_shards",
    "merge_states",
    "open_loader",
    "open_token_file_loader",
    "read_footer",
    "read_row_group",
    "render",
    "render_rows",
    "share_heaps",
    "with_special_tokens",
]

__version__: str
DEBUG_BUILD: bool
SPLITTER: str  # "avx512", "avx2", "neon" or "scalar": the fastest that this processor runs

# bindings/tokenizer.rs

@final
class Tokenizer:
    @staticmethod
    def from_name(name: str) -> Tokenizer: ...
    @staticmethod
    def from_json(data: bytes, name: str) -> Tokenizer: ...
    @staticmethod
    def from_file(
        path: str | PathLike[str], pattern: str | None = None, special_tokens: Sequence[tuple[str, int]] | None = None
    ) -> Tokenizer: ...
    @staticmethod
    def from_ranks(
        ranks: Sequence[tuple[bytes, int]], pattern: str, special_tokens: Sequence[tuple[str, int]], name: str
    ) -> Tokenizer: ...
    def to_bytes(self) -> bytes: ...
    def to_tiktoken(self) -> bytes: ...
    def to_hf_json(self) -> bytes: ...
    def encode(
        self, text: str | bytes, allowed_special: Sequence[str] = ..., replace_invalid: bool = False
    ) -> npt.NDArray[np.uint32]: ...
    def encode_to(
        self,
        text: str | bytes,
        out: npt.NDArray[np.uint32],
        allowed_special: Sequence[str] = ...,
        replace_invalid: bool = False,
    ) -> int: ...
    def encode_with_offsets(
        self, text: str | bytes, allowed_special: Sequence[str] = ..., replace_invalid: bool = False
    ) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]: ...
    def count_tokens(
        self, text: str | bytes, allowed_special: Sequence[str] = ..., replace_invalid: bool = False
    ) -> int: ...
    def encode_batch(
        self,
        texts: Any,
        num_threads: int = 1,
        allowed_special: Sequence[str] = ...,
        replace_invalid: bool = False,
    ) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]: ...
    def encode_batch_to(
        self,
        texts: Any,
        out: npt.NDArray[np.uint32],
        allowed_special: Sequence[str] = ...,
        replace_invalid: bool = False,
    ) -> npt.NDArray[np.int64]: ...
    def decode_bytes(self, ids: npt.NDArray[np.uint32]) -> bytes: ...
    def token_bytes(self) -> npt.NDArray[np.int32]: ...
    @property
    def name(self) -> str: ...
    @property
    def vocab_size(self) -> int: ...
    @property
    def bos_id(self) -> int | None: ...
    @property
    def special_tokens(self) -> list[tuple[str, int]]: ...
    @property
    def frame(self) -> tuple[list[int], list[int]]: ...
    @property
    def fingerprint(self) -> str: ...
    def __reduce__(self) -> Never: ...

# bindings/loader.rs

@final
class NativeLoader:
    @property
    def lanes(self) -> int: ...
    @property
    def plan(self) -> tuple[int, int, int]: ...
    def set_memory(self, address: int, len: int, owner: object) -> None: ...
    def fetch(
        self, sequence: int, timeout_seconds: float | None = None
    ) -> tuple[int, int, int, int, bool] | Literal[False] | None: ...
    def split(
        self,
        fetched: tuple[int, int, int, int, bool],
        inputs: npt.NDArray[np.int32],
        targets: npt.NDArray[np.int64],
    ) -> None: ...
    def origins(self, sequence: int) -> npt.NDArray[np.int64]: ...
    def shard_names(self) -> list[str]: ...
    def next_to_accept(self) -> int: ...
    def accept(self) -> None: ...
    def take_back(self, sequence: int) -> None: ...
    def release(self, sequence: int) -> None: ...
    def known_rounds(self, than: int, timeout_seconds: float) -> tuple[int, bool]: ...
    def grant(self, rounds: int) -> None: ...
    def reconfigure(self, batch_size: int, sequence_length: int, weights: Sequence[float] | None = None) -> None: ...
    def state_json(self) -> str: ...
    def identity_json(self) -> str: ...
    def restore(self, state_json: str) -> None: ...
    def position(self) -> tuple[int, int]: ...
    def metrics(self) -> dict[str, Any]: ...
    def close(self) -> None: ...

def merge_states(states_json: Sequence[str]) -> str: ...

# bindings/opening.rs

def open_loader(
    sources: Sequence[tuple[str, Sequence[str]]],
    tokenizer: Tokenizer,
    *,
    text_column: str,
    split: str | None,
    batch_size: int,
    sequence_length: int,
    packing: str,
    overflow: str,
    rank: int,
    world_size: int,
    lanes: int | None,
    unit_documents: int | None,
    deal: str,
    shuffle: bool,
    shuffle_window: int,
    seed: int,
    epochs: int | None,
    drop_last: bool,
    shares_end: bool,
    bos_id: int,
    pad_id: int,
    num_threads: int,
    num_slots: int,
    memory_limit_bytes: int,
    on_bad_data: str,
    invalid_utf8: str,
    exclude: Sequence[tuple[str, int, int]],
    return_documents: bool,
    weights: Sequence[float] | None = None,
    run_out: str = "repeat",
    chat_json: str | None = None,
    remote_json: str | None = None,
) -> NativeLoader: ...
def open_token_file_loader(
    paths: Sequence[str | PathLike[str]],
    *,
    format: str | None,
    dtype: str | None,
    vocab_size: int,
    split: str | None,
    batch_size: int,
    sequence_length: int,
    shuffle: str,
    rank: int,
    world_size: int,
    lanes: int | None,
    seed: int,
    epochs: int | None,
    drop_last: bool,
    pad_id: int,
    num_threads: int,
    num_slots: int,
) -> NativeLoader: ...
def share_heaps() -> None: ...

# bindings/chat.rs

_Rendered = tuple[npt.NDArray[np.uint32], npt.NDArray[np.bool_]]

def render(tokenizer: Tokenizer, chat_json: str, conversation_json: str, prompts: bool) -> _Rendered: ...
def render_rows(tokenizer: Tokenizer, chat_json: str, path: str | PathLike[str], count: int) -> list[_Rendered]: ...
def count_rows(path: str | PathLike[str], chat_json: str) -> int: ...
def find_conversations(path: str | PathLike[str], remote_json: str | None = None) -> list[Location]: ...
def with_special_tokens(tokenizer: Tokenizer, contents: Sequence[str]) -> Tokenizer: ...

# bindings/token_files.rs

@final
class TokenFiles:
    def __new__(
        cls, paths: Sequence[str | PathLike[str]], format: str | None = None, dtype: str | None = None
    ) -> Self: ...
    def facts(self) -> list[tuple[str, str, int, int]]: ...
    def read(self, places: Sequence[tuple[int, int]], length: int, vocab_size: int) -> npt.NDArray[np.int32]: ...

# bindings/training.rs

@final
class PretokenCounts:
    def __new__(cls, pattern: str, vocab_size: int, special_tokens: Sequence[str], limit_bytes: int) -> Self: ...
    def add(self, texts: Sequence[bytes]) -> None: ...
    def absorb(self, other: PretokenCounts) -> None: ...
    def train(self, progress: Callable[[int], None]) -> Tokenizer: ...
    @property
    def num_text_bytes(self) -> int: ...
    @property
    def num_pretokens(self) -> int: ...

# bindings/writer.rs

@final
class ParquetWriter:
    def __new__(cls, path: str | PathLike[str], column: str = "text", row_group_documents: int = 1000) -> Self: ...
    def write(self, texts: Sequence[str]) -> None: ...
    def close(self) -> None: ...

# bindings/reading.rs

@final
class DocumentReader:
    def __new__(cls, path: str | PathLike[str], column: str = "text") -> Self: ...
    def __iter__(self) -> Self: ...
    def __next__(self) -> bytes: ...

# Where a shard lies: a file, or an object behind a URL. As text and as a path it has nothing secret.
@final
class Location(PathLike[str]):
    def __fspath__(self) -> str: ...

def find_shards(path: str | PathLike[str], remote_json: str | None = None) -> list[Location]: ...
def read_footer(path: str | PathLike[str]) -> str: ...
def read_row_group(path: str | PathLike[str], row_group: int, column: str = "text") -> list[bytes]: ...
