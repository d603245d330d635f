"""What a run reads: its data, its tokenizer, and loaders over them.

The configuration names data and tokenizer; what it leaves out is that of the sample corpus.

    data, tokenizer, name = find_data(config, home, world)
    loader = open_loader(config, data, tokenizer, world, "train", lanes, rows)
    loader, num_batches = open_validation_loader(config, data, tokenizer, world, tokens=1 << 20)
"""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Any

from nanofast import conversations
from nanofast.config import Config, ConfigError, RunSettings
from nanofast.derive import largest_divisor
from nanofast.distributed import World, object_from_main
from nanofast.remote import has_secrets, remote_of
from nanofast.token_files import is_token_data, require_tokenizer, tokenizer_beside

# Validation is dealt to a fixed number of lanes, so that every world size that divides it sees the same tokens.
VALIDATION_LANES = 8
# Rows of a lane are a multiple of this, where there are more, so that batches of up to this size fit them.
VALIDATION_ROWS = 8


def find_data(config: Config, home: Path, world: World) -> tuple[str, Any, str]:
    """Where the text is, the tokenizer and its name; the sample corpus is made, once, on the main rank."""
    import nanofast

    # `--data=~/shards` reaches us as it is written, since shells expand only words that begin with the tilde
    data, name = (
        text and os.path.expanduser(text)  # noqa: PTH111  # a glob is no Path
        for text in (config.data.data, config.data.tokenizer)
    )
    if data is not None and any(map(has_secrets, re.split(r"[,=]", data))):
        raise ConfigError(
            "data holds a URL with a user name, a password or a query, and the configuration is kept with every "
            "checkpoint; give credentials in the environment, or fetch the files first"
        )
    if config.data.documents == "conversations" and data is None:
        raise ConfigError("no conversations are named; pass --data PATH[:COUNT],… (parquet or JSONL)")
    if data is not None and is_token_data(data):
        name = tokenizer_beside(data) if name is None else name
    if data is None or name is None:
        made: tuple[str, str] | Exception | None = None
        if world.is_main:
            try:
                made = _make_sample(config.run, home)
            except (ValueError, OSError) as error:  # the other ranks wait to hear of it
                made = error
        made = object_from_main(made)
        if isinstance(made, Exception):
            raise made
        assert made is not None
        data, name = made[0] if data is None else data, made[1] if name is None else name
    if Path(name).is_dir():
        raise ConfigError(f"tokenizer `{name}` is a folder; expected a file; pass --tokenizer {name}/tokenizer.json")
    # absolute, so that a resumed run finds them from any folder
    if config.data.documents == "conversations":
        data = conversations.spelled(conversations.named_data(data))
    elif (mixture := nanofast.Mixture.parse(data)) is not None:
        data = mixture.spelled()
    else:
        data = data if "://" in data else os.path.abspath(data)  # noqa: PTH100  # a glob is no Path
    name = str(Path(name).absolute()) if Path(name).exists() else name
    tokenizer = nanofast.Tokenizer.from_file(name) if Path(name).exists() else nanofast.Tokenizer.from_name(name)
    return data, tokenizer, name


def _make_sample(run: RunSettings, home: Path) -> tuple[str, str]:
    from nanofast.data.sample import ensure_sample

    def place(folder: str | None) -> Path | None:
        return None if folder is None else Path(folder).expanduser().absolute()

    data, tokenizer = ensure_sample(home, data_home=place(run.data_home), tokenizer_home=place(run.tokenizer_home))
    return str(data), str(tokenizer)


def open_loader(
    config: Config,
    data: str,
    tokenizer: Any,
    world: World,
    split: str,
    lanes: int,
    rows: int | None,
    return_documents: bool = False,
) -> Any:
    """A loader over one split of the data, as the configuration wants it, with `rows` rows a batch."""
    import nanofast

    assert rows is not None
    if return_documents and (config.data.documents == "conversations" or is_token_data(data)):
        raise ConfigError("only the documents of text can be told, and the data of this run is no text")
    if config.data.documents == "conversations":
        named = None if data == config.data.data else data
        return conversations.open_loader(config, tokenizer, world, split, lanes, rows, named)
    if is_token_data(data):
        require_tokenizer(data, tokenizer)
        return nanofast.TokenFileLoader(
            data,
            rows,
            config.model.sequence_length,
            "window" if config.data.shuffle and split == "train" else "none",
            split=split,
            vocab_size=tokenizer.vocab_size,
            rank=world.rank,
            world_size=world.world_size,
            lanes=lanes,
            seed=config.run.seed,
            device=world.device,
            num_threads=config.data.loader_threads,
        )
    return nanofast.TokenLoader(
        nanofast.Mixture.parse(data) or data,
        tokenizer,
        batch_size=rows,
        sequence_length=config.model.sequence_length,
        text_column=config.data.text_column,
        split=split,
        # best_fit would fill its buffer from several epochs of a short split, and take the longest documents again
        packing=config.data.packing if split == "train" else "concat",
        overflow=config.data.overflow,
        rank=world.rank,
        world_size=world.world_size,
        lanes=lanes,
        shuffle=config.data.shuffle and split == "train",
        seed=config.run.seed,
        device=world.device,
        num_threads=config.data.loader_threads,
        on_bad_data=config.data.on_bad_data,
        invalid_utf8=config.data.invalid_utf8,
        return_documents=return_documents,
        remote=remote_of(config.data),
    )


def open_validation_loader(
    config: Config, data: str | None, tokenizer: Any, world: World, tokens: int
) -> tuple[Any, int]:
    """A loader at the beginning of the validation split, and each rank's batches.

    Every lane gives the same rows, `tokens` in all and rounded up, whatever the batch size and the world size; batches
    are the largest up to the device batch size that these rows can be cut into. Text comes in the order of the split,
    one document behind the other. `data` None stands for what the configuration was resolved to.
    """
    assert config.schedule.device_batch_size is not None
    source = data or config.data.data
    if source is None:
        raise ConfigError("the configuration names no data; pass --data")
    lanes = VALIDATION_LANES if VALIDATION_LANES % world.world_size == 0 else world.world_size
    lane_rows = math.ceil(tokens / (lanes * config.model.sequence_length))
    if lane_rows > VALIDATION_ROWS:
        lane_rows = math.ceil(lane_rows / VALIDATION_ROWS) * VALIDATION_ROWS
    rows = largest_divisor(lane_rows, config.schedule.device_batch_size)
    num_batches = lane_rows // rows * lanes // world.world_size
    return open_loader(config, source, tokenizer, world, "val", lanes, rows), num_batches
