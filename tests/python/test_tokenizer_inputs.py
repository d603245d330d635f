"""Texts in every shape that people hold them in, and ids back to text."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanofast.tokenizer import Tokenizer

TEXTS = ["hello world", "", "naïve 文字 👩‍👩‍👧 e\u0301", "a\r\n\tb\u00a0\x00c", "<|endoftext|> is plain", "x" * 100]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_name("o200k_base")


@pytest.fixture(scope="module")
def expected(tokenizer: Tokenizer) -> tuple[Any, Any]:
    rows = [tokenizer.encode(text) for text in TEXTS]
    return np.concatenate(rows), np.cumsum([0, *map(len, rows)])


ARRAYS = {
    "list": lambda: TEXTS,
    "tuple": lambda: tuple(TEXTS),
    "generator": lambda: (text for text in TEXTS),
    "bytes": lambda: [text.encode() for text in TEXTS],
    "bytearrays": lambda: [bytearray(text.encode()) for text in TEXTS],
    "arrow string": lambda: pa.array(TEXTS),
    "arrow large string": lambda: pa.array(TEXTS, pa.large_string()),
    "arrow string view": lambda: pa.array(TEXTS, pa.string_view()),
    "arrow binary": lambda: pa.array([text.encode() for text in TEXTS], pa.binary()),
    "arrow large binary": lambda: pa.array([text.encode() for text in TEXTS], pa.large_binary()),
    "arrow slice": lambda: pa.array(["before", None, *TEXTS, "after", None])[2:-2],
    "arrow view slice": lambda: pa.array(["before, and quite long", None, *TEXTS], pa.string_view())[2:],
    "arrow chunks": lambda: pa.chunked_array([TEXTS[:2], [], TEXTS[2:]], pa.string()),
    "arrow view chunks": lambda: pa.chunked_array([TEXTS[:2], TEXTS[2:]], pa.string_view()),
    "numpy objects": lambda: np.array(TEXTS, object),
    "numpy fixed width": lambda: np.array(TEXTS),
    "numpy other byte order": lambda: np.array(TEXTS).astype(np.array(TEXTS).dtype.newbyteorder()),
    "numpy strided": lambda: np.array([[text, "other"] for text in TEXTS])[:, 0],
    "numpy bytes": lambda: np.array([text.encode() for text in TEXTS]),
}
if hasattr(np.dtypes, "StringDType"):
    ARRAYS["numpy strings"] = lambda: np.array(TEXTS, np.dtypes.StringDType())


@pytest.mark.parametrize("kind", ARRAYS)
@pytest.mark.parametrize("num_threads", [1, 3])
def test_a_batch_may_come_as_any_array_of_strings(
    tokenizer: Tokenizer, expected: tuple[Any, Any], kind: str, num_threads: int
) -> None:
    values, offsets = tokenizer.encode_batch(ARRAYS[kind](), num_threads=num_threads)
    assert values.dtype == np.uint32
    assert offsets.dtype == np.int64
    assert np.array_equal(values, expected[0])
    assert np.array_equal(offsets, expected[1])


@pytest.mark.parametrize(
    "empty", [[], pa.array([], pa.string()), pa.chunked_array([], pa.string()), np.array([], "U3")]
)
def test_an_empty_batch_has_one_offset(tokenizer: Tokenizer, empty: Any) -> None:
    values, offsets = tokenizer.encode_batch(empty, num_threads=2)
    assert len(values) == 0
    assert offsets.tolist() == [0]


def test_arrow_memory_is_released_after_use(tokenizer: Tokenizer) -> None:
    before = pa.total_allocated_bytes()
    for kind in (pa.string(), pa.large_string(), pa.string_view()):
        array = pa.chunked_array([pa.array(["some text of more than twelve bytes"] * 1000, kind)])
        tokenizer.encode_batch(array, num_threads=2)
        with pytest.raises(ValueError, match="null"):
            tokenizer.encode_batch(pa.array(["long enough for a buffer", None], kind))
        del array
    assert pa.total_allocated_bytes() == before


@pytest.mark.parametrize(
    ("texts", "error", "message"),
    [
        (pa.array(["a", None]), ValueError, r"texts\[1\] is null"),
        (pa.chunked_array([["a"], ["b", None]]), ValueError, r"texts\[2\] is null"),
        (pa.array([1, 2]), TypeError, "Arrow array of format `l`; expected strings"),
        (pa.array(["a", "b"]).dictionary_encode(), TypeError, "dictionary-encoded; cast"),
        (pa.table({"text": ["a"]}), TypeError, "a table or struct; expected one column"),
        (np.array([1.5]), TypeError, "an array of float64; expected strings"),
        (np.array([["a"]]), TypeError, "2 dimensions; expected 1"),
        (["a", 3], TypeError, r"texts\[1\] is of type int; expected str or bytes"),
        ("one text", TypeError, "a single text; expected a list"),
        (["fine", "\ud800"], ValueError, r"texts\[1\].*character 0 is a surrogate.*errors=\"replace\""),
        ([b"fine", b"ab\xff"], ValueError, r"invalid UTF-8 in `texts\[1\]`, byte 2"),
    ],
)
def test_what_is_no_batch_of_texts_is_refused_in_words(
    tokenizer: Tokenizer, texts: Any, error: type[Exception], message: str
) -> None:
    for num_threads in (1, 2):
        with pytest.raises(error, match=message):
            tokenizer.encode_batch(texts, num_threads=num_threads)


def test_what_has_no_utf8_is_refused_or_replaced(tokenizer: Tokenizer) -> None:
    bad = b"a\xff\xe2\x82b \xf0\x9f\x98"
    fixed = bad.decode("utf-8", "replace")
    for encode in (tokenizer.encode, tokenizer.count_tokens, tokenizer.encode_with_offsets):
        with pytest.raises(ValueError, match=r"invalid UTF-8 .*byte 1"):
            encode(bad)
    ids = tokenizer.encode(bad, errors="replace")
    assert tokenizer.decode(ids) == fixed
    assert tokenizer.count_tokens(bad, errors="replace") == len(ids)
    assert np.array_equal(tokenizer.encode_batch([b"x", bad], errors="replace")[0][1:], ids)
    out = np.zeros(50, np.uint32)
    assert tokenizer.encode_to(bad, out, errors="replace") == len(ids)
    with pytest.raises(ValueError, match="errors = 'ignore'"):
        tokenizer.encode("x", errors="ignore")  # type: ignore[arg-type]


@given(st.text(st.characters(exclude_categories=()), max_size=30))
def test_surrogates_are_replaced_as_tiktoken_does(text: str) -> None:
    tiktoken = pytest.importorskip("tiktoken")
    ranks = {bytes([byte]): byte for byte in range(256)}
    peer = tiktoken.Encoding("bytes", pat_str=r"\S+|\s+", mergeable_ranks=ranks, special_tokens={})
    ids = Tokenizer.from_tiktoken(peer).encode(text, errors="replace")
    assert ids.tolist() == peer.encode_ordinary(text)


@given(st.text(max_size=200), st.sampled_from(["r50k_base", "o200k_base"]))
def test_decoding_gives_back_every_text(text: str, name: str) -> None:
    tokenizer = NAMED.setdefault(name, Tokenizer.from_name(name))
    ids, spans = tokenizer.encode_with_offsets(text)
    assert tokenizer.decode(ids) == text
    assert np.array_equal(ids, tokenizer.encode(text))
    data = text.encode()
    assert [data[start:end] for start, end in spans] == [tokenizer.token_bytes(int(token)) for token in ids]
    assert tokenizer.count_tokens(text) == len(ids)
    decoder = tokenizer.decoder()
    pieces = [decoder.push([token]) for token in ids]
    assert "".join(pieces) == text
    assert decoder.finish() == ""


NAMED: dict[str, Tokenizer] = {}


def test_a_stream_never_breaks_a_character(tokenizer: Tokenizer) -> None:
    text = "👩‍👩‍👧 文字 naïve"
    # One byte at a time: the hardest stream.
    id_of = {tokenizer.token_bytes(token): token for token in range(256)}
    ids = [id_of[bytes([byte])] for byte in text.encode()]
    decoder = tokenizer.decoder()
    pieces = [decoder.push([token]) for token in ids]
    assert "".join(pieces) == text
    assert all("\ufffd" not in piece for piece in pieces)
    decoder.push(ids[:2])
    assert decoder.finish() == "\ufffd"
    assert decoder.push(tokenizer.encode("anew")) == "anew"


@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        ([1, 2_000_000], ValueError, r"no token has id 2000000 \(position 1\)"),
        ([-1], ValueError, "ids go from -1 to -1"),
        (np.array([2**40]), ValueError, "expected 0 to 4294967295"),
        ([1.5], TypeError, "ids are float64; expected whole numbers"),
        ([[1]], ValueError, "2 dimensions"),
    ],
)
def test_ids_that_are_none_are_refused(tokenizer: Tokenizer, ids: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        tokenizer.decode(ids)


def test_ids_may_be_of_any_whole_type(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("some ids")
    for kind in (np.int16 if ids.max() < 2**15 else np.int32, np.int64, np.uint64):
        assert tokenizer.decode(ids.astype(kind)) == "some ids"
    assert tokenizer.decode(np.repeat(ids, 2)[::2]) == "some ids"
    assert tokenizer.decode(ids.tolist()) == "some ids"
    assert tokenizer.decode([]) == ""


def test_copies_are_equal(tokenizer: Tokenizer) -> None:
    for other in (pickle.loads(pickle.dumps(tokenizer)), copy.deepcopy(tokenizer), copy.copy(tokenizer)):
        assert other.fingerprint == tokenizer.fingerprint
        assert np.array_equal(other.encode(TEXTS[2]), tokenizer.encode(TEXTS[2]))


def test_special_tokens_are_allowed_everywhere(tokenizer: Tokenizer) -> None:
    text = "a<|endoftext|>b"
    ids = tokenizer.encode(text, allowed_special="all")
    assert tokenizer.bos_id in ids
    assert tokenizer.bos_id not in tokenizer.encode(text)
    assert tokenizer.count_tokens(text, allowed_special="all") == len(ids)
    for num_threads in (1, 2):
        batch = tokenizer.encode_batch([text, text], allowed_special="all", num_threads=num_threads)
        assert np.array_equal(batch[0], np.tile(ids, 2))
    found, spans = tokenizer.encode_with_offsets(text, allowed_special={"<|endoftext|>"})
    assert np.array_equal(found, ids)
    assert spans.tolist() == [[0, 1], [1, 14], [14, 15]]


def test_too_small_a_place_is_left_as_it_was(tokenizer: Tokenizer) -> None:
    out = np.full(2, 7, np.uint32)
    with pytest.raises(ValueError, match="out = 2 ids: there are 3 tokens; pass a larger array"):
        tokenizer.encode_to("one two three", out)
    assert out.tolist() == [7, 7]
    with pytest.raises(ValueError, match="out = 2 ids: there are 4 tokens; pass a larger array"):
        tokenizer.encode_batch_to(["one", "two", "", "three four"], out)
