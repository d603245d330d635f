"""Text from a model: sampling token by token, with the keys and values of earlier positions kept.

Sampling draws from a generator of its own on the CPU, so that it never moves the random state of training and gives the
same text on every device.

    for ids_B in sample(model, prompt_ids, num_tokens=50, temperature=0.8, seed=0): ...
    text = continue_text(model, tokenizer, "def ", num_tokens=50, temperature=0.8, seed=0)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from nanofast.model import GPT, KVCache


def choose(logits_BV: Tensor, temperature: float, top_k: int, generator: torch.Generator) -> Tensor:
    """One id for each row: the likeliest at temperature 0, else drawn among the `top_k` likeliest (0: among all)."""
    if temperature == 0:
        return logits_BV.argmax(dim=-1)
    logits_BV = logits_BV.float().cpu() / temperature
    if 0 < top_k < logits_BV.size(-1):
        least = logits_BV.topk(top_k, dim=-1).values[:, -1:]
        logits_BV = logits_BV.masked_fill(logits_BV < least, -torch.inf)
    return torch.multinomial(logits_BV.softmax(dim=-1), 1, generator=generator).squeeze(-1)


@torch.no_grad()
def sample(
    model: GPT,
    prompt: Sequence[int],
    num_tokens: int,
    *,
    temperature: float = 0.8,
    top_k: int = 50,
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
        raise ValueError(
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
        chosen_B = choose(model(fed_BT, cache=cache)[:, -1], temperature, top_k, generator)
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
