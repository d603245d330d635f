"""Bits per byte, exact in bytes."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

import nanofast
from nanofast.config import Config, DataSettings, ModelSettings, ScheduleSettings
from nanofast.derive import derive
from nanofast.distributed import World
from nanofast.evaluate import Validation, batch_sums, bits_per_byte
from nanofast.model import GPT, GPTConfig
from nanofast.run_data import open_validation_loader
from stand_in import BOS, ByteTokenizer, RowLoader


def test_counts_only_learned_targets_and_only_text_bytes() -> None:
    token_bytes = torch.tensor([3, 1, 0, 7])  # id 2 is a special token
    targets = torch.tensor([[0, 1, 2], [3, -1, 0]])
    loss = torch.tensor([[1.0, 2.0, 4.0], [8.0, 0.0, 16.0]])
    found = Validation.from_sums(batch_sums(loss, targets, token_bytes).tolist())
    assert (found.tokens, found.bytes) == (5, 3 + 1 + 7 + 3)
    assert found.loss == pytest.approx(31 / 5)
    assert found.bpb == pytest.approx((1 + 2 + 8 + 16) / math.log(2) / 14)


def test_a_uniform_guess_over_n_tokens_of_one_byte_costs_log2_n_bits() -> None:
    model = GPT(GPTConfig(vocab_size=257, sequence_length=16, n_layer=1, n_head=1, n_embd=8))
    model.initialize(torch.Generator().manual_seed(0))
    with torch.no_grad():
        model.head.weight.zero_()
    token_bytes = torch.from_numpy(ByteTokenizer().token_bytes())
    found = bits_per_byte(model, RowLoader(2, 16), token_bytes, num_batches=3)
    assert found.bpb == pytest.approx(math.log2(257), rel=1e-6)
    assert found.tokens == found.bytes == 2 * 16 * 3


def test_equals_a_sum_over_the_text_itself() -> None:
    model = GPT(GPTConfig(vocab_size=257, sequence_length=16, n_layer=1, n_head=1, n_embd=8))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.5, generator=generator)
    loader = RowLoader(1, 16)
    row = loader.row(0)
    probabilities = model(torch.tensor([row[:-1]]))[0].double().softmax(-1).detach().numpy()
    bits = sum(-np.log2(probabilities[i, row[i + 1]]) for i in range(16))
    num_bytes = len(ByteTokenizer().decode(row[1:]).encode())
    found = bits_per_byte(model, loader, torch.from_numpy(ByteTokenizer().token_bytes()), num_batches=1)
    assert row[0] == BOS
    assert found.bpb == pytest.approx(bits / num_bytes, rel=1e-5)


def test_is_the_same_at_any_batch_size() -> None:
    model = GPT(GPTConfig(vocab_size=257, sequence_length=16, n_layer=1, n_head=1, n_embd=8))
    model.initialize(torch.Generator().manual_seed(0))
    token_bytes = torch.from_numpy(ByteTokenizer().token_bytes())
    found = [bits_per_byte(model, RowLoader(rows, 16), token_bytes, num_batches=8 // rows) for rows in (1, 2, 8)]
    assert len({(f.tokens, f.bytes) for f in found}) == 1
    assert found[0].bpb == pytest.approx(found[1].bpb, rel=1e-6) == pytest.approx(found[2].bpb, rel=1e-6)


def rank_sums(corpus: tuple[Path, Path], world_size: int, rows: int, model: GPT) -> list[float]:
    """The sums of all ranks' validation batches, rank after rank in this process."""
    tokenizer = nanofast.Tokenizer.from_file(corpus[1])
    token_bytes_V = torch.from_numpy(tokenizer.token_bytes())
    settings = Config(
        model=ModelSettings(depth=1, n_embd=32, sequence_length=32),
        schedule=ScheduleSettings(device_batch_size=rows),
        data=DataSettings(data=str(corpus[0]), loader_threads=1),
    )
    config = derive(settings, world_size=world_size, device_type="cpu")
    sums = torch.zeros(4, dtype=torch.float64)
    for rank in range(world_size):
        world = World(rank, world_size, rank, world_size, torch.device("cpu"))
        loader, num_batches = open_validation_loader(config, None, tokenizer, world, tokens=2100)
        with loader, torch.no_grad():
            for _ in range(num_batches):
                inputs, targets = next(loader)
                assert inputs.size(0) <= rows
                sums += batch_sums(model.loss(inputs, targets)[1], targets, token_bytes_V)
    return sums.tolist()


def test_validation_is_the_same_at_any_batch_size_and_world_size(sample_corpus: tuple[Path, Path]) -> None:
    """The same targets, not only as many: their losses add up to the same."""
    vocab_size = nanofast.Tokenizer.from_file(sample_corpus[1]).vocab_size
    model = GPT(GPTConfig(vocab_size=vocab_size, sequence_length=32, n_layer=1, n_head=1, n_embd=32))
    model.initialize(torch.Generator().manual_seed(0))
    with torch.no_grad():
        model.head.weight.mul_(1000)  # losses that tell targets apart
    expected = rank_sums(sample_corpus, 1, 8, model)
    assert expected[1] == 8 * 16 * 32, "2,100 tokens rounded up to whole rows of eight lanes, and to eight rows of each"
    for world_size, rows in ((1, 3), (4, 2)):
        assert rank_sums(sample_corpus, world_size, rows, model) == pytest.approx(expected, rel=1e-6)


def test_nothing_to_learn_is_not_a_number_but_no_error() -> None:
    found = Validation.from_sums(batch_sums(torch.zeros(1, 2), torch.tensor([[-1, -1]]), torch.tensor([1, 1])).tolist())
    assert math.isnan(found.loss)
    assert math.isnan(found.bpb)
    assert (found.tokens, found.bytes) == (0, 0)
