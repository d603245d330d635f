"""One vocabulary for every contender, without a network, each in the format that the contender reads.

    r50k_base.tiktoken        tiktoken's `token rank` lines       (tiktoken, gigatoken)
    r50k_base.tokenizer.json  the same as Hugging Face reads it   (tokenizers)

The ranks are the published ones of `../shared/data` where they are, else those that nanofast bundles.
"""

from __future__ import annotations

import base64
from itertools import pairwise
from pathlib import Path
from unittest import mock

import pyarrow as pa
import tiktoken
from tiktoken_ext import openai_public

from corpus import SHARED

NAMES = ("r50k_base", "cl100k_base")
# What Hugging Face's engine, which reads `x{1,3}+` otherwise, needs for the same pretokens as cl100k_base's own
# pattern. None: the pattern that `ByteLevel` has built in, which is GPT-2's.
HF_PATTERNS = {
    "r50k_base": None,
    "cl100k_base": (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
        r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
}


def write_vocabulary(name: str, folder: Path) -> None:
    """Write the files of one vocabulary into `folder`."""
    ranks = _ranks(name)
    lines = [base64.b64encode(token) + b" %d\n" % rank for token, rank in ranks.items()]
    tiktoken_file(name, folder).write_bytes(b"".join(lines))
    _hugging_face(ranks, HF_PATTERNS[name]).save(str(hugging_face_file(name, folder)))


def tiktoken_file(name: str, folder: Path) -> Path:
    return folder / f"{name}.tiktoken"


def hugging_face_file(name: str, folder: Path) -> Path:
    return folder / f"{name}.tokenizer.json"


def tiktoken_encoding(name: str, folder: Path) -> tiktoken.Encoding:
    """tiktoken's own definition of the encoding, over the ranks in `folder` instead of a download."""
    ranks = _parse(tiktoken_file(name, folder).read_bytes())
    with mock.patch.object(openai_public, "load_tiktoken_bpe", return_value=ranks):
        return tiktoken.Encoding(**getattr(openai_public, name)())


def _ranks(name: str) -> dict[bytes, int]:
    published = SHARED / "tokenizers" / f"{name}.tiktoken.zst"
    if published.is_file():
        return _parse(pa.input_stream(str(published), compression="zstd").read())
    import nanofast

    tokenizer = nanofast.Tokenizer.from_name(name)
    ids = [token for token, length in enumerate(tokenizer.token_bytes()) if length]
    return {tokenizer.token_bytes(token): token for token in ids}


def _parse(lines: bytes) -> dict[bytes, int]:
    pairs = (line.split() for line in lines.splitlines() if line)
    return {base64.b64decode(token): int(rank) for token, rank in pairs}


def _hugging_face(ranks: dict[bytes, int], pattern: str | None):  # type: ignore[no-untyped-def]
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    letters = _byte_letters()
    vocab = {"".join(letters[byte] for byte in token): rank for token, rank in ranks.items()}
    merges = []
    for token, rank in ranks.items():
        if len(token) > 1 and (parts := _last_merge(token, rank, ranks)):
            merges.append(tuple("".join(letters[byte] for byte in part) for part in parts))
    # tiktoken takes a pretoken that is a token whole, before any merge.
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=True))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)
    if pattern is None:
        tokenizer.pre_tokenizer = byte_level
    else:
        split = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    return tokenizer


def _last_merge(token: bytes, rank: int, ranks: dict[bytes, int]) -> list[bytes] | None:
    """The two tokens whose merge makes `token`: what it merges to with the ranks below its own.

    A known way back from ranks to merges, as in the converters of `transformers`. None where no merge makes it.
    """
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        found = [ranks.get(left + right, rank) for left, right in pairwise(parts)]
        best = min(found)
        if best >= rank:
            return None
        at = found.index(best)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts


def _byte_letters() -> list[str]:
    """The letter that stands for each byte in byte-level vocabularies (GPT-2's table)."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]
