"""The model against written-out twins: attention, rotary positions, the loss, counts."""

from __future__ import annotations

import math

import pytest
import torch

from nanofast.fused import rms_norm
from nanofast.model import GPT, GPTConfig, KVCache, rotary_tables, rotate

CONFIG = GPTConfig(vocab_size=100, sequence_length=16, n_layer=2, n_head=2, n_embd=32)


def made(config: GPTConfig = CONFIG, dtype: torch.dtype = torch.float32) -> GPT:
    model = GPT(config, dtype)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():  # no zeros, as `initialize` has: each part must show in the result
            parameter.normal_(0, 0.2, generator=generator)
    return model


def ids(rows: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, CONFIG.vocab_size, (rows, length), generator=torch.Generator().manual_seed(seed))


def test_attention_equals_a_written_out_one() -> None:
    model = made()
    attention = model.blocks[0].attention
    x = torch.randn(3, 16, 32, generator=torch.Generator().manual_seed(2))
    cos, sin = model.cos_TD, model.sin_TD
    found = attention(x, cos, sin, None)

    heads, size = CONFIG.n_head, CONFIG.head_size
    query, key, value = (
        layer(x).view(3, 16, heads, size) for layer in (attention.query, attention.key, attention.value)
    )
    expected = torch.zeros(3, 16, heads, size)
    for b in range(3):
        for h in range(heads):
            for t in range(16):
                turned_query = rms_norm(
                    rotate(query[b, t : t + 1, h][None, :, None], cos[t : t + 1], sin[t : t + 1])
                ).flatten()
                scores = []
                for s in range(t + 1):
                    turned_key = rms_norm(
                        rotate(key[b, s : s + 1, h][None, :, None], cos[s : s + 1], sin[s : s + 1])
                    ).flatten()
                    scores.append(turned_query @ turned_key / math.sqrt(size))
                weights = torch.stack(scores).softmax(dim=0)
                expected[b, t, h] = weights @ value[b, : t + 1, h]
    torch.testing.assert_close(found, attention.output(expected.flatten(2)), atol=1e-5, rtol=1e-4)


def test_a_position_does_not_see_later_ones() -> None:
    model = made()
    one = ids(1, 16)
    other = one.clone()
    other[0, 9] = (other[0, 9] + 1) % CONFIG.vocab_size
    before, after = model(one), model(other)
    torch.testing.assert_close(before[:, :9], after[:, :9])
    assert (before[:, 9:] - after[:, 9:]).abs().max() > 1e-3


def test_rotation_keeps_lengths_and_depends_on_distance_alone() -> None:
    cos, sin = rotary_tables(32, 8, 10_000.0)
    generator = torch.Generator().manual_seed(3)
    query, key = torch.randn(8, generator=generator), torch.randn(8, generator=generator)
    queries = rotate(query.expand(1, 32, 1, 8), cos, sin)[0, :, 0]
    keys = rotate(key.expand(1, 32, 1, 8), cos, sin)[0, :, 0]
    torch.testing.assert_close(queries.norm(dim=-1), query.norm().expand(32))
    torch.testing.assert_close(queries[7] @ keys[4], queries[25] @ keys[22])
    assert (queries[7] @ keys[4] - queries[7] @ keys[3]).abs() > 1e-3


def test_queries_and_keys_are_normed_so_their_scale_does_not_matter() -> None:
    model = made()
    before = model(ids(2, 16))
    with torch.no_grad():
        model.blocks[0].attention.query.weight.mul_(10)
        model.blocks[0].attention.key.weight.mul_(0.1)
    torch.testing.assert_close(model(ids(2, 16)), before, atol=1e-4, rtol=1e-4)


def test_losses_are_per_target_and_zero_where_ignored() -> None:
    model, inputs, targets = made(), ids(2, 16), ids(2, 16, seed=5)
    targets[0, :5] = -1
    total, loss = model.loss(inputs, targets)
    logits = model(inputs)
    assert loss.shape == (2, 16)
    torch.testing.assert_close(total, loss.sum())
    assert (loss[0, :5] == 0).all()
    expected = -logits[1, 3].log_softmax(-1)[targets[1, 3]]
    torch.testing.assert_close(loss[1, 3], expected, atol=1e-5, rtol=1e-5)


def test_logits_stay_inside_the_soft_cap_and_padding_has_none() -> None:
    model = made()
    with torch.no_grad():
        model.head.weight.mul_(1000)
    logits = model(ids(1, 16))
    assert logits.shape[-1] == 100
    assert model.head.weight.shape[0] == 128
    assert logits.abs().max() <= CONFIG.logit_soft_cap
    assert logits.abs().max() > 0.9 * CONFIG.logit_soft_cap


def test_the_first_loss_is_that_of_a_uniform_guess() -> None:
    model = GPT(CONFIG)
    model.initialize(torch.Generator().manual_seed(0))
    assert model.loss(ids(4, 16), ids(4, 16, seed=9))[1].mean().item() == pytest.approx(math.log(100), abs=0.01)


def test_the_same_seed_makes_the_same_weights() -> None:
    first, second, other = GPT(CONFIG), GPT(CONFIG), GPT(CONFIG)
    for model, seed in ((first, 4), (second, 4), (other, 5)):
        model.initialize(torch.Generator().manual_seed(seed))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.embedding.weight, other.embedding.weight)


def test_bfloat16_activations_keep_float32_weights_and_gradients() -> None:
    model = made(dtype=torch.bfloat16)
    exact = made()
    loss = model.loss(ids(2, 16), ids(2, 16, seed=1))[0] / 32
    loss.backward()
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert {p.grad.dtype for p in model.parameters() if p.grad is not None} == {torch.float32}
    assert loss.item() == pytest.approx(exact.loss(ids(2, 16), ids(2, 16, seed=1))[1].mean().item(), rel=0.02)


def test_parameters_and_flops_are_counted_exactly() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    config = GPTConfig(vocab_size=128, sequence_length=64, n_layer=3, n_head=2, n_embd=64)
    model = made(config)
    counts = model.count_parameters()
    assert counts["matrices"] == 3 * 12 * 64 * 64
    assert counts["total"] == counts["matrices"] + 2 * 128 * 64 == sum(p.numel() for p in model.parameters())
    inputs = torch.randint(0, 128, (2, 64))
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model.loss(inputs, inputs)[0].backward()
    assert counter.get_total_flops() == model.flops_per_token() * 2 * 64


def test_a_cache_gives_the_same_logits_as_reading_everything_again() -> None:
    model, inputs = made(), ids(2, 12)
    whole = model(inputs)
    cache = KVCache(CONFIG, 2, 16, torch.device("cpu"), torch.float32)
    parts = [model(part, cache=cache) for part in (inputs[:, :5], inputs[:, 5:6], inputs[:, 6:9], inputs[:, 9:12])]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-4, rtol=1e-4)


def test_more_positions_than_the_model_has_are_refused() -> None:
    with pytest.raises(ValueError, match="position 17 is past the model's sequence_length 16"):
        made()(ids(1, 17))
