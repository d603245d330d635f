"""Configuration files: TOML or Python, settings by name, grouped or not; and the resolved configuration written as
TOML.

A file lies between the defaults and the command line. What a run wrote can be fed back: `--config RUN/config.toml`.

    config = read_config(Path("small.toml"), Config())

    small.toml:   depth = 6                small.py:   depth = 6
                  [schedule]                           num_iterations = 100 * depth
                  num_iterations = 600
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import runpy
import sys
from pathlib import Path
from typing import Any

from nanofast.config import Config, ConfigError


def _groups() -> dict[str, list[str]]:
    """Names of the settings of each group."""
    default = Config()
    return {
        group.name: [field.name for field in dataclasses.fields(getattr(default, group.name))]
        for group in dataclasses.fields(Config)
    }


def _read_toml(path: Path) -> dict[str, Any]:
    if sys.version_info < (3, 11):
        raise ConfigError(
            f"`{path}`: TOML needs Python 3.11; this is {sys.version.split()[0]}; write a Python file instead"
        )
    import tomllib

    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"`{path}` is no TOML: {error}") from None


def _read_python(path: Path) -> dict[str, Any]:
    names = {name for group in _groups().values() for name in group}
    try:
        found = runpy.run_path(str(path))
    except Exception as error:
        raise ConfigError(f"`{path}` failed: {type(error).__name__}: {error}") from None
    return {name: value for name, value in found.items() if name in names}


def read_config(path: Path, defaults: Config) -> Config:
    """`defaults` with the settings that a file holds laid over them; unknown names are refused with near ones."""
    if not path.is_file():
        raise ConfigError(f"no configuration file `{path}`; check the path")
    groups = _groups()
    home_of = {name: group for group, names in groups.items() for name in names}
    values: dict[str, dict[str, Any]] = {group: {} for group in groups}
    for key, value in (_read_python(path) if path.suffix == ".py" else _read_toml(path)).items():
        settings = value if key in groups and isinstance(value, dict) else {key: value}
        for name, setting in settings.items():
            if name not in home_of:
                near = difflib.get_close_matches(name, home_of, n=3, cutoff=0.5)
                hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(home_of)}"
                raise ConfigError(f"`{path}` has an unknown setting `{name}`; {hint}")
            values[home_of[name]][name] = tuple(setting) if isinstance(setting, list) else setting
    for group, settings in values.items():
        _check_types(path, getattr(defaults, group), settings)
    changed = {group: dataclasses.replace(getattr(defaults, group), **settings) for group, settings in values.items()}
    return dataclasses.replace(defaults, **changed)


def _check_types(path: Path, group: Any, settings: dict[str, Any]) -> None:
    """Refuse a value of another kind than the setting's; the words of its type are in its annotation."""
    kinds = {"int": int, "float": (int, float), "bool": bool, "str": str, "tuple": tuple, "Literal": str}
    for field in dataclasses.fields(group):
        if field.name not in settings:
            continue
        word = str(field.type).split("[")[0].split(" ")[0]
        value = settings[field.name]
        is_right = isinstance(value, kinds[word]) and (word == "bool" or not isinstance(value, bool))  # type: ignore[arg-type]
        if word == "Literal":
            is_right = is_right and f"'{value}'" in str(field.type).replace('"', "'")
        if not is_right:
            raise ConfigError(f"`{path}`: {field.name} must be {field.type}; found {value!r}")


def in_lines(config: Config) -> list[str]:
    """A line for each group of settings, for the user; what is not set is left out."""
    return [
        f"{group}: " + ", ".join(f"{name} {json.dumps(value)}" for name, value in values.items() if value is not None)
        for group, values in dataclasses.asdict(config).items()
    ]


def write_toml(config: Config, path: Path) -> None:
    """Write a configuration; settings that are None are left out, since TOML has no such value."""
    lines = []
    for group, values in dataclasses.asdict(config).items():
        lines.append(f"[{group}]")
        # strings, numbers, booleans and lists of strings are written alike in JSON and TOML
        lines += [f"{name} = {json.dumps(value)}" for name, value in values.items() if value is not None]
        lines.append("")
    path.write_text("\n".join(lines), encoding="utf-8")
