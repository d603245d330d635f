"""Mixture: several data sets that are read in shares of tokens.

    mixture = Mixture({"web": ("shards/web/", 0.7), "code": (["a.parquet", "b.parquet"], 0.3)})
    loader = TokenLoader(mixture, tokenizer, …);  loader.reconfigure(mixture={"web": 0.5, "code": 0.5})

A lane takes its next document from the source with the fewest tokens admitted for its weight, so that shares hold at
every moment within one document per other source. Each source keeps an order, epochs and a position of its own.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from nanofast.errors import InvalidError, WrongTypeError

Data = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]

WAYS = ("repeat", "stop", "drop")
_SPELLED = re.compile(r"(?P<name>[\w-]+)=(?P<data>.+):(?P<weight>[0-9]*\.?[0-9]+(e[+-]?[0-9]+)?)")


@dataclass(frozen=True)
class Mixture:
    """Named sources with weights.

    Args:
        sources: for each name the data (a file, folder, glob, or a list of these) and its weight: a share of tokens,
            relative to the sum of all weights.
        run_out: what happens when a source has given all documents of its epochs: "repeat" begins it again for ever;
            "stop" ends the loader; "drop" goes on without it, the others sharing by their weights. With "stop" and
            "drop" the loader's `epochs` counts passes over each source, 1 when None.

    Raises:
        nanofast.Error: no source, a weight that is not above 0 and finite, or an unknown way. Missing and empty data is
            found when a loader opens it.
    """

    sources: Mapping[str, tuple[Data, float]]
    run_out: str = "repeat"
    weights: dict[str, float] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.sources, Mapping):
            raise WrongTypeError(
                f'sources is {type(self.sources).__name__}; expected a dict as {{"web": ("shards/", 0.7), …}}'
            )
        if not self.sources:
            raise InvalidError("a mixture needs a source at least; expected {name: (data, weight), …}")
        if self.run_out not in WAYS:
            raise InvalidError(f"run_out = `{self.run_out}`: expected `repeat`, `stop` or `drop`")
        weights = {}
        for name, source in self.sources.items():
            try:
                _, weights[name] = source
            except (TypeError, ValueError) as error:
                raise WrongTypeError(f"source `{name}` is {source!r}; expected (data, weight)") from error
        object.__setattr__(self, "weights", checked_weights(weights, list(self.sources)))

    @classmethod
    def parse(cls, text: str) -> Mixture | None:
        """The mixture that `NAME=PATH:WEIGHT,NAME=PATH:WEIGHT…` spells; None for anything else, such as a path."""
        parts = [_SPELLED.fullmatch(part) for part in text.split(",")]
        if os.path.exists(text) or not all(parts):  # noqa: PTH110  # a glob or URL is no Path
            return None
        named = [(part["name"], part["data"], float(part["weight"])) for part in parts if part]
        names = [name for name, _, _ in named]
        if len(set(names)) < len(names):
            raise InvalidError(f"data = `{text}`: each source of a mixture has a name of its own")
        return cls({name: (data, weight) for name, data, weight in named})

    def spelled(self) -> str:
        """As `parse` takes it, local paths made absolute; every source is one path."""
        absolute = {
            name: os.fspath(data) if "://" in str(data) else os.path.abspath(data)  # type: ignore[arg-type]  # noqa: PTH100
            for name, (data, _) in self.sources.items()
        }
        return ",".join(f"{name}={path}:{_shortest(self.weights[name])}" for name, path in absolute.items())

    def with_weights(self, weights: Mapping[str, float]) -> Mixture:
        """The same sources with other weights."""
        checked = checked_weights(weights, list(self.sources))
        return Mixture({name: (data, checked[name]) for name, (data, _) in self.sources.items()}, self.run_out)


def _shortest(weight: float) -> str:
    """A weight in the fewest digits that are read back as it."""
    short = f"{weight:g}"
    return short if float(short) == weight else repr(weight)


def checked_weights(weights: Mapping[str, float], names: list[str]) -> dict[str, float]:
    """The weights of all sources as floats, in the order of `names`.

    Raises:
        nanofast.Error: a name too many or too few, or a weight that is not above 0 and finite.
    """
    if sorted(weights) != sorted(names):
        expected = ", ".join(f"`{name}`" for name in names)
        found = ", ".join(f"`{name}`" for name in weights) or "none"
        raise InvalidError(f"weights of {found}; expected one for each source of the mixture: {expected}")
    for name, weight in weights.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            raise WrongTypeError(f"weight of source `{name}` is {weight!r}; expected a number")
        if not (math.isfinite(weight) and weight > 0):
            raise InvalidError(f"weight of source `{name}` = {weight}: must be above 0 and finite")
    return {name: float(weights[name]) for name in names}
