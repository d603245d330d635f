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
import itertools
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
import numpy.typing as npt

from nanofast import _nanofast

if TYPE_CHECKING:
    import os

    import tiktoken

    from nanofast.chat_template import ChatTemplate

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

    def encode(self, text: str | bytes, *, allowed_special: Collection[str] | Literal["all"] = ()) -> TokenArray:
        """Return the ids of `text` (bytes must be UTF-8) as uint32 `[num_tokens]`.

        Special tokens named in `allowed_special` are taken as such; the text of all others is plain text.
        """
        allowed = list(self.special_tokens) if allowed_special == "all" else list(allowed_special)
        return self._native.encode(text, allowed)

    def encode_to(self, text: str | bytes, out: TokenArray) -> int:
        """Write the ids of `text` to the front of `out` and return how many; ValueError when it is too small."""
        return self._native.encode_to(text, out)

    def encode_with_offsets(self, text: str) -> tuple[TokenArray, npt.NDArray[np.int64]]:
        """Return the ids of `text`, and int64 `[num_tokens, 2]`: first byte and end of each in the text's UTF-8.

        ValueError where the tokenizer normalizes the text: its tokens are then not parts of it.
        """
        ids = self.encode(text)
        lengths = np.fromiter((len(self._native.decode_bytes([int(token)])) for token in ids), np.int64, len(ids))
        ends = np.cumsum(lengths)
        if self.decode_bytes(ids) != text.encode():
            raise ValueError(f"`{self.name}` normalizes this text; its tokens have no offsets in it")
        return ids, np.stack([ends - lengths, ends], axis=1)

    def count_tokens(self, text: str | bytes) -> int:
        """Return how many tokens `text` has."""
        return self._native.count_tokens(text)

    def encode_batch(
        self, texts: Sequence[str | bytes], *, num_threads: int = 1
    ) -> tuple[TokenArray, npt.NDArray[np.int64]]:
        """Return all ids as uint32 `[num_tokens]`, and int64 `[len(texts) + 1]` offsets: where each text begins."""
        if num_threads < 1:
            raise ValueError(f"num_threads = {num_threads}: at least 1")
        if num_threads == 1 or len(texts) < 2:
            return self._native.encode_batch(texts)
        from concurrent.futures import ThreadPoolExecutor

        # Parts of about equal size, several a thread: texts differ in length.
        ends = np.cumsum([len(text) for text in texts])
        cuts = np.searchsorted(ends, np.linspace(0, ends[-1], 4 * num_threads + 1)[1:-1])
        borders = [0, *(int(cut) for cut in np.unique(cuts)), len(texts)]
        pairs = list(itertools.pairwise(borders))
        with ThreadPoolExecutor(num_threads) as pool:
            parts = list(pool.map(lambda pair: self._native.encode_batch(texts[pair[0] : pair[1]]), pairs))
        starts = np.cumsum([0, *(len(values) for values, _ in parts)])
        offsets = [offsets[:-1] + start for (_, offsets), start in zip(parts, starts[:-1], strict=True)]
        return np.concatenate([values for values, _ in parts]), np.concatenate([*offsets, starts[-1:]])

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

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        format: Literal["nanofast", "huggingface", "tiktoken"] = "nanofast",
    ) -> None:
        """Write a file that `from_file` reads back.

        `nanofast`: exact to the fingerprint. `huggingface`: a `tokenizer.json` that Hugging Face `tokenizers` reads.
        `tiktoken`: ranks alone (pattern and special tokens go elsewhere); ValueError where merges are not by rank.
        """
        writers = {
            "nanofast": self._native.to_bytes,
            "huggingface": self._native.to_hf_json,
            "tiktoken": self._native.to_tiktoken,
        }
        if format not in writers:
            raise ValueError(f"format = {format!r}: one of {', '.join(writers)}")
        Path(path).write_bytes(writers[format]())

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


def _restored(data: bytes, name: str) -> Tokenizer:
    return Tokenizer(_nanofast.Tokenizer.from_json(data, name))
