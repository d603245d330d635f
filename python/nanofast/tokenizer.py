"""Text to token ids and back, equal to what tiktoken and Hugging Face tokenizers give.

>>> tokenizer = Tokenizer.from_name("r50k_base")
>>> tokenizer.encode("hello world")
array([31373,   995], dtype=uint32)
>>> tokenizer.decode([31373, 995])
'hello world'

Special tokens in a text are plain text. The work is done in Rust, without the GIL.
"""

from __future__ import annotations

import codecs
import json
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
import numpy.typing as npt

from nanofast import _nanofast
from nanofast.data.aside import file_aside

if TYPE_CHECKING:
    import tiktoken

    from nanofast.chat_template import ChatTemplate
    from nanofast.vocabulary_training import Progress, Texts

GPT4_PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*"
    r"|\s*[\r\n]|\s+(?!\S)|\s+"
)
"""The split pattern of cl100k_base, spelled so that all expression engines agree on it: the default of `train`."""

TokenArray = npt.NDArray[np.uint32]
AllowedSpecial = Collection[str] | Literal["all"]
Errors = Literal["strict", "replace"]


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

        `special_tokens` (text to id) go with a `.tiktoken` file; the other formats hold their own. What a file is
        follows from its content. Pickles, SentencePiece models and other kinds of vocabularies are refused by name;
        nothing is executed.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is no such vocabulary, or one that contradicts itself; the message says what and where.
        """
        specials = None if special_tokens is None else list(special_tokens.items())
        return cls(_nanofast.Tokenizer.from_file(path, pattern, specials))

    @classmethod
    def from_tiktoken(cls, encoding: tiktoken.Encoding) -> Tokenizer:
        """Take over any `tiktoken.Encoding`: its ranks, pattern and special tokens."""
        ranks = list(encoding._mergeable_ranks.items())
        specials = list(encoding._special_tokens.items())
        return cls(_nanofast.Tokenizer.from_ranks(ranks, encoding._pat_str, specials, encoding.name))

    @classmethod
    def train(
        cls,
        texts_or_paths: Texts,
        vocab_size: int,
        pattern: str = GPT4_PATTERN,
        special_tokens: Sequence[str] = ("<|bos|>",),
        *,
        text_column: str = "text",
        max_bytes: int | None = None,
        num_threads: int | None = None,
        memory_limit_bytes: int = 4 << 30,
        progress: Progress | None = None,
    ) -> Tokenizer:
        r"""Train byte-level BPE.

        `texts_or_paths` are texts (any iterable of `str` or UTF-8 `bytes`), or what names files: a path, a glob, or an
        iterable of `pathlib.Path`. Files are parquet, JSON lines and CSV, with their texts in `text_column`, and plain
        text, also packed as .gz and .zst. `vocab_size` counts the 256 bytes and the special tokens, which get the last
        ids, in the order given; there are fewer tokens where the texts hold no more to merge. `pattern` is read as
        tiktoken reads it.

        Texts are read in order, up to the one that reaches `max_bytes`. What is held of them are their distinct
        pretokens, `memory_limit_bytes` at most. `num_threads` is by default the number of cores; it changes nothing but
        time.

        The merges are those of Hugging Face's `BpeTrainer` without a minimal frequency: the pair that occurs most often
        goes first, and among equals the one whose left part, then whose right part, has the smaller id (that library's
        order of bytes, which is also this tokenizer's: `!` is 0, then by the characters that stand for bytes).

        Raises:
            ValueError: Sizes are out of range, the pattern is bad, or there is no text.
            MemoryError: The distinct pretokens take more than `memory_limit_bytes`.
        """
        from nanofast.vocabulary_training import train

        return cls(
            train(
                texts_or_paths,
                vocab_size=vocab_size,
                pattern=pattern,
                special_tokens=list(special_tokens),
                text_column=text_column,
                max_bytes=max_bytes,
                num_threads=num_threads,
                memory_limit_bytes=memory_limit_bytes,
                progress=progress,
            )
        )

    def encode(
        self,
        text: str | bytes,
        *,
        allowed_special: AllowedSpecial = (),
        errors: Errors = "strict",
        add_special_tokens: bool = False,
    ) -> TokenArray:
        """Return the ids of `text` as uint32 `[num_tokens]`.

        Special tokens named in `allowed_special` are taken as such; the text of all others is plain text. `errors` says
        what happens to bytes that are no UTF-8 and to lone surrogates: ValueError, or U+FFFD in their place, bytes as
        in Python and surrogates as in tiktoken. `add_special_tokens` puts around the ids what the file's post-processor
        names (a BOS, mostly).
        """
        ids = self._native.encode(text, self._allowed(allowed_special), _replaces(errors))
        if not add_special_tokens:
            return ids
        before, after = self._native.frame
        return np.concatenate([np.array(before, np.uint32), ids, np.array(after, np.uint32)])

    def encode_to(
        self, text: str | bytes, out: TokenArray, *, allowed_special: AllowedSpecial = (), errors: Errors = "strict"
    ) -> int:
        """Write the ids of `text` to the front of `out` and return how many; ValueError when it is too small."""
        return self._native.encode_to(text, out, self._allowed(allowed_special), _replaces(errors))

    def encode_with_offsets(
        self, text: str | bytes, *, allowed_special: AllowedSpecial = (), errors: Errors = "strict"
    ) -> tuple[TokenArray, npt.NDArray[np.int64]]:
        """Return the ids of `text`, and int64 `[num_tokens, 2]`: first byte and end of each in the text's UTF-8.

        Spans follow each other and cover the text, with two exceptions: where the tokenizer normalizes, the tokens of a
        character that changed all span what it was made of; and where a pattern drops text, no token spans it. With
        `errors="replace"` they are spans in the text that the replacement gives.
        """
        return self._native.encode_with_offsets(text, self._allowed(allowed_special), _replaces(errors))

    def count_tokens(
        self, text: str | bytes, *, allowed_special: AllowedSpecial = (), errors: Errors = "strict"
    ) -> int:
        """Return how many tokens `text` has, without making a list of them."""
        return self._native.count_tokens(text, self._allowed(allowed_special), _replaces(errors))

    def encode_batch(
        self,
        texts: Any,
        *,
        num_threads: int = 1,
        allowed_special: AllowedSpecial = (),
        errors: Errors = "strict",
    ) -> tuple[TokenArray, npt.NDArray[np.int64]]:
        """Return all ids as uint32 `[num_tokens]`, and int64 `[len(texts) + 1]` offsets: where each text begins.

        `texts` are a list (or any iterable) of `str` and `bytes`; a string or binary array of a library that speaks
        Arrow's C data interface (pyarrow, polars, nanoarrow …), read where it is; or a numpy array. Of those,
        `StringDType` and object arrays are read string by string, and fixed-width ones (`U`, `S`) are copied: they hold
        UTF-32, or bytes that may change meanwhile.
        """
        if num_threads < 1:
            raise ValueError(f"num_threads = {num_threads}: at least 1")
        return self._native.encode_batch(texts, num_threads, self._allowed(allowed_special), _replaces(errors))

    def encode_batch_to(
        self, texts: Any, out: TokenArray, *, allowed_special: AllowedSpecial = (), errors: Errors = "strict"
    ) -> npt.NDArray[np.int64]:
        """Write all ids of `texts` (as in `encode_batch`) to the front of `out`, uint32 in one piece of memory.

        Returns int64 `[len(texts) + 1]` offsets: where each text begins in `out`. ValueError when `out` is too small,
        with the number of tokens; what it holds is then undefined. Works on one thread; others may fill arrays of their
        own meanwhile.
        """
        return self._native.encode_batch_to(texts, out, self._allowed(allowed_special), _replaces(errors))

    def decode(self, ids: Sequence[int] | npt.NDArray[Any]) -> str:
        """Return the text of `ids`; bytes that are no UTF-8 (a token may end within a character) become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def decode_bytes(self, ids: Sequence[int] | npt.NDArray[Any]) -> bytes:
        """Return the bytes of `ids`, special tokens as their text."""
        return self._native.decode_bytes(_as_ids(ids))

    @overload
    def token_bytes(self) -> npt.NDArray[np.int32]: ...
    @overload
    def token_bytes(self, id: int) -> bytes: ...
    def token_bytes(self, id: int | None = None) -> npt.NDArray[np.int32] | bytes:
        """Return how many bytes each token has, int32 `[vocab_size]` with 0 for special tokens; or the bytes of one."""
        return self._native.token_bytes() if id is None else self.decode_bytes([id])

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

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        format: Literal["nanofast", "huggingface", "tiktoken"] | None = None,
    ) -> None:
        """Write a file that `from_file` reads back.

        `nanofast`: exact to the fingerprint. `huggingface`: a `tokenizer.json` that Hugging Face `tokenizers` reads.
        `tiktoken`: ranks alone (pattern and special tokens go elsewhere); ValueError where merging by rank would give
        other ids. By default `tiktoken` where the name ends in `.tiktoken`, else `nanofast`.
        """
        writers = {
            "nanofast": self._native.to_bytes,
            "huggingface": self._native.to_hf_json,
            "tiktoken": self._native.to_tiktoken,
        }
        path = Path(path)
        kind = format or ("tiktoken" if path.suffix == ".tiktoken" else "nanofast")
        if kind not in writers:
            raise ValueError(f"format = {format!r}: one of {', '.join(writers)}")
        with file_aside(path) as partial:
            partial.write_bytes(writers[kind]())

    def _allowed(self, allowed_special: AllowedSpecial) -> list[str]:
        return list(self.special_tokens) if allowed_special == "all" else list(allowed_special)

    def decoder(self) -> StreamDecoder:
        """Return a decoder that takes ids as they come and gives text without broken characters."""
        return StreamDecoder(self)

    def render(
        self,
        conversation: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        template: ChatTemplate | str = "nanochat",
        *,
        add_generation_prompt: bool = False,
    ) -> tuple[TokenArray, npt.NDArray[np.bool_]]:
        """Return the ids of a conversation, uint32 `[num_tokens]`, and which of them are learned, bool `[num_tokens]`.

        `conversation` is a list of messages (role and content: a text, or a list of parts), or a mapping that holds it
        as `messages`. With `add_generation_prompt`, what stands in front of an assistant's answer follows. ValueError
        where roles do not alternate, something is missing, or the tokenizer lacks special tokens of the template.
        """
        from nanofast.chat_template import ChatTemplate

        template = template if isinstance(template, ChatTemplate) else ChatTemplate.from_name(template)
        return _nanofast.render(self._native, template.arguments(), json.dumps(conversation), add_generation_prompt)

    def with_special_tokens(self, special_tokens: Iterable[str]) -> Tokenizer:
        """Return this tokenizer with further special tokens behind its last id; those that it has stay as they are."""
        return Tokenizer(_nanofast.with_special_tokens(self._native, list(special_tokens)))

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (self._native.to_bytes(), self.name)

    def __repr__(self) -> str:
        return f"Tokenizer({self.name!r}, vocab_size={self.vocab_size}, fingerprint={self.fingerprint[:12]!r})"


class StreamDecoder:
    """Text of ids that come a few at a time; a character whose bytes are not all there yet is held back."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._characters = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, ids: Sequence[int] | npt.NDArray[Any]) -> str:
        """Return the characters that `ids` complete."""
        return self._characters.decode(self._tokenizer.decode_bytes(ids))

    def finish(self) -> str:
        """Return what was held back, as U+FFFD, and begin anew."""
        rest = self._characters.decode(b"", final=True)
        self._characters.reset()
        return rest


def _replaces(errors: Errors) -> bool:
    if errors not in ("strict", "replace"):
        raise ValueError(f"errors = {errors!r}: strict or replace")
    return errors == "replace"


def _as_ids(ids: Sequence[int] | npt.NDArray[Any]) -> TokenArray:
    """`ids` as the extension takes them; nothing is wrapped around or cut off."""
    array = np.asarray(ids)
    if array.ndim != 1:
        raise ValueError(f"ids have {array.ndim} dimensions; expected 1")
    if array.dtype == np.uint32 or array.size == 0:
        return array.astype(np.uint32, copy=False)
    if array.dtype.kind not in "iu":
        raise TypeError(f"ids are {array.dtype}; expected whole numbers")
    if array.min() < 0 or array.max() > np.iinfo(np.uint32).max:
        raise ValueError(f"ids go from {array.min()} to {array.max()}; expected 0 to {np.iinfo(np.uint32).max}")
    return array.astype(np.uint32)


def _restored(data: bytes, name: str) -> Tokenizer:
    return Tokenizer(_nanofast.Tokenizer.from_json(data, name))
