"""Vocabularies of other libraries give those libraries' ids, and those libraries read what is saved."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import IS_LONG
from nanofast import _nanofast
from nanofast.tokenizer import GPT4_PATTERN, Tokenizer

tiktoken = pytest.importorskip("tiktoken")
tokenizers = pytest.importorskip("tokenizers")
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers  # noqa: E402

NANOCHAT = GPT4_PATTERN.replace("{1,3}", "{1,2}")
TEXTS = [
    "It's 1234567 of THEM, isn't it?\n\n  \u00a0'self'\r\n\t minutes\n    \nThere \n\n\x0b",
    "naïve cafe\u0301 文字 ﬁ \u2126 👩‍👩‍👧 \U0001f1e9\U0001f1ea e\u0301\u0302\x00\x01",
    "    def f(x): return {'a': [1, 22, 333, 4444]}  # don't\n",
    "",
    " ",
    "<|bos|>special<tool>tokens<|end|> are   plain",
]


def hugging_face(*, normalizer: Any = None, pre_tokenizer: Any = None, special: tuple[str, ...] = ()) -> Any:
    """A small vocabulary, as Hugging Face's trainer makes it."""
    trained = tokenizers.Tokenizer(models.BPE())
    if normalizer is not None:
        trained.normalizer = normalizer
    trained.pre_tokenizer = pre_tokenizer or pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    trained.train_from_iterator(TEXTS * 3, trainer)
    return trained


def split_by(pattern: str) -> Any:
    split = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def check_equal(own: Tokenizer, peer: Any, texts: list[str] = TEXTS) -> None:
    peer.encode_special_tokens = True
    for text in texts:
        assert own.encode(text).tolist() == peer.encode(text, add_special_tokens=False).ids, text


def read(peer: Any, folder: Path) -> Tokenizer:
    peer.save(str(folder / "tokenizer.json"))
    return Tokenizer.from_file(folder / "tokenizer.json")


@pytest.mark.parametrize(
    "pre_tokenizer",
    [
        pre_tokenizers.ByteLevel(add_prefix_space=False),
        split_by(GPT4_PATTERN),
        split_by(NANOCHAT),
        # What Oniguruma reads in its own way: `+` behind a repetition, `$` before a newline.
        split_by(r"\p{N}{1,3}+|\s+$|[^\s\p{N}]+|\s"),
        split_by(r"^.|\w{2,3}+|\W"),
        pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        ),
        pre_tokenizers.Sequence(
            [pre_tokenizers.Split("e", behavior="isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        ),
    ],
)
def test_what_hugging_face_trains_is_read_and_written(pre_tokenizer: Any, tmp_path: Path) -> None:
    peer = hugging_face(pre_tokenizer=pre_tokenizer, special=("<|bos|>", "<|end|>"))
    own = read(peer, tmp_path)
    check_equal(own, peer)
    own.save(tmp_path / "again.json", format="huggingface")
    check_equal(own, tokenizers.Tokenizer.from_file(str(tmp_path / "again.json")))


def test_added_tokens_are_found_as_hugging_face_finds_them(tmp_path: Path) -> None:
    peer = hugging_face(normalizer=normalizers.NFC(), special=("<|bos|>",))
    peer.add_tokens(
        [
            AddedToken("<tool>", normalized=False),
            AddedToken("cafe\u0301", normalized=True),
            AddedToken("one", single_word=True),
            AddedToken("<l>", lstrip=True),
            AddedToken("<r>", rstrip=True, normalized=False),
            AddedToken("<tool><tool>", normalized=False),
        ]
    )
    texts = [
        *TEXTS,
        "a <tool> b<tool><tool><tool>c",
        "café cafe\u0301 decafe\u0301d",
        "one, none one",
        "x  <l>  <l>y <r> \n <r>  z",
        "<|bos|><tool><r>",
    ]
    own = read(peer, tmp_path)
    check_equal(own, peer, texts)
    check_equal(Tokenizer.from_file(_written(own, tmp_path)), peer, texts)


def _written(tokenizer: Tokenizer, folder: Path) -> Path:
    tokenizer.save(folder / "written.json", format="huggingface")
    return folder / "written.json"


def test_a_post_processor_is_run_only_where_asked(tmp_path: Path) -> None:
    peer = hugging_face(special=("<|bos|>", "<|end|>"))
    template = processors.TemplateProcessing("<|bos|> $A <|end|>", None, [("<|bos|>", 0), ("<|end|>", 1)])
    peer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    own = read(peer, tmp_path)
    assert own.bos_id == 0
    check_equal(own, peer)
    again = Tokenizer.from_file(_written(own, tmp_path))
    for text in TEXTS[:3]:
        expected = peer.encode(text).ids
        assert expected[0] == 0
        assert own.encode(text, add_special_tokens=True).tolist() == expected
        assert again.encode(text, add_special_tokens=True).tolist() == expected


@given(st.permutations(list(range(60))), st.text("abcde ", max_size=40))
def test_merges_in_any_order_give_the_ids_of_hugging_face(order: list[int], text: str) -> None:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    letters, tokens = list("abcde"), list("abcde")
    for index in range(60):
        tokens.append(tokens[index * 7 % len(tokens)] + tokens[(index * 3 + 1) % len(tokens)])
    made = dict.fromkeys(token for token in tokens if token not in letters)
    vocab = {token: index for index, token in enumerate([*alphabet, *made])}
    pairs = [
        (token[:cut], token[cut:])
        for token in made
        for cut in range(1, len(token))
        if {token[:cut], token[cut:]} <= vocab.keys()
    ]
    merges = [pairs[place % len(pairs)] for place in order]
    peer = tokenizers.Tokenizer(models.BPE(vocab, list(dict.fromkeys(merges))))
    peer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    own = Tokenizer(_nanofast.Tokenizer.from_json(peer.to_str().encode(), "permuted"))
    assert own.encode(text).tolist() == peer.encode(text).ids


def ranks_of(tokenizer: Tokenizer) -> dict[bytes, int]:
    specials = set(tokenizer.special_tokens.values())
    return {tokenizer.token_bytes(rank): rank for rank in range(tokenizer.vocab_size) if rank not in specials}


@pytest.mark.parametrize(
    "pattern", [NANOCHAT, GPT4_PATTERN, r"\p{N}{1,3}+| ?\p{L}++|\s++$|\s*[\r\n]|\s+(?!\S)|\s", r"[a-z]+"]
)
def test_a_tiktoken_encoding_is_taken_over_and_written(pattern: str, tmp_path: Path) -> None:
    trained = Tokenizer.train(TEXTS * 3, 350, NANOCHAT, ["<|bos|>", "<|user_start|>"])
    ranks = ranks_of(trained)
    peer = tiktoken.Encoding("mine", pat_str=pattern, mergeable_ranks=ranks, special_tokens=trained.special_tokens)
    own = Tokenizer.from_tiktoken(peer)
    assert own.bos_id == trained.special_tokens["<|bos|>"]
    for text in TEXTS:
        assert own.encode(text).tolist() == peer.encode_ordinary(text)
        assert own.encode(text, allowed_special="all").tolist() == peer.encode(text, allowed_special="all")
    own.save(tmp_path / "mine.tiktoken")
    lines = (tmp_path / "mine.tiktoken").read_bytes().splitlines()
    assert {base64.b64decode(token): int(rank) for token, rank in map(bytes.split, lines)} == ranks
    from tiktoken.load import load_tiktoken_bpe

    assert load_tiktoken_bpe(str(tmp_path / "mine.tiktoken")) == ranks
    # Hugging Face's library keeps what a pattern does not match only where it is told to.
    check_equal(own, tokenizers.Tokenizer.from_file(str(_written(own, tmp_path))))
    check_equal(
        Tokenizer.from_file(_written(own, tmp_path)), tokenizers.Tokenizer.from_file(str(_written(own, tmp_path)))
    )


def test_a_trained_vocabulary_is_read_by_both_libraries(tmp_path: Path) -> None:
    own = Tokenizer.train(TEXTS * 3, 350)
    check_equal(own, tokenizers.Tokenizer.from_file(str(_written(own, tmp_path))))
    own.save(tmp_path / "own.tiktoken")
    ranks = tiktoken.load.load_tiktoken_bpe(str(tmp_path / "own.tiktoken"))
    peer = tiktoken.Encoding("own", pat_str=GPT4_PATTERN, mergeable_ranks=ranks, special_tokens=own.special_tokens)
    for text in TEXTS:
        assert own.encode(text).tolist() == peer.encode_ordinary(text)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]"), "its model is WordPiece"),
        (models.Unigram([("<unk>", 0.0), ("a", -1.0)], 0), "its model is Unigram"),
        (models.WordLevel({"a": 0}, unk_token="a"), "its model is WordLevel"),
        (models.BPE({"a": 0}, [], byte_fallback=True), "byte fallback"),
        (models.BPE({"a": 0}, [], end_of_word_suffix="</w>"), "end-of-word suffix"),
        (models.BPE({"a": 0}, [], continuing_subword_prefix="##"), "continuing-subword prefix"),
        (models.BPE({"a": 0}, [], dropout=0.1), "BPE with dropout"),
    ],
)
def test_other_models_are_refused_by_name(model: Any, message: str, tmp_path: Path) -> None:
    peer = tokenizers.Tokenizer(model)
    peer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    with pytest.raises(ValueError, match=message):
        read(peer, tmp_path)


@pytest.mark.parametrize("kind", ["SentencePieceBPETokenizer", "BertWordPieceTokenizer", "CharBPETokenizer"])
def test_tokenizers_of_other_kinds_are_refused(kind: str, tmp_path: Path) -> None:
    peer = getattr(tokenizers.implementations, kind)()
    peer.train_from_iterator(TEXTS, vocab_size=100, show_progress=False)
    peer.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ValueError, match=r"is not supported|only byte-level BPE is supported|has no ByteLevel"):
        Tokenizer.from_file(tmp_path / "tokenizer.json")


def test_an_alphabet_with_gaps_is_refused_with_its_remedy(tmp_path: Path) -> None:
    peer = tokenizers.Tokenizer(models.BPE())
    peer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    peer.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=300, show_progress=False))
    with pytest.raises(ValueError, match=r"no token for the single byte 0x02.*whole byte alphabet"):
        read(peer, tmp_path)


def test_saving_is_whole_or_not_at_all(tmp_path: Path) -> None:
    trained = Tokenizer.train(TEXTS, 300)
    place = tmp_path / "tokenizer.json"
    trained.save(place)
    before = place.read_bytes()
    normalized = read(hugging_face(normalizer=normalizers.NFC()), tmp_path)
    with pytest.raises(ValueError, match=r"a \.tiktoken file cannot hold it: it normalizes its text"):
        normalized.save(place.with_suffix(".tiktoken"))
    with pytest.raises(ValueError, match="format = 'other'"):
        trained.save(place, format="other")  # type: ignore[arg-type]
    trained.save(place)
    assert place.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer.json"]
    assert np.array_equal(Tokenizer.from_file(place).encode(TEXTS[0]), trained.encode(TEXTS[0]))
    assert json.loads(before)["format"] == "nanofast-tokenizer"


O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
DEEPSEEK = [
    r"\p{N}{1,3}",
    "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^"""
    "\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
]
SCALARS = [chr(point) for point in range(0x110000) if not 0xD800 <= point < 0xE000]


@pytest.mark.parametrize("patterns", [[GPT4_PATTERN], [O200K], DEEPSEEK], ids=["GPT-4", "GPT-4o", "DeepSeek"])
def test_every_scalar_is_split_as_hugging_face_splits_it(patterns: list[str], tmp_path: Path) -> None:
    """All pairs of bytes merge, so that a pretoken that begins elsewhere has other ids."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pairs = [(one, other) for one in alphabet for other in alphabet]
    vocab = {token: index for index, token in enumerate([*alphabet, *map("".join, pairs)])}
    peer = tokenizers.Tokenizer(models.BPE(vocab, pairs))
    splits = [pre_tokenizers.Split(Regex(pattern), behavior="isolated") for pattern in patterns]
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    peer.pre_tokenizer = pre_tokenizers.Sequence([*splits, byte_level])
    own = read(peer, tmp_path)
    scalars = (
        SCALARS if IS_LONG else [*SCALARS[:0x600], *SCALARS[0x2000:0x2100], *SCALARS[0x3030:0x3110], *SCALARS[::211]]
    )
    for first in range(0, len(scalars), 10_000):
        some = scalars[first : first + 10_000]
        texts = [f"x{it}y {it}{it}1{it} '{it}\nA{it}a{it}B  {it}\u4e2d{it}\u4e2d" for it in some]
        values, offsets = own.encode_batch(texts)
        for index, expected in enumerate(peer.encode_batch_fast(texts)):
            assert values[offsets[index] : offsets[index + 1]].tolist() == expected.ids, hex(ord(some[index]))
