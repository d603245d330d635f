"""Training gives the merges of Hugging Face's trainer, and a tokenizer that both libraries read alike."""

from __future__ import annotations

import numpy as np
import pytest

from nanofast.tokenizer import Tokenizer

pytest.importorskip("tokenizers")

DOCUMENTS = [f"The {word} sat on the {word}'s mat, {count} times.\n" for count, word in enumerate(["cat", "rat"] * 50)]


def test_trains_what_it_is_asked_for() -> None:
    tokenizer = Tokenizer.train(DOCUMENTS, vocab_size=300, special_tokens=["<|bos|>", "<|end|>"])
    assert tokenizer.vocab_size <= 300
    assert list(tokenizer.special_tokens) == ["<|bos|>", "<|end|>"]
    assert tokenizer.bos_id == tokenizer.special_tokens["<|bos|>"]
    text = DOCUMENTS[3]
    ids = tokenizer.encode(text)
    assert len(ids) < len(text)
    assert tokenizer.decode(ids) == text


def test_training_is_deterministic() -> None:
    first = Tokenizer.train(iter(DOCUMENTS), vocab_size=290)
    assert first.fingerprint == Tokenizer.train(DOCUMENTS, vocab_size=290).fingerprint
    assert first.fingerprint != Tokenizer.train(DOCUMENTS[:1], vocab_size=290).fingerprint
    assert np.array_equal(first.encode("cat"), Tokenizer.train(DOCUMENTS, vocab_size=290).encode("cat"))


def test_refuses_a_vocabulary_smaller_than_its_bytes() -> None:
    with pytest.raises(ValueError, match="at least 257"):
        Tokenizer.train(DOCUMENTS, vocab_size=256)
