"""What training on conversations needs besides a loader: the settings' template, data sets by name and count or as a
mixture, the length of one pass.

    template_of(settings); data_sets("chat.parquet,identity.jsonl:2")  # {"chat.parquet": 1, "identity.jsonl": 2}
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

from nanofast import _nanofast
from nanofast.chat_loader import ChatLoader
from nanofast.chat_template import ChatTemplate
from nanofast.config import ChatSettings, Config, ConfigError
from nanofast.distributed import World
from nanofast.mixture import Mixture
from nanofast.remote import is_remote, remote_json, remote_of

SAMPLED = 1000  # conversations that the length of a pass is estimated from


def template_of(settings: ChatSettings) -> ChatTemplate:
    """The template that the settings name, with what they say is learned."""
    return dataclasses.replace(
        ChatTemplate.from_name(settings.template),
        learned_roles=settings.learned_roles,
        only_last_turn=settings.only_last_turn,
    )


def data_sets(text: str) -> dict[str, int]:
    """Paths and counts of `PATH[:COUNT],…`, paths made absolute; the same path twice adds up."""
    counts: dict[str, int] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        found = re.fullmatch(r"(.+?)(?::(\d+))?", part)
        assert found is not None  # anything that is not empty matches
        path = found[1] if is_remote(found[1]) else str(Path(found[1]).expanduser().absolute())
        counts[path] = counts.get(path, 0) + (1 if found[2] is None else int(found[2]))
    if not counts:
        raise ConfigError("data names no conversations; expected --data PATH[:COUNT],…")
    return counts


def named_data(text: str) -> dict[str, int] | Mixture:
    """The data sets of `PATH[:COUNT],…`, or the mixture of `NAME=PATH:WEIGHT,…`."""
    mixture = Mixture.parse(text)
    return data_sets(text) if mixture is None else mixture


def spelled(data: dict[str, int] | Mixture) -> str:
    """The inverse of `named_data`, paths made absolute."""
    if isinstance(data, Mixture):
        return data.spelled()
    return ",".join(path if count == 1 else f"{path}:{count}" for path, count in data.items())


def _counts(data: dict[str, int] | Mixture) -> dict[str, int]:
    """Paths, and how often each is taken in a pass: once where it is in a mixture."""
    return {str(path): 1 for path, _ in data.sources.values()} if isinstance(data, Mixture) else data


def with_template(tokenizer: Any, settings: ChatSettings) -> Any:
    """The tokenizer with the template's special tokens: those that it lacks are a refusal, unless it may get them."""
    template = template_of(settings)
    missing = [token for token in template.special_tokens if token not in tokenizer.special_tokens]
    if not missing:
        return tokenizer
    if not settings.add_special_tokens:
        raise ConfigError(
            f"the tokenizer lacks special tokens of the template `{template.name}`: {', '.join(missing)}; pass "
            "--add-special-tokens to add them, and rows for them to the model, or choose another --template"
        )
    return tokenizer.with_special_tokens(missing)


def open_loader(
    config: Config, tokenizer: Any, world: World, split: str, lanes: int, rows: int, data: str | None = None
) -> ChatLoader:
    """A loader over the training or the validation conversations, `rows` rows a batch; `data` overrides which."""
    chat = config.chat
    named = config.data.data if data is None else data
    if split == "val" and chat.val_data is not None and data is None:
        named, wanted_split = chat.val_data, None
    else:
        wanted_split = None if chat.val_data is not None and data is None else split
    if named is None:
        raise ConfigError("no conversations are named; pass --data PATH[:COUNT],…")
    return ChatLoader(
        named_data(named),
        tokenizer,
        rows,
        config.model.sequence_length,
        template=template_of(chat),
        layout=chat.layout,
        messages_column=chat.messages_column,
        text_column=config.data.text_column,
        too_long=chat.too_long,
        packing=config.data.packing if split == "train" else "best_fit",  # what is learned is what is measured
        overflow=config.data.overflow,
        split=wanted_split,
        rank=world.rank,
        world_size=world.world_size,
        lanes=lanes,
        shuffle=config.data.shuffle and split == "train",
        seed=config.run.seed,
        device=world.device,
        num_threads=config.data.loader_threads,
        remote=remote_of(config.data),
    )


def with_one_pass(config: Config, tokenizer: Any) -> Config:
    """The configuration with `num_iterations` filled in: about one pass over the conversations, where nothing is set.

    Their mean length is that of the first ones of each data set.
    """
    schedule = config.schedule
    if schedule.num_iterations or schedule.tokens_per_parameter or schedule.target_flops or config.data.data is None:
        return config
    chat, tokens = config.chat, 0.0
    arguments = template_of(chat).arguments(
        layout=chat.layout, messages_column=chat.messages_column, text_column=config.data.text_column
    )
    for path, count in _counts(named_data(config.data.data)).items():
        for shard in _nanofast.find_conversations(path, remote_json([path], remote_of(config.data))):
            lengths = [len(ids) for ids, _ in _nanofast.render_rows(tokenizer._native, arguments, shard, SAMPLED)]
            num_rows = _nanofast.count_rows(shard, arguments)
            tokens += count * num_rows * sum(lengths) / max(1, len(lengths))
    assert schedule.total_batch_size is not None
    steps = max(1, round(tokens / schedule.total_batch_size))
    return dataclasses.replace(config, schedule=dataclasses.replace(schedule, num_iterations=steps))
