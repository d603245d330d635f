"""Optimizers: clipping, rates, state by name."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nanofast.config import OptimizerSettings
from nanofast.model import GPT, GPTConfig
from nanofast.optim import Optimizers, finish_gradients


def made() -> GPT:
    model = GPT(GPTConfig(vocab_size=64, sequence_length=8, n_layer=2, n_head=1, n_embd=16))
    model.initialize(torch.Generator().manual_seed(0))
    return model


def give_gradients(model: GPT, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize(("max_norm", "expected"), [(1.0, 1.0), (100.0, 10.0), (0.0, 10.0)])
def test_gradients_are_scaled_and_clipped_to_the_global_norm(max_norm: float, expected: float) -> None:
    parameters = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))]
    parameters[0].grad, parameters[1].grad = torch.tensor([3.0, 0.0]), torch.tensor([4.0])
    norm = finish_gradients(parameters, torch.tensor(2.0), max_norm)
    assert norm.item() == pytest.approx(10.0)
    gradients = torch.cat([p.grad for p in parameters if p.grad is not None])
    assert gradients.norm().item() == pytest.approx(expected, rel=1e-5)
    assert gradients[0] / gradients[2] == pytest.approx(0.75)


def test_every_parameter_moves_and_by_its_own_rate() -> None:
    model = made()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizers = Optimizers(model, OptimizerSettings(matrix_lr=0.01, embedding_lr=0.1, head_lr=0.001))
    give_gradients(model, 0)
    optimizers.set_lr(0.5)
    optimizers.step()
    moved = {name: (p - before[name]).abs().median().item() for name, p in model.named_parameters()}
    assert moved["embedding.weight"] == pytest.approx(0.05, rel=0.1)  # Adam's first step has the size of its rate
    assert moved["head.weight"] == pytest.approx(0.0005, rel=0.1)
    assert all(size > 0 for size in moved.values())


def test_state_leaves_and_enters_by_name() -> None:
    straight, interrupted = made(), made()
    one, other = Optimizers(straight, OptimizerSettings()), Optimizers(interrupted, OptimizerSettings())
    for step in range(4):
        if step == 2:
            resumed = Optimizers(interrupted, OptimizerSettings())
            resumed.load_state_tensors({name: tensor.clone() for name, tensor in other.state_tensors().items()})
            other = resumed
        for model, optimizers in ((straight, one), (interrupted, other)):
            give_gradients(model, step)
            optimizers.set_lr(1.0)
            optimizers.step()
            optimizers.zero_grad()
    assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), interrupted.parameters(), strict=True))


def test_state_of_another_model_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"blocks\.7"):
        Optimizers(made(), OptimizerSettings()).load_state_tensors(
            {"blocks.7.mlp.widen.weight/exp_avg": torch.zeros(1)}
        )
