"""Models to and from the Hugging Face format: `config.json`, `model.safetensors`, `tokenizer.json`.

The plain shape is what `transformers` (from 5.0) calls `nanochat`, so such a model goes there and comes from there with
the same logits. The shape that `--shape nanochat` makes does not exist there: its value embeddings, residual scales and
windows are of later nanochats, and a model with any of them is refused.

    python -m nanofast.huggingface export RUN FOLDER
    python -m nanofast.huggingface import FOLDER RUN         # then: python -m nanofast.generate RUN

`transformers` turns queries and keys the other way round than we do: swapping the two halves of every head's channels
in their matrices gives the same scores.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

if __name__ == "__main__":  # here already, since what follows loads torch
    from nanofast.command import run_module

    sys.exit(run_module("nanofast.huggingface"))

import tyro
from safetensors.torch import load_file, save_file
from torch import Tensor

from nanofast import checkpoint
from nanofast.command import exit_code, parse_settings
from nanofast.config import Config, ConfigError, ModelSettings, to_dict
from nanofast.derive import derive
from nanofast.home import home_folder
from nanofast.model import GPT, GPTConfig
from nanofast.resume import TOKENIZER_FILE, run_folder
from nanofast.saved import load_model

# What the parameters are called there; {} is the layer.
NAMES = {
    "embedding.weight": "model.embed_tokens.weight",
    "head.weight": "lm_head.weight",
    "blocks.{}.attention.query.weight": "model.layers.{}.self_attn.q_proj.weight",
    "blocks.{}.attention.key.weight": "model.layers.{}.self_attn.k_proj.weight",
    "blocks.{}.attention.value.weight": "model.layers.{}.self_attn.v_proj.weight",
    "blocks.{}.attention.output.weight": "model.layers.{}.self_attn.o_proj.weight",
    "blocks.{}.mlp.widen.weight": "model.layers.{}.mlp.fc1.weight",
    "blocks.{}.mlp.narrow.weight": "model.layers.{}.mlp.fc2.weight",
}
TURNED = ("query.weight", "key.weight")
TABLES = ("embedding.weight", "head.weight")  # rows are tokens; ours are filled up to a multiple of 64


def _names(n_layer: int) -> dict[str, str]:
    """Our names to theirs, layer by layer."""
    return {ours.format(i): theirs.format(i) for ours, theirs in NAMES.items() for i in range(n_layer)}


def _turned(matrix: Tensor, n_head: int) -> Tensor:
    """A query or key matrix with the halves of each head's channels swapped; its own inverse."""
    return matrix.view(n_head, 2, -1, matrix.size(-1)).flip(1).reshape(matrix.shape)


def to_huggingface(model: GPT, bos_id: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Their configuration and weights of a model of the plain shape; another is refused."""
    config = model.config
    extras = {
        "value embeddings": config.has_value_embeddings,
        "residual scales": config.has_residual_scales,
        "windows": config.has_windows,
    }
    if any(extras.values()):
        found = ", ".join(name for name, is_there in extras.items() if is_there)
        raise ConfigError(
            f"this model has {found}, for which no shape exists in transformers; train with --shape plain"
        )
    values = {
        "architectures": ["NanoChatForCausalLM"],
        "model_type": "nanochat",
        "vocab_size": config.vocab_size,
        "hidden_size": config.n_embd,
        "intermediate_size": 4 * config.n_embd,
        "num_hidden_layers": config.n_layer,
        "num_attention_heads": config.n_head,
        "num_key_value_heads": config.n_head,
        "max_position_embeddings": config.sequence_length,
        "hidden_act": "relu2",
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_base},
        "final_logit_softcapping": config.logit_soft_cap or None,
        "attention_bias": False,
        "tie_word_embeddings": False,
        "bos_token_id": bos_id,
        "eos_token_id": bos_id,  # a document ends where the next begins
        "pad_token_id": bos_id,
        "dtype": "float32",
    }
    weights, names = model.state_dict(), _names(config.n_layer)
    tensors = {theirs: weights[ours] for ours, theirs in names.items()}
    for ours, theirs in names.items():
        if ours.endswith(TURNED):
            tensors[theirs] = _turned(weights[ours], config.n_head)
        elif ours in TABLES:
            tensors[theirs] = weights[ours][: config.vocab_size].contiguous()
    return values, tensors


def from_huggingface(values: dict[str, Any], tensors: dict[str, Tensor]) -> GPT:
    """A model of the plain shape from their configuration and weights; what we have no part for is refused by name."""
    heads, width = values["num_attention_heads"], values["hidden_size"]
    expected = {
        "model_type": "nanochat",
        "intermediate_size": 4 * width,
        "num_key_value_heads": heads,
        "hidden_act": "relu2",
        "attention_bias": False,
        "tie_word_embeddings": False,
    }
    for name, value in expected.items():
        if values.get(name) not in (value, None):
            raise ConfigError(f"config.json: {name} must be {value!r} for a model of ours; found {values[name]!r}")
    rope = values.get("rope_parameters") or {"rope_theta": values.get("rope_theta", 10_000.0)}
    if rope.get("rope_type", "default") != "default":
        raise ConfigError(f"config.json: rope_type must be 'default'; found {rope['rope_type']!r}")
    model = GPT(
        GPTConfig(
            vocab_size=values["vocab_size"],
            sequence_length=values["max_position_embeddings"],
            n_layer=values["num_hidden_layers"],
            n_head=heads,
            n_embd=width,
            rope_base=rope["rope_theta"],
            logit_soft_cap=values.get("final_logit_softcapping") or 0.0,
        )
    )
    weights = model.state_dict()
    for ours, theirs in _names(model.config.n_layer).items():
        if theirs not in tensors:
            raise ConfigError(f"model.safetensors has no `{theirs}`")
        tensor = tensors[theirs].float()
        if ours in TABLES:
            weights[ours].zero_()[: model.config.vocab_size] = tensor
        else:
            weights[ours].copy_(_turned(tensor, heads) if ours.endswith(TURNED) else tensor)
    return model.eval()


def export_run(run: str, folder: Path, home: str | None) -> Path:
    """Write the newest checkpoint of a run into a folder as `transformers` reads it."""
    saved = load_model(run, home, "cpu")
    values, tensors = to_huggingface(saved.model, saved.tokenizer.bos_id)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(values, indent=1), encoding="utf-8")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    saved.tokenizer.save(folder / "tokenizer.json", format="huggingface")
    return folder


def import_run(folder: Path, run: str, home: str | None) -> Path:
    """A run folder with one checkpoint, from a folder in their format: to generate, to evaluate, to train chat on."""
    import nanofast

    target = run_folder(run, home_folder(home))
    if (target / "checkpoints").exists():
        raise ConfigError(f"run folder `{target}` is in use; name another")
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        if not (folder / name).is_file():
            raise ConfigError(f"`{folder}` has no {name}; expected a folder in the Hugging Face format")
    values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    model = from_huggingface(values, load_file(folder / "model.safetensors"))
    tokenizer = nanofast.Tokenizer.from_file(folder / "tokenizer.json")
    shape = model.config
    if tokenizer.vocab_size > shape.vocab_size:
        raise ConfigError(f"the tokenizer has {tokenizer.vocab_size} tokens, the model {shape.vocab_size}")
    settings = ModelSettings(
        depth=shape.n_layer,
        shape="plain",
        sequence_length=shape.sequence_length,
        n_embd=shape.n_embd,
        n_head=shape.n_head,
        window_pattern="L",
        rope_base=shape.rope_base,
        logit_soft_cap=shape.logit_soft_cap,
    )
    config = derive(dataclasses.replace(Config(), model=settings), world_size=1, device_type="cpu")
    state = {"config": to_dict(config), "stage": "imported", "imported_from": str(folder.absolute())}
    snapshot = checkpoint.Snapshot({"model": dict(model.state_dict())}, {"state": state})
    checkpoint.save(snapshot, target / "checkpoints", step=0)
    tokenizer.save(target / TOKENIZER_FILE)
    return target


@dataclass(frozen=True)
class ConvertSettings:
    """Models to and from the Hugging Face format."""

    direction: Annotated[Literal["export", "import"], tyro.conf.Positional]
    """export: a run to a folder; import: a folder to a run."""
    source: Annotated[str, tyro.conf.Positional]
    """Run or checkpoint, or folder with config.json."""
    target: Annotated[str, tyro.conf.Positional]
    """Folder, or name or folder of the run."""
    home: str | None = None
    """Folder of runs. Derived: NANOFAST_HOME, else ~/.cache/nanofast."""


def _convert(words: list[str]) -> None:
    settings = parse_settings(ConvertSettings, words, "python -m nanofast.huggingface")
    if settings.direction == "export":
        print(export_run(settings.source, Path(settings.target).expanduser(), settings.home))
    else:
        print(import_run(Path(settings.source).expanduser(), settings.target, settings.home))


def main() -> int:
    """The command line of this process."""
    return exit_code(lambda: _convert(sys.argv[1:]))
