"""The tokenizer's ids are those of tiktoken, whatever the text."""

from __future__ import annotations

import base64
import pickle
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import IS_LONG
from nanofast.tokenizer import Tokenizer

tiktoken = pytest.importorskip("tiktoken")
pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

Encoding = Any

DATA = Path(__file__).parents[3] / "shared" / "data"
NAMES = ["r50k_base", "p50k_base", "cl100k_base", "o200k_base"]
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"no corpora in {DATA}")

GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
PATTERNS = {
    "r50k_base": GPT2,
    "p50k_base": GPT2,
    "cl100k_base": r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"
    r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s",
    "o200k_base": r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
}
SPECIALS = {
    "r50k_base": {"<|endoftext|>": 50256},
    "p50k_base": {"<|endoftext|>": 50256},
    "cl100k_base": {
        "<|endoftext|>": 100257,
        "<|fim_prefix|>": 100258,
        "<|fim_middle|>": 100259,
        "<|fim_suffix|>": 100260,
        "<|endofprompt|>": 100276,
    },
    "o200k_base": {"<|endoftext|>": 199999, "<|endofprompt|>": 200018},
}


@pytest.fixture(scope="module", params=NAMES)
def peer(request: pytest.FixtureRequest) -> Encoding:
    name: str = request.param
    packed = (DATA / "tokenizers" / f"{name}.tiktoken.zst").read_bytes()
    lines = unpacked(packed).splitlines()
    ranks = {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in lines)}
    return tiktoken.Encoding(name, pat_str=PATTERNS[name], mergeable_ranks=ranks, special_tokens=SPECIALS[name])


@pytest.fixture(scope="module")
def tokenizer(peer: Encoding) -> Tokenizer:
    return Tokenizer.from_name(peer.name)


def unpacked(packed: bytes) -> bytes:
    data: bytes = pa.input_stream(pa.BufferReader(packed), compression="zstd").read()
    return data


def texts(corpus: str, every: int = 1) -> Iterator[str]:
    """Each `every`-th text of a corpus, without the longest; a sixth of that in the fast profile."""
    every, longest = (every, 1_000_000) if IS_LONG else (6 * every, 20_000)
    for file in sorted((DATA / "corpus" / corpus).glob("*.parquet")):
        found = parquet.read_table(file, columns=["text"])["text"].to_pylist()
        yield from [text for text in found if len(text) < longest][::every]


@pytest.mark.parametrize(("corpus", "every"), [("web_en", 23), ("multi", 7), ("hard", 1)])
def test_gives_the_ids_of_tiktoken(tokenizer: Tokenizer, peer: Encoding, corpus: str, every: int) -> None:
    sample = list(texts(corpus, every))
    # tiktoken recurses over long runs of one class; a document that overflows its stack cannot be compared.
    sample = [text for text in sample if not is_too_deep_for_tiktoken(text)]
    values, offsets = tokenizer.encode_batch(sample)
    for index, text in enumerate(sample):
        expected = peer.encode_ordinary(text)
        found = values[offsets[index] : offsets[index + 1]]
        assert np.array_equal(found, expected), f"{corpus} document {index}: {text[:80]!r}"
        assert tokenizer.decode(found) == text


def is_too_deep_for_tiktoken(text: str) -> bool:
    return re.search(r"\s{100000}", text) is not None


def test_is_the_published_vocabulary(tokenizer: Tokenizer, peer: Encoding) -> None:
    assert tokenizer.vocab_size == peer.n_vocab
    assert tokenizer.special_tokens == SPECIALS[peer.name]
    assert tokenizer.bos_id == peer.eot_token
    lengths = tokenizer.token_bytes()
    assert lengths.dtype == np.int32
    expected = np.zeros(peer.n_vocab, np.int32)
    for token, rank in peer._mergeable_ranks.items():
        expected[rank] = len(token)
        assert tokenizer.token_bytes(rank) == token
    assert np.array_equal(lengths, expected)


def test_is_the_same_tokenizer_however_it_is_loaded(tokenizer: Tokenizer, peer: Encoding, tmp_path: Path) -> None:
    file = tmp_path / "some.tiktoken"
    lines = (base64.b64encode(token) + b" %d\n" % rank for token, rank in peer._mergeable_ranks.items())
    file.write_bytes(b"".join(lines))
    tokenizer.save(tmp_path / "own.json")
    copies = [
        Tokenizer.from_tiktoken(peer),
        Tokenizer.from_file(file, pattern=PATTERNS[peer.name], special_tokens=SPECIALS[peer.name]),
        Tokenizer.from_file(tmp_path / "own.json"),
        pickle.loads(pickle.dumps(tokenizer)),
    ]
    for copy in copies:
        assert copy.fingerprint == tokenizer.fingerprint
        assert np.array_equal(copy.encode("naïve text, 12345\n"), tokenizer.encode("naïve text, 12345\n"))


def test_refuses_bytes_that_are_no_utf8(tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match=r"invalid UTF-8 .*byte 3"):
        tokenizer.encode(b"abc\xff")
    with pytest.raises(ValueError, match=r"texts\[1\].*byte 0"):
        tokenizer.encode_batch(["fine", b"\x80"])


def test_special_tokens_are_plain_text(tokenizer: Tokenizer) -> None:
    assert tokenizer.bos_id not in tokenizer.encode("<|endoftext|>")


def test_allowed_special_tokens_are_taken(tokenizer: Tokenizer, peer: Encoding) -> None:
    text = "one<|endoftext|> two<|endofprompt|>"
    assert np.array_equal(tokenizer.encode(text, allowed_special="all"), peer.encode(text, allowed_special="all"))
    some = {"<|endoftext|>"}
    expected = peer.encode(text, allowed_special=some, disallowed_special=())
    assert np.array_equal(tokenizer.encode(text, allowed_special=some), expected)
    with pytest.raises(ValueError, match="no special token"):
        tokenizer.encode(text, allowed_special=["<|nonsense|>"])


def test_all_ways_to_encode_agree(tokenizer: Tokenizer) -> None:
    sample = [text for text in texts("hard") if len(text) < 10_000][:300]
    values, offsets = tokenizer.encode_batch(sample)
    for num_threads in (2, 3):
        again = tokenizer.encode_batch(sample, num_threads=num_threads)
        assert np.array_equal(again[0], values)
        assert np.array_equal(again[1], offsets)
    place = np.zeros(len(values) + 1, np.uint32)
    assert np.array_equal(tokenizer.encode_batch_to(sample, place), offsets)
    assert np.array_equal(place[:-1], values)
    assert place[-1] == 0
    for index, text in enumerate(sample[:50]):
        ids = values[offsets[index] : offsets[index + 1]]
        out = np.zeros(len(ids) + 3, np.uint32)
        assert tokenizer.encode_to(text, out) == tokenizer.count_tokens(text) == len(ids)
        assert np.array_equal(out[: len(ids)], ids)
        found, spans = tokenizer.encode_with_offsets(text)
        assert np.array_equal(found, ids)
        assert b"".join(text.encode()[start:end] for start, end in spans) == text.encode()
        if len(ids) > 0:
            with pytest.raises(ValueError, match="larger array"):
                tokenizer.encode_to(text, out[: len(ids) - 1])


def test_decodes_a_stream_without_broken_characters(tokenizer: Tokenizer) -> None:
    text = "naïve 文字 👩‍👩‍👧 \U00010330 end"
    decoder = tokenizer.decoder()
    pieces = [decoder.push([int(token)]) for token in tokenizer.encode(text)]
    assert "".join(pieces) == text
    assert decoder.finish() == ""
    decoder.push(tokenizer.encode("文")[:-1] if len(tokenizer.encode("文")) > 1 else [])
    assert decoder.finish() in ("", "\ufffd")


def test_other_libraries_read_what_is_saved(tokenizer: Tokenizer, peer: Encoding, tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer.save(tmp_path / "tokenizer.json", format="huggingface")
    reader = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    reader.encode_special_tokens = True
    again = Tokenizer.from_file(tmp_path / "tokenizer.json")
    for text in [text for text in texts("hard") if len(text) < 5000][::5]:
        expected = peer.encode_ordinary(text)
        assert reader.encode(text, add_special_tokens=False).ids == expected, text[:80]
        assert np.array_equal(again.encode(text), expected)
    tokenizer.save(tmp_path / "ranks.tiktoken", format="tiktoken")
    lines = (tmp_path / "ranks.tiktoken").read_bytes().splitlines()
    assert {base64.b64decode(token): int(rank) for token, rank in map(bytes.split, lines)} == peer._mergeable_ranks


HUGGING_FACE = ["llama3", "qwen3", "deepseek_v3"]


@pytest.mark.parametrize("name", HUGGING_FACE)
def test_gives_the_ids_of_hugging_face(name: str, tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    packed = (DATA / "tokenizers" / f"{name}.tokenizer.json.zst").read_bytes()
    file = tmp_path / "tokenizer.json"
    file.write_bytes(unpacked(packed))
    reader = tokenizers.Tokenizer.from_file(str(file))
    reader.encode_special_tokens = True
    tokenizer = Tokenizer.from_file(file)
    sample = [*texts("hard"), *texts("multi", 11), *texts("web_en", 101)]
    values, offsets = tokenizer.encode_batch(sample)
    for index, expected in enumerate(reader.encode_batch(sample, add_special_tokens=False)):
        assert np.array_equal(values[offsets[index] : offsets[index + 1]], expected.ids), sample[index][:80]


def test_offsets_of_normalized_text_are_those_of_hugging_face(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    packed = (DATA / "tokenizers" / "qwen3.tokenizer.json.zst").read_bytes()
    file = tmp_path / "tokenizer.json"
    file.write_bytes(unpacked(packed))
    reader, tokenizer = tokenizers.Tokenizer.from_file(str(file)), Tokenizer.from_file(file)
    decomposed = [unicodedata.normalize("NFD", text) for text in texts("multi", 83)]
    marks = ["cafe\u0301 \u2126\u212b", "e\u0301\u0302\u0323\u0301", "\u1100\u1161\u11a8 \uac00\u11a8", "\u0958\u0344"]
    sample = [text for text in [*marks, *decomposed, *texts("hard", 3)] if len(text) < 20_000]
    assert any(unicodedata.normalize("NFC", text) != text for text in sample)
    for text in sample:
        ids, spans = tokenizer.encode_with_offsets(text)
        # Hugging Face counts characters, and gives a part of one the whole of it.
        borders = np.cumsum([0, *(len(character.encode()) for character in text)])
        starts = np.searchsorted(borders, spans[:, 0], "right") - 1
        ends = np.searchsorted(borders, spans[:, 1], "left")
        expected = reader.encode(text, add_special_tokens=False)
        if expected.ids == ids.tolist():  # special tokens in a text are tokens there
            theirs = np.array(expected.offsets).reshape(-1, 2)
            assert np.array_equal(starts, theirs[:, 0]), text[:80]
            # A composed character is the first of its parts there, and all of them here.
            assert np.all(ends >= theirs[:, 1]), text[:80]
            assert len(spans) == 0 or spans[:, 1].max() == len(text.encode()), text[:80]
