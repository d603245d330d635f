"""Command-line words to a `Config`: tyro reads the dataclasses, this file makes its answers short and forgiving.

Accepted besides tyro's own: `--key=value` (`--switch=true` too), underscores for hyphens, and nanochat's names
(ALIASES). A mistake is one line that names the flag, the rule and near names, as `ConfigError`.

    config = parse(["--depth", "6", "--max_seq_len=512"], defaults=Config())
"""

from __future__ import annotations

import dataclasses
import difflib
import re

from nanofast.command import parse_settings
from nanofast.config import Config, ConfigError

# Names that users of nanochat's base trainer type, and words that Python keeps for itself, and what they are here.
ALIASES = {
    "max-seq-len": "sequence-length",
    "unembedding-lr": "head-lr",
    "target-param-data-ratio": "tokens-per-parameter",
    "device-type": "device",
    "model-tag": "run",
    "n-layer": "depth",
    "from": "from-run",
}


def flag_names() -> list[str]:
    """Every flag, without hyphens in front, in the order of the groups."""
    groups = [type(getattr(Config(), group.name)) for group in dataclasses.fields(Config)]
    return [field.name.replace("_", "-") for group in groups for field in dataclasses.fields(group)]


def switch_names() -> list[str]:
    """The flags that are on or off, without hyphens in front."""
    groups = [getattr(Config(), group.name) for group in dataclasses.fields(Config)]
    fields = [(group, field.name) for group in groups for field in dataclasses.fields(group)]
    return [name.replace("_", "-") for group, name in fields if isinstance(getattr(group, name), bool)]


def normalise(argv: list[str]) -> list[str]:
    """Our spelling of each flag; unknown ones are refused with near names."""
    known = flag_names()
    switches = switch_names()
    accepted = [*known, *(f"no-{name}" for name in switches), "help"]
    words = []
    for word in argv:
        if word == "-h" or not re.match(r"--?[A-Za-z]", word):
            words.append(word)
            continue
        name, equals, value = word.lstrip("-").partition("=")
        name = name.replace("_", "-")
        name = ALIASES.get(name, name)
        if not word.startswith("--") or name not in accepted:
            near = difflib.get_close_matches(name, [*known, *ALIASES], n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join('--' + n for n in near)}?" if near else "--help lists all"
            raise ConfigError(f"unknown flag `{word.partition('=')[0]}`; {hint}")
        if equals and name in switches:
            name = _switched(name, value)
            equals = ""
        words.append(f"--{name}")
        if equals:
            words.append(value)
    return words


def _switched(name: str, value: str) -> str:
    """The flag that a switch with a value stands for: `--shuffle=false` is `--no-shuffle`."""
    if value.lower() in ("true", "1", "yes", "on"):
        return name
    if value.lower() in ("false", "0", "no", "off"):
        return f"no-{name}"
    raise ConfigError(f"--{name} is a switch; found `{value}`; legal values: true or false, or give --{name} alone")


def parse(argv: list[str], defaults: Config, prog: str = "python -m nanofast.train") -> Config:
    """Lay the command line over `defaults`. `--help` prints and exits 0; a mistake raises ConfigError."""
    import tyro

    return parse_settings(Config, normalise(argv), prog, default=defaults, config=(tyro.conf.OmitArgPrefixes,))
