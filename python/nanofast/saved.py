"""A trained model from its checkpoint, ready to be used: weights, tokenizer, configuration.

The checkpoint's hashes are checked first; only safetensors and JSON are read, unless it is a sharded one (sharded.py).

    saved = load_model("auto", home=None, device="auto")
    saved.model, saved.tokenizer, saved.config, saved.path
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nanofast.build import model_config
from nanofast.config import Config
from nanofast.distributed import find_device
from nanofast.model import GPT
from nanofast.resume import require, tokenizer_of
from nanofast.start import read_tensors


@dataclass(frozen=True)
class SavedModel:
    """What a checkpoint holds for use."""

    model: GPT
    tokenizer: Any
    config: Config
    path: Path


def load_model(name: str, home: str | None, device: str) -> SavedModel:
    """The newest complete checkpoint of a run (or `auto`: of the run written to last), or a checkpoint itself."""
    import nanofast

    found = require(name, home)
    tokenizer = nanofast.Tokenizer.from_file(tokenizer_of(found))
    place = find_device(device)
    dtype = torch.bfloat16 if found.config.run.dtype == "bfloat16" else torch.float32
    model = GPT(model_config(found.config, tokenizer.vocab_size), dtype)
    model.load_state_dict(read_tensors(found.path)["model"])
    return SavedModel(model.to(place).eval(), tokenizer, found.config, found.path)
