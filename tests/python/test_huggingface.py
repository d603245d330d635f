"""Models in the Hugging Face format: there and back, and the same logits there where `transformers` is installed."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from nanofast.config import ConfigError
from nanofast.huggingface import from_huggingface, to_huggingface
from nanofast.model import GPT, GPTConfig, rotary_tables

CONFIG = GPTConfig(vocab_size=100, sequence_length=24, n_layer=2, n_head=2, n_embd=32, rope_base=500.0)


def made(config: GPTConfig = CONFIG) -> GPT:
    model = GPT(config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.2, generator=generator)
        for table in (model.embedding.weight, model.head.weight):
            table[config.vocab_size :] = 0.0  # rows of no token are not kept
    return model.eval()


def ids() -> torch.Tensor:
    return torch.randint(0, 100, (2, 24), generator=torch.Generator().manual_seed(0))


def test_there_and_back_is_the_same_model() -> None:
    model = made()
    values, tensors = to_huggingface(model, bos_id=99)
    back = from_huggingface(json.loads(json.dumps(values)), tensors)
    assert back.config == model.config
    assert all(torch.equal(back.state_dict()[name], tensor) for name, tensor in model.state_dict().items())
    assert tensors["lm_head.weight"].shape == (100, 32)


def test_swapped_halves_turn_the_other_way_and_score_alike() -> None:
    """Their rotation, written out: (x1, x2) · cos + (x2, -x1) · sin."""
    model = made()
    _, tensors = to_huggingface(model, bos_id=99)
    x = torch.randn(24, 32, generator=torch.Generator().manual_seed(4))
    cos, sin = rotary_tables(24, 16, 500.0)
    cos, sin = torch.cat((cos, cos), -1)[:, None], torch.cat((sin, sin), -1)[:, None]

    def scores(query: torch.Tensor, key: torch.Tensor, theirs: bool) -> torch.Tensor:
        turned = []
        for matrix in (query, key):
            y = (x @ matrix.T).view(24, 2, 16)
            left, right = y.chunk(2, -1)
            turned.append(y * cos + torch.cat((right, -left) if theirs else (-right, left), -1) * sin)
        return torch.einsum("qhd,khd->hqk", *turned)

    attention = model.blocks[0].attention
    ours = scores(attention.query.weight, attention.key.weight, theirs=False)
    layer = "model.layers.0.self_attn."
    found = scores(tensors[layer + "q_proj.weight"], tensors[layer + "k_proj.weight"], theirs=True)
    torch.testing.assert_close(found, ours, atol=1e-4, rtol=1e-4)


def test_transformers_gives_the_same_logits() -> None:
    transformers = pytest.importorskip("transformers", minversion="5.0", reason="transformers is not installed")
    for cap in (15.0, 0.0):
        model = made(dataclasses.replace(CONFIG, logit_soft_cap=cap))
        values, tensors = to_huggingface(model, bos_id=99)
        theirs = transformers.NanoChatForCausalLM(transformers.NanoChatConfig(**values)).eval()
        theirs.load_state_dict(tensors)
        with torch.no_grad():
            torch.testing.assert_close(theirs(ids()).logits, model(ids()), atol=1e-4, rtol=1e-4)


def test_a_shape_that_does_not_exist_there_is_refused_by_its_parts() -> None:
    model = GPT(dataclasses.replace(CONFIG, window_pattern="SL", has_residual_scales=True))
    with pytest.raises(ConfigError, match="this model has residual scales, windows, for which no shape exists"):
        to_huggingface(model, bos_id=0)


@pytest.mark.parametrize(
    ("name", "value"),
    [("num_key_value_heads", 1), ("model_type", "llama"), ("hidden_act", "silu"), ("intermediate_size", 96)],
)
def test_a_model_with_other_parts_is_refused_by_name(name: str, value: object) -> None:
    values, tensors = to_huggingface(made(), bos_id=99)
    with pytest.raises(ConfigError, match=f"config.json: {name} must be "):
        from_huggingface({**values, name: value}, tensors)


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    values, tensors = to_huggingface(made(), bos_id=99)
    del tensors["lm_head.weight"]
    with pytest.raises(ConfigError, match=r"has no `lm_head\.weight`"):
        from_huggingface(values, tensors)
