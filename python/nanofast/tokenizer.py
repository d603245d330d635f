"""Text to token ids and back, equal to what tiktoken and Hugging Face tokenizers give.

>>> tokenizer = Tokenizer.from_name("r50k_base")
>>> tokenizer.encode("hello world")
array([31373,   995], dtype=uint32)
>>> tokenizer.decode([31373, 995])
'hello world'

Special tokens in a text are plain text. The work is done in Rust, without the GIL.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt

from nanofast import _nanofast

if TYPE_CHECKING:
    import os

    import tiktoken

GPT4_PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*"
    r"|\s*[\r\n]|\s+(?!\S)|\s+"
)
"""The split pattern of cl100k_base as Hugging Face's engine takes it: the default of `train`."""

TokenArray = npt.NDArray[np.uint32]


class Tokenizer:
    """A vocabulary, its merges, its split pattern and its special tokens; immutable, shared freely between threads."""

    def __init__(self, native: _nanofast.Tokenizer) -> None:
        self._native = native

    @classmethod
    def from_name(cls, name: str) -> Tokenizer:
        """Return a bundled tokenizer: `r50k_base`, `p50k_base`, `cl100k_base` or `o200k_base`; no network is used."""
        return cls(_nanofast.Tokenizer.from_name(name))

    @classmethod
    def from_file(
        cls,
        path: str | os.PathLike[str],
        *,
        pattern: str | None = None,
        special_tokens: dict[str, int] | None = None,
    ) -> Tokenizer:
        """Read `tokenizer.json` (byte-level BPE), nanofast's own file, or `.tiktoken`, which needs its split `pattern`.

        `special_tokens` (text to id) go with a `.tiktoken` file; the other formats hold their own.
        """
        path = Path(path)
        data = path.read_bytes()
        if path.suffix == ".tiktoken":
            if pattern is None:
                raise ValueError(f"`{path}` holds no split pattern; pass pattern=")
            specials = list((special_tokens or {}).items())
            return cls(_nanofast.Tokenizer.from_tiktoken_file(data, pattern, specials, str(path)))
        if pattern is not None or special_tokens is not None:
            raise ValueError(f"`{path}` holds its own pattern and special tokens; drop pattern= and special_tokens=")
        return cls(_nanofast.Tokenizer.from_json(data, str(path)))

    @classmethod
    def from_tiktoken(cls, encoding: tiktoken.Encoding) -> Tokenizer:
        """Take over any `tiktoken.Encoding`: its ranks, pattern and special tokens."""
        ranks = list(encoding._mergeable_ranks.items())
        specials = list(encoding._special_tokens.items())
        return cls(_nanofast.Tokenizer.from_ranks(ranks, encoding._pat_str, specials, encoding.name))

    @classmethod
    def train(
        cls,
        documents: Iterable[str],
        *,
        vocab_size: int,
        pattern: str = GPT4_PATTERN,
        special_tokens: Sequence[str] = ("<|bos|>",),
        show_progress: bool = False,
    ) -> Tokenizer:
        """Train byte-level BPE on `documents` with Hugging Face `tokenizers`.

        `vocab_size` counts the 256 bytes and the special tokens. Special tokens get the last ids, in the order given.
        Equal input gives an equal tokenizer.
        """
        import json

        import tokenizers
        from tokenizers import decoders, models, pre_tokenizers, trainers

        smallest = 256 + len(special_tokens)
        if vocab_size < smallest:
            raise ValueError(f"vocab_size = {vocab_size}: at least {smallest} (256 bytes and the special tokens)")
        trained = tokenizers.Tokenizer(models.BPE(byte_fallback=False, fuse_unk=False))
        split = pre_tokenizers.Split(tokenizers.Regex(pattern), behavior="isolated", invert=False)
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        trained.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
        trained.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size - len(special_tokens),
            min_frequency=0,
            show_progress=show_progress,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        )
        trained.train_from_iterator(documents, trainer)
        file: dict[str, Any] = json.loads(trained.to_str())
        first = len(file["model"]["vocab"])
        file["added_tokens"] = [
            {
                "id": first + index,
                "content": content,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for index, content in enumerate(special_tokens)
        ]
        return cls(_nanofast.Tokenizer.from_json(json.dumps(file).encode(), "trained"))

    def encode(self, text: str | bytes) -> TokenArray:
        """Return the ids of `text` (bytes must be UTF-8) as uint32 `[num_tokens]`."""
        return self._native.encode(text)

    def encode_batch(
        self, texts: Sequence[str | bytes], *, num_threads: int = 1
    ) -> tuple[TokenArray, npt.NDArray[np.int64]]:
        """Return all ids as uint32 `[num_tokens]`, and int64 `[len(texts) + 1]` offsets: where each text begins."""
        return self._native.encode_batch(texts, num_threads)

    def decode(self, ids: Sequence[int] | npt.NDArray[Any]) -> str:
        """Return the text of `ids`; bytes that are no UTF-8 (a token may end within a character) become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def decode_bytes(self, ids: Sequence[int] | npt.NDArray[Any]) -> bytes:
        """Return the bytes of `ids`, special tokens as their text."""
        return self._native.decode_bytes(ids)

    @overload
    def token_bytes(self) -> npt.NDArray[np.int32]: ...
    @overload
    def token_bytes(self, id: int) -> bytes: ...
    def token_bytes(self, id: int | None = None) -> npt.NDArray[np.int32] | bytes:
        """Return how many bytes each token has, int32 `[vocab_size]` with 0 for special tokens; or the bytes of one."""
        return self._native.token_bytes() if id is None else self._native.decode_bytes([id])

    @property
    def name(self) -> str:
        """Its name in messages: the bundled name or the file's path."""
        return self._native.name

    @property
    def vocab_size(self) -> int:
        """One past the largest id, special tokens included."""
        return self._native.vocab_size

    @property
    def bos_id(self) -> int | None:
        """The id that begins a document: `<|bos|>`, else the one the file declares, else `<|endoftext|>`, else None."""
        return self._native.bos_id

    @property
    def special_tokens(self) -> dict[str, int]:
        """Text and id of each special token, in the order of ids."""
        return dict(self._native.special_tokens)

    @property
    def fingerprint(self) -> str:
        """Hex of a SHA-256 over everything that decides ids: equal fingerprints give equal ids."""
        return self._native.fingerprint

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write nanofast's own file, which `from_file` reads back exactly."""
        Path(path).write_bytes(self._native.to_bytes())

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (self._native.to_bytes(), self.name)

    def __repr__(self) -> str:
        return f"Tokenizer({self.name!r}, vocab_size={self.vocab_size}, fingerprint={self.fingerprint[:12]!r})"


def _restored(data: bytes, name: str) -> Tokenizer:
    return Tokenizer(_nanofast.Tokenizer.from_json(data, name))
