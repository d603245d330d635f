"""Curves for the report, as SVG that takes its colours from the page.

matplotlib draws with the placeholder colours below, which are then replaced by CSS variables; so a chart is dark on a
dark page. Text stays text, in the page's own font. The same data gives the same bytes.

    svg = line_chart([Curve("training", steps, losses, faint=True), Curve("validation", at, values)], "loss (nats)")
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

# Placeholder → what the page puts there. Any colours do that matplotlib never draws by itself.
_COLOURS = {"#010101": "var(--c1)", "#020202": "var(--c2)", "#030303": "var(--c3)", "#040404": "var(--c4)"}
_INK, _GRID = "#0a0a0a", "#0b0b0b"
_CSS = {**_COLOURS, _INK: "var(--ink-soft)", _GRID: "var(--grid)"}
# A curve with more points than this is drawn as means with the range behind them: the eye sees no more on a screen, and
# a page of a million steps still opens at once.
MAX_POINTS = 500
# A chart is half of a wide page and a whole narrow one; at this size its text is readable on both.
_SIZE_INCHES = (5.4, 2.7)

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """One line of a chart: values over steps, None where nothing was measured."""

    label: str
    steps: Sequence[float]
    values: Sequence[float | None]
    colour: int = 0
    faint: bool = False
    dashed: bool = False
    marked: bool = False
    points: bool = False  # markers without a line between them


def thinned(steps: Sequence[float], values: Sequence[float | None]) -> tuple[Floats, Floats, Floats, Floats]:
    """At most `MAX_POINTS` (step, mean, lowest, highest), in the order of the steps, without what was not measured."""
    x = np.asarray(steps, dtype=np.float64)
    y = np.asarray([np.nan if value is None else value for value in values], dtype=np.float64)
    x, y = x[~np.isnan(y)], y[~np.isnan(y)]
    if len(x) <= MAX_POINTS:
        return x, y, y, y
    parts = np.array_split(np.arange(len(x)), MAX_POINTS)
    mean, low, high = (np.array([fold(y[part]) for part in parts]) for fold in (np.mean, np.min, np.max))
    return np.array([x[part].mean() for part in parts]), mean, low, high


def line_chart(
    curves: Sequence[Curve],
    label: str,
    *,
    over: str = "step",
    log_scale: bool = False,
    from_zero: bool = False,
    percent: bool = False,
) -> str:
    """Curves over training steps, or what `over` names; empty where no curve has a point."""
    from matplotlib.ticker import LogLocator, NullFormatter, PercentFormatter

    drawn = [(curve, *thinned(curve.steps, curve.values)) for curve in curves]
    drawn = [entry for entry in drawn if len(entry[1])]
    if not drawn:
        return ""
    figure, axes = _figure(label, over)
    for curve, x, mean, low, high in drawn:
        colour = list(_COLOURS)[curve.colour % len(_COLOURS)]
        if low is not mean and not curve.faint:
            axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.plot(
            x,
            mean,
            color=colour,
            label=curve.label,
            alpha=0.45 if curve.faint else 1.0,
            linewidth=1.0 if curve.faint else 1.8,
            linestyle="none" if curve.points else "--" if curve.dashed else "-",
            marker="x" if curve.points else "o" if curve.marked or len(x) == 1 else None,
            markersize=3.5,
        )
    if log_scale:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_minor_formatter(NullFormatter())
    if from_zero:
        axes.set_ylim(bottom=0, top=1.08 * max(high.max() for *_, high in drawn) or 1)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0) if percent else _short_formatter())
    axes.xaxis.set_major_formatter(_short_formatter())
    if len(drawn) > 1:
        _legend(axes)
    return _svg(figure, label)


def stacked_chart(
    labels: Sequence[str], steps: Sequence[float], layers: Sequence[Sequence[float | None]], label: str
) -> str:
    """Layers on top of each other over training steps; empty where there is no step."""
    if not steps or not labels:
        return ""
    figure, axes = _figure(label, "step")
    thin = [thinned(steps, [value or 0.0 for value in layer]) for layer in layers]
    axes.stackplot(
        thin[0][0],
        [mean for _, mean, _, _ in thin],
        labels=labels,
        colors=[list(_COLOURS)[index % len(_COLOURS)] for index in range(len(labels))],
        alpha=0.75,
        linewidth=0,
    )
    axes.set_ylim(bottom=0)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(_short_formatter())
    _legend(axes)
    return _svg(figure, label)


def bar_chart(labels: Sequence[str], values: Sequence[float], label: str, *, colours: Sequence[int]) -> str:
    """Bars from top to bottom, their values beside them; empty where there are none."""
    if not values:
        return ""
    figure, axes = _figure(label, "")
    names = list(_COLOURS)
    bars = axes.barh(labels, values, color=[names[colour % len(names)] for colour in colours], height=0.7)
    axes.bar_label(bars, [short_number(value) for value in values], padding=3, fontsize=9, color=_INK)
    axes.invert_yaxis()
    axes.grid(visible=False)
    axes.set_xlim(0, 1.12 * max(values) or 1)
    axes.set_xticks([])
    return _svg(figure, label)


def short_number(value: float) -> str:
    """12300 as `12.3k`, 2750000 as `2.75M`: three digits and a letter."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def _short_formatter() -> FuncFormatter:
    from matplotlib.ticker import FuncFormatter

    return FuncFormatter(lambda value, _: short_number(value))


def _legend(axes: Axes) -> None:
    """In the line of the title, where no curve can run under it; inside, where the labels are too long for that."""
    style: dict[str, Any] = {"frameon": False, "labelcolor": _INK, "fontsize": 9, "handlelength": 1.2}
    if sum(len(label) for label in axes.get_legend_handles_labels()[1]) <= 36:
        style |= {
            "loc": "lower right",
            "bbox_to_anchor": (1.0, 0.98),
            "ncols": 3,
            "borderpad": 0.0,
            "columnspacing": 1.0,
        }
    axes.legend(**style)


def _figure(label: str, over: str) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE_INCHES, layout="constrained")
    axes = figure.add_subplot()
    axes.margins(x=0.01)
    axes.set_axisbelow(True)
    axes.set_title(label, loc="left", fontsize=10, color=_INK)
    axes.set_xlabel(over, fontsize=9, color=_INK)
    axes.grid(color=_GRID, linewidth=0.8)
    axes.tick_params(colors=_INK, which="both", labelsize=9, length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return figure, axes


def _svg(figure: Figure, label: str) -> str:
    import matplotlib

    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "nanofast"}), io.StringIO() as file:
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
        svg = file.getvalue()
    body = svg[svg.index("<defs>") :]
    for placeholder, css in _CSS.items():
        body = body.replace(placeholder, css)
    body = re.sub(r"font-family: [^;\"]*;? ?", "", body)
    body = re.sub(r'<g id="[^"]*">', "<g>", body)  # several charts share a page, and names must not
    # Without a width of its own the drawing takes that of the page's column.
    width, height = (72 * inches for inches in _SIZE_INCHES)
    return f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{html.escape(label)}">{body}'
