"""Text from a model: sampling token by token, with the keys and values of earlier positions kept.

Sampling draws from a generator of its own on the CPU, so that it never moves the random state of training and gives the
same text on every device.

    python -m nanofast.generate RUN --prompt "def " --num-samples 3

    for ids_B in sample(model, prompt_ids, num_tokens=50, temperature=0.8, seed=0): ...
    text = continue_text(model, tokenizer, "def ", num_tokens=50, temperature=0.8, seed=0)
"""

from __future__ import annotations

import codecs
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

if __name__ == "__main__":  # here already, since what follows loads torch
    from nanofast.command import run_module

    sys.exit(run_module("nanofast.generate"))

import torch
import tyro
from torch import Tensor

from nanofast.command import exit_code, parse_settings
from nanofast.config import ConfigError
from nanofast.model import GPT, KVCache


def choose(logits_BV: Tensor, temperature: float, top_k: int, generator: torch.Generator, top_p: float = 1.0) -> Tensor:
    """One id for each row: the likeliest at temperature 0, else drawn among the likeliest.

    These are the `top_k` likeliest (0: all) and of them the fewest that together have the probability `top_p`.
    """
    if temperature == 0:
        return logits_BV.argmax(dim=-1)
    logits_BV = logits_BV.float().cpu() / temperature
    if 0 < top_k < logits_BV.size(-1):
        least = logits_BV.topk(top_k, dim=-1).values[:, -1:]
        logits_BV = logits_BV.masked_fill(logits_BV < least, -torch.inf)
    if top_p < 1.0:  # nucleus sampling, Holtzman et al. 2019
        ordered, places = logits_BV.softmax(dim=-1).sort(dim=-1, descending=True)
        is_beyond = ordered.cumsum(dim=-1) - ordered >= top_p
        logits_BV = logits_BV.masked_fill(torch.zeros_like(is_beyond).scatter(-1, places, is_beyond), -torch.inf)
    return torch.multinomial(logits_BV.softmax(dim=-1), 1, generator=generator).squeeze(-1)


@torch.no_grad()
def sample(
    model: GPT,
    prompt: Sequence[int],
    num_tokens: int,
    *,
    temperature: float = 0.8,
    top_k: int = 50,
    top_p: float = 1.0,
    seed: int = 0,
    num_samples: int = 1,
    use_cache: bool = True,
) -> Iterator[Tensor]:
    """Yield up to `num_tokens` times the next id of each of `num_samples` continuations, as a CPU tensor [num_samples].

    Ends early when the model's sequence length is full. Without the cache, each step reads the whole text again: the
    slow twin that the fast path is tested against.
    """
    if not prompt:
        raise ValueError("a prompt needs at least one token; begin with the tokenizer's bos_id")
    device = model.head.weight.device
    generator = torch.Generator().manual_seed(seed)
    room = model.config.sequence_length - len(prompt)
    if room < 0:
        raise ConfigError(
            f"the prompt has {len(prompt)} tokens; the model's sequence_length is {model.config.sequence_length}; "
            "pass a shorter one"
        )
    ids_BT = torch.tensor([list(prompt)] * num_samples, device=device)
    cache = None
    if use_cache:
        length = min(model.config.sequence_length, len(prompt) + num_tokens)
        cache = KVCache(model.config, num_samples, length, device, model.compute_dtype)
    fed_BT = ids_BT
    for _ in range(min(num_tokens, room + 1)):
        chosen_B = choose(model(fed_BT, cache=cache)[:, -1], temperature, top_k, generator, top_p)
        yield chosen_B.cpu()
        new_B1 = chosen_B.to(device)[:, None]
        if cache is None:
            ids_BT = torch.cat([ids_BT, new_B1], dim=1)
            fed_BT = ids_BT
        else:
            fed_BT = new_B1


def continue_text(
    model: GPT,
    tokenizer: Any,
    prompt: str,
    num_tokens: int,
    *,
    temperature: float = 0.8,
    top_k: int = 50,
    seed: int = 0,
) -> str:
    """The model's continuation of a prompt that begins a document; it ends where the model ends the document."""
    ids = [tokenizer.bos_id, *(int(i) for i in tokenizer.encode(prompt))]
    continuation: list[int] = []
    for ids_B in sample(model, ids, num_tokens, temperature=temperature, top_k=top_k, seed=seed):
        chosen = int(ids_B[0])
        if chosen == tokenizer.bos_id:
            break
        continuation.append(chosen)
    return str(tokenizer.decode(continuation))


@dataclass(frozen=True)
class SamplingSettings:
    """Which model says what how: the flags that commands share which let one speak."""

    model: Annotated[str, tyro.conf.Positional] = "auto"
    """Run or checkpoint folder; auto is the run that was written to last."""
    prompt: str = ""
    """What is said to it."""
    num_tokens: int = 200
    """Longest text that it gives (tokens)."""
    temperature: float = 0.8
    """Sampling temperature; 0 takes the likeliest token."""
    top_k: int = 50
    """Sample among this many likeliest tokens; 0 means all."""
    top_p: float = 1.0
    """Sample among the fewest tokens that together have this probability (0 to 1)."""
    seed: int = 0
    """Seed of the draws."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    home: str | None = None
    """Folder of runs. Derived: NANOFAST_HOME, else ~/.cache/nanofast."""

    def check(self) -> None:
        """Raises ConfigError for a value that breaks its rule."""
        for name, least in (("num_tokens", 1), ("num_samples", 1), ("temperature", 0), ("top_k", 0)):
            if not least <= getattr(self, name, least) < float("inf"):
                raise ConfigError(f"{name} must be at least {least} and finite; found {getattr(self, name)}")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p must be more than 0 and at most 1; found {self.top_p}")

    @property
    def how(self) -> dict[str, Any]:
        """What `sample` is told of the draws."""
        return {"temperature": self.temperature, "top_k": self.top_k, "top_p": self.top_p, "seed": self.seed}


@dataclass(frozen=True)
class GenerateSettings(SamplingSettings):
    """Sample from a trained model."""

    prompt: str = ""
    """Beginning that is continued; empty begins a document."""
    num_samples: int = 1
    """Continuations, made in one batch."""


def stream(model: GPT, tokenizer: Any, settings: GenerateSettings, show: Callable[[str], None]) -> None:
    """Show continuations: a single one as it comes, several one after the other."""
    ids = [tokenizer.bos_id, *(int(i) for i in tokenizer.encode(settings.prompt))]
    texts = [bytearray() for _ in range(settings.num_samples)]
    is_open = [True] * settings.num_samples
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    if settings.num_samples == 1:
        show(settings.prompt)
    for ids_B in sample(
        model,
        ids,
        settings.num_tokens,
        num_samples=settings.num_samples,
        **settings.how,
    ):
        for row, chosen in enumerate(ids_B.tolist()):
            is_open[row] = is_open[row] and chosen != tokenizer.bos_id
            if is_open[row]:
                piece = tokenizer.decode_bytes([chosen])
                texts[row] += piece
                if settings.num_samples == 1:
                    show(decoder.decode(piece))
        if not any(is_open):
            break
    if settings.num_samples > 1:
        for number, text in enumerate(texts, start=1):
            show(f"--- {number}\n{settings.prompt}{text.decode(errors='replace')}\n")
    show("\n")


def _generate(words: list[str]) -> None:
    from nanofast.saved import load_model

    settings = parse_settings(GenerateSettings, words, "python -m nanofast.generate")
    settings.check()
    saved = load_model(settings.model, settings.home, settings.device)
    stream(saved.model, saved.tokenizer, settings, lambda text: print(text, end="", flush=True))


def main() -> int:
    """The command line of this process."""
    return exit_code(lambda: _generate(sys.argv[1:]))
