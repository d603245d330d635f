"""When blocks are compiled, and what is said when they are not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nanofast import compiling
from nanofast.compiling import compile_blocks, probe
from nanofast.model import GPT, GPTConfig
from nanofast.runlog import read_log
from trainer_parts import losses, tiny_trainer

CPU = torch.device("cpu")


def made() -> GPT:
    model = GPT(GPTConfig(vocab_size=64, sequence_length=8, n_layer=2, n_head=1, n_embd=16))
    model.initialize(torch.Generator().manual_seed(0))
    return model


@pytest.mark.parametrize(("wanted", "words"), [("off", "as configured"), ("auto", "costs more than it gains")])
def test_is_off_on_a_cpu_unless_asked_for(wanted: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "probe", lambda device: pytest.fail("nothing to probe"))
    is_on, reason = compile_blocks(made(), wanted, CPU)
    assert not is_on
    assert words in reason


def test_a_missing_compiler_means_eager_and_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("cannot find cc\nand much more")

    monkeypatch.setattr(torch, "compile", broken)
    assert probe(CPU) == "RuntimeError: cannot find cc"
    model = made()
    assert compile_blocks(model, "on", CPU) == (False, "the compiler does not work here (RuntimeError: cannot find cc)")
    assert model(torch.zeros(1, 8, dtype=torch.long)).shape == (1, 8, 64)


@pytest.mark.long
@pytest.mark.filterwarnings("default")
def test_compiled_blocks_give_the_same_losses_and_gradients() -> None:
    plain, compiled = made(), made()
    is_on, reason = compile_blocks(compiled, "on", CPU)
    if not is_on:
        pytest.skip(reason)
    inputs, targets = torch.zeros(2, 8, dtype=torch.long), torch.ones(2, 8, dtype=torch.long)
    for model in (plain, compiled):
        torch.autograd.backward(model.loss(inputs, targets)[0])
    for a, b in zip(plain.parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-4, rtol=1e-3)


def test_compiling_is_a_phase_before_the_first_step_and_changes_nothing(tmp_path: Path) -> None:
    plain, compiled = (
        tiny_trainer(tmp_path / "plain", num_iterations=3),
        tiny_trainer(tmp_path / "compiled", num_iterations=3),
    )
    compiled.is_compiled = True
    for trainer in (plain, compiled):
        trainer.fit()
        trainer.close()
    assert losses(tmp_path / "compiled") == losses(tmp_path / "plain")
    phases = [read_log(tmp_path / name)[-1]["phase_seconds"] for name in ("plain", "compiled")]
    assert ["compile" in each for each in phases] == [False, True]
