"""Sampling: with and without the cache, seeds, limits."""

from __future__ import annotations

import pytest
import torch

from nanofast.generate import GenerateSettings, choose, continue_text, sample, stream
from nanofast.model import GPT, GPTConfig
from stand_in import BOS, ByteTokenizer

CONFIG = GPTConfig(vocab_size=257, sequence_length=24, n_layer=2, n_head=2, n_embd=32)


def made() -> GPT:
    model = GPT(CONFIG)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3, generator=generator)
    return model.eval()


def drawn(model: GPT, **settings: object) -> torch.Tensor:
    return torch.stack(list(sample(model, [BOS, 1, 2], **settings)))  # type: ignore[arg-type]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_is_the_same_with_and_without_the_cache(temperature: float) -> None:
    model = made()
    settings = {"num_tokens": 15, "temperature": temperature, "num_samples": 3, "seed": 7}
    assert torch.equal(drawn(model, use_cache=True, **settings), drawn(model, use_cache=False, **settings))


def test_a_seed_decides_and_other_seeds_differ() -> None:
    model = made()
    first, again, other = (drawn(model, num_tokens=10, temperature=1.0, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_several_samples_differ_from_each_other() -> None:
    found = drawn(made(), num_tokens=10, temperature=1.0, num_samples=2)
    assert not torch.equal(found[:, 0], found[:, 1])


def test_leaves_the_random_state_of_training_alone() -> None:
    model = made()
    before = torch.get_rng_state()
    drawn(model, num_tokens=3, temperature=1.0)
    assert torch.equal(torch.get_rng_state(), before)


def test_top_k_draws_among_the_likeliest_only() -> None:
    logits = torch.tensor([[0.0, 5.0, 4.0, 1.0]]).repeat(200, 1)
    found = choose(logits, 1.0, 2, torch.Generator().manual_seed(0))
    assert set(found.tolist()) == {1, 2}
    assert set(choose(logits, 0.0, 0, torch.Generator()).tolist()) == {1}


def test_top_p_draws_among_the_fewest_that_reach_it() -> None:
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log().repeat(300, 1)
    for top_p, kept in ((0.4, {0}), (0.6, {0, 1}), (0.9, {0, 1, 2}), (1.0, {0, 1, 2, 3})):
        found = choose(logits, 1.0, 0, torch.Generator().manual_seed(0), top_p)
        assert set(found.tolist()) == kept


def test_a_stream_shows_whole_characters_and_ends_with_the_document() -> None:
    class Scripted(ByteTokenizer):
        def decode_bytes(self, ids: list[int]) -> bytes:
            return bytes(ids)

    text = "né🙂"
    script = iter([*text.encode(), BOS, 65, 66])

    class Typist(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.config, self.head, self.compute_dtype = CONFIG, torch.nn.Linear(1, 1), torch.float32

        def forward(self, ids: torch.Tensor, cache: object = None) -> torch.Tensor:
            logits = torch.zeros(1, 1, 257)
            logits[0, 0, next(script)] = 9.0
            return logits

    shown: list[str] = []
    settings = GenerateSettings(prompt="a", num_tokens=20, temperature=0.0)
    stream(Typist(), Scripted(), settings, shown.append)  # type: ignore[arg-type]
    assert "".join(shown) == "a" + text + "\n"
    assert "é" in shown
    assert "🙂" in shown


def test_ends_when_the_context_is_full() -> None:
    assert len(drawn(made(), num_tokens=100)) == CONFIG.sequence_length - 3 + 1


def test_a_prompt_longer_than_the_context_is_refused() -> None:
    with pytest.raises(ValueError, match="the prompt has 25 tokens; the model's sequence_length is 24"):
        next(sample(made(), [1] * 25, 1))


def test_text_ends_where_the_model_begins_another_document() -> None:
    model = made()
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.weight[BOS] = model.hidden(torch.tensor([[BOS, ord("a")]]))[0, -1]
    assert continue_text(model, ByteTokenizer(), "a", 10, temperature=0) == ""
