"""Nanochat's shape: its published counts, and each of its parts against what it should do."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from nanofast.build import model_config
from nanofast.config import Config, ModelSettings
from nanofast.derive import derive
from nanofast.model import GPT, GPTConfig, KVCache

# Depth, million parameters and MFLOP a token at a vocabulary of 32,768 and 2,048 positions.
PUBLISHED = [(4, 36.7, 80), (8, 125.8, 296), (12, 286.3, 760), (20, 896.5, 2886)]
CONFIG = GPTConfig(
    vocab_size=100,
    sequence_length=16,
    n_layer=4,
    n_head=2,
    n_embd=32,
    window_pattern="SSSL",
    has_value_embeddings=True,
    has_residual_scales=True,
)


def made(config: GPTConfig = CONFIG) -> GPT:
    model = GPT(config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.2, generator=generator)
    return model


def ids(rows: int, length: int) -> torch.Tensor:
    return torch.randint(0, CONFIG.vocab_size, (rows, length), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("depth", "millions", "mflop"), PUBLISHED)
def test_counts_are_the_published_ones(depth: int, millions: float, mflop: float) -> None:
    settings = ModelSettings(depth=depth, shape="nanochat", sequence_length=2048)
    config = derive(Config(model=settings), world_size=1, device_type="cpu")
    with torch.device("meta"):
        model = GPT(model_config(config, vocab_size=32_768))
    assert model.config.head_size == 128
    assert model.count_parameters()["total"] / 1e6 == pytest.approx(millions, rel=0.01)
    assert model.flops_per_token() / 1e6 == pytest.approx(mflop, rel=0.01)
    assert sum(p.numel() for p in model.parameters()) == model.count_parameters()["total"]


def test_the_letters_go_round_and_the_last_layer_sees_everything() -> None:
    config = dataclasses.replace(CONFIG, n_layer=6)
    assert [config.window(layer) for layer in range(6)] == [4, 4, 4, None, 4, None]
    assert [config.has_value_embedding(layer) for layer in range(6)] == [False, True] * 3


def test_a_layer_with_a_window_does_not_see_past_it() -> None:
    model = made(dataclasses.replace(CONFIG, n_layer=2))  # S, then L: what the first layer mixes reaches 3 back
    attention = model.blocks[0].attention
    x = torch.randn(1, 16, 32, generator=torch.Generator().manual_seed(2))
    other = x.clone()
    other[0, 5] += 1.0
    before, after = (attention(each, model.cos_TD, model.sin_TD, None) for each in (x, other))
    changed = (before - after).abs().amax(-1)[0] > 1e-6
    assert changed.nonzero().flatten().tolist() == [5, 6, 7, 8]


def test_value_embeddings_and_scales_do_what_they_say() -> None:
    model = made()
    before = model(ids(1, 16))
    with torch.no_grad():
        for table in model.value_embeddings.values():
            table.weight.zero_()
        model.stream_scale.fill_(1.0)
        model.start_scale.zero_()
    without = model(ids(1, 16))
    assert (before - without).abs().max() > 1e-3
    plain = GPT(dataclasses.replace(CONFIG, has_value_embeddings=False, has_residual_scales=False))
    plain.load_state_dict({name: tensor for name, tensor in model.state_dict().items() if name in plain.state_dict()})
    torch.testing.assert_close(plain(ids(1, 16)), without)


def test_a_cache_gives_the_same_logits_as_reading_everything_again() -> None:
    model, inputs = made(), ids(2, 12)
    whole = model(inputs)
    cache = KVCache(CONFIG, 2, 16, torch.device("cpu"), torch.float32)
    parts = [model(part, cache=cache) for part in (inputs[:, :7], inputs[:, 7:8], inputs[:, 8:11], inputs[:, 11:])]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-4, rtol=1e-4)


def test_every_part_is_trained() -> None:
    model = GPT(CONFIG)
    model.initialize(torch.Generator().manual_seed(0))
    for parameter in model.parameters():  # zeros, as the outputs begin with, let no gradient through
        with torch.no_grad():
            parameter.add_(0.01)
    model.loss(ids(2, 16), ids(2, 16))[0].backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())
