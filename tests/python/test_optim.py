"""Optimizers: clipping, rates, state by name."""

from __future__ import annotations

import dataclasses
from typing import Literal

import pytest
import torch
from torch import nn

from nanofast.config import OptimizerSettings
from nanofast.model import GPT, GPTConfig
from nanofast.muon import Muon, orthogonalize
from nanofast.optim import Optimizers

SETTINGS = OptimizerSettings(matrix_lr=0.02, embedding_lr=0.03, head_lr=0.003, weight_decay=0.1)


def made() -> GPT:
    model = GPT(GPTConfig(vocab_size=64, sequence_length=8, n_layer=2, n_head=1, n_embd=16))
    model.initialize(torch.Generator().manual_seed(0))
    return model


def give_gradients(model: GPT, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        gradient = torch.randn(parameter.shape, generator=generator)
        if parameter.grad is None:
            parameter.grad = gradient
        else:
            parameter.grad.copy_(gradient)


@pytest.mark.parametrize(("max_norm", "expected"), [(1.0, 1.0), (1e6, None), (0.0, None)])
def test_gradients_are_scaled_and_clipped_to_the_global_norm(max_norm: float, expected: float | None) -> None:
    model = made()
    optimizers = Optimizers(model, SETTINGS)
    give_gradients(model, 0)
    before = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).clone()
    norm = optimizers.finish_gradients(torch.tensor(2.0), max_norm)
    after = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    assert norm.item() == pytest.approx(2 * before.norm().item(), rel=1e-5)
    assert after.norm().item() == pytest.approx(expected or norm.item(), rel=1e-4)
    torch.testing.assert_close(after / after.norm(), before / before.norm())


def test_every_parameter_moves_and_by_its_own_rate() -> None:
    model = made()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizers = Optimizers(
        model, OptimizerSettings(optimizer="adamw", matrix_lr=0.01, embedding_lr=0.1, head_lr=0.001)
    )
    give_gradients(model, 0)
    optimizers.set(lr_fraction=0.5, momentum=0.95, decay_fraction=1.0)
    optimizers.step()
    moved = {name: (p - before[name]).abs().median().item() for name, p in model.named_parameters()}
    assert moved["embedding.weight"] == pytest.approx(0.05, rel=0.1)  # Adam's first step has the size of its rate
    assert moved["head.weight"] == pytest.approx(0.0005, rel=0.1)
    assert all(size > 0 for size in moved.values())


def test_state_leaves_and_enters_by_name() -> None:
    straight, interrupted = made(), made()
    one, other = Optimizers(straight, SETTINGS), Optimizers(interrupted, SETTINGS)
    for step in range(4):
        if step == 2:
            state = {name: tensor.clone() for name, tensor in other.state_tensors().items()}
            resumed = Optimizers(interrupted, SETTINGS)
            resumed.load_state_tensors(state)
            other = resumed
        for model, optimizers in ((straight, one), (interrupted, other)):
            give_gradients(model, step)
            optimizers.set(lr_fraction=1.0, momentum=0.95, decay_fraction=1.0)
            optimizers.step()
            optimizers.zero_grad()
    assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), interrupted.parameters(), strict=True))


def test_state_of_another_model_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"blocks\.7"):
        Optimizers(made(), SETTINGS).load_state_tensors({"blocks.7.mlp.widen.weight/exp_avg": torch.zeros(1)})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_stacked_muon_equals_torchs_matrix_by_matrix(dtype: torch.dtype, weight_decay: float) -> None:
    """Torch always iterates in bfloat16; a float32 iteration stays within what bfloat16 rounds away."""
    generator = torch.Generator().manual_seed(3)
    shapes = [(16, 16), (64, 16), (16, 64), (16, 16), (64, 16), (16, 16)]
    ours = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
    theirs = [nn.Parameter(p.detach().clone()) for p in ours]
    stacks = [torch.stack([p.detach() for p in ours if p.shape == shape]) for shape in dict.fromkeys(shapes)]
    stacked = Muon(stacks, lr=0.02, momentum=0.9, weight_decay=weight_decay, dtype=dtype)
    single = torch.optim.Muon(theirs, lr=0.02, momentum=0.9, weight_decay=weight_decay)
    for _ in range(4):
        for stack in stacks:
            stack.grad = torch.randn(stack.shape, generator=generator)
            equals = [p for p in theirs if p.shape == stack.shape[1:]]
            for parameter, gradient in zip(equals, stack.grad, strict=True):
                parameter.grad = gradient.clone()
        stacked.step()
        single.step()
    moved = 4 * 0.02
    tolerance = 1e-6 if dtype == torch.bfloat16 else 0.02 * moved
    for stack in stacks:
        found = torch.stack([p.detach() for p in theirs if p.shape == stack.shape[1:]])
        start = torch.stack([p.detach() for p in ours if p.shape == stack.shape[1:]])
        assert (stack - found).abs().max() < tolerance
        assert (stack - start).abs().max() > 10 * tolerance  # the tolerance is no licence


def test_an_orthogonalized_matrix_has_singular_values_near_one() -> None:
    generator = torch.Generator().manual_seed(0)
    for shape in ((3, 8, 8), (2, 32, 8), (2, 8, 32)):
        found = orthogonalize(torch.randn(shape, generator=generator), torch.float32)
        values = torch.linalg.svdvals(found)
        assert found.shape == shape
        assert values.min() > 0.3
        assert values.max() < 1.3


def test_muon_takes_stacks_of_matrices_only() -> None:
    with pytest.raises(ValueError, match=r"found a parameter of shape \(3,\)"):
        Muon([nn.Parameter(torch.zeros(3))], lr=0.1)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_a_skipped_step_leaves_weights_and_state_as_they_were(optimizer: Literal["muon", "adamw"]) -> None:
    model = made()
    optimizers = Optimizers(model, dataclasses.replace(SETTINGS, optimizer=optimizer))
    give_gradients(model, 0)
    optimizers.step(torch.tensor(0.0))
    weights = [p.detach().clone() for p in model.parameters()]
    state = {name: tensor.clone() for name, tensor in optimizers.state_tensors().items()}
    give_gradients(model, 1)
    for parameter in model.parameters():
        parameter.grad *= torch.nan  # type: ignore[operator]
    optimizers.step(torch.tensor(1.0))
    assert all(torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True))
    assert all(torch.equal(tensor, optimizers.state_tensors()[name]) for name, tensor in state.items())
    give_gradients(model, 2)
    optimizers.step(torch.tensor(0.0))
    assert not any(torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True))
