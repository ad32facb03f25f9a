"""Heat maps as small multiples: a picture for every pair of things, all on the same axes, with curves over them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from expander_sae.reporting.charts import (
    INK,
    PALETTE,
    Picture,
    Series,
    bare_figure,
    drawing_style,
    finished,
    percent,
    refuse_empty,
    short,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHADES = ("#f3f6fa", "#cfe0ee", "#9ec3de", "#5c9ac4", "#2a6ea3", "#0d3f6b")
"""From 0 to 1, even steps of lightness."""
LINES: tuple[tuple[str, Any], ...] = (
    (INK, "-"), (PALETTE[1], "-"), (PALETTE[1], (0, (3, 1.5))), ("#c8102e", (0, (1.2, 1.2))), (PALETTE[3], "-."),
    (PALETTE[2], (0, (4, 1, 1, 1))),
)  # fmt: skip
"""Colour and dash of curves by their place among the names."""
PANEL = (1.75, 1.35)
"""Inches of one picture."""

_LEFT, _TOP, _GAP, _BOTTOM = 1.1, 0.42, 0.14, 0.5  # inches; beside the key, which takes what it needs
_KEY_LINE = 0.24


class HeatMap(NamedTuple):
    """Shares from 0 to 1, a line for every y; nan where there is nothing."""

    shares: Sequence[Sequence[float]]
    curves: Sequence[Series] = ()
    """Lines over it; the same label is the same line in every picture."""


class Grid(NamedTuple):
    """What all pictures share."""

    x: Sequence[float]
    """Where the columns of cells are, ascending; drawn on a logarithmic axis, as y is."""
    y: Sequence[float]
    x_label: str
    y_label: str
    shade_label: str


def heat_maps(
    maps: Mapping[tuple[str, str], HeatMap], rows: Sequence[str], columns: Sequence[str], grid: Grid
) -> Picture:
    """A picture for every (row, column) that there is, and below them what the curves and shades mean."""
    refuse_empty(maps)
    rows = [row for row in rows if any((row, column) in maps for column in columns)]
    names = list(dict.fromkeys(curve.label for each in maps.values() for curve in each.curves))
    width = _LEFT + len(columns) * (PANEL[0] + _GAP)
    key = _KEY_LINE * (len(names) + 1) + 0.1
    height = _TOP + len(rows) * (PANEL[1] + _GAP) + _BOTTOM + key
    with drawing_style():
        figure = bare_figure(width, height)
        for row, column in ((row, column) for row in rows for column in columns):
            if (row, column) in maps:
                left = _LEFT + columns.index(column) * (PANEL[0] + _GAP)
                bottom = height - _TOP - (rows.index(row) + 1) * PANEL[1] - rows.index(row) * _GAP
                axes = figure.add_axes((left / width, bottom / height, PANEL[0] / width, PANEL[1] / height))
                _draw(axes, maps[row, column], grid, names)
                lowest = all((below, column) not in maps for below in rows[rows.index(row) + 1 :])
                axes.tick_params(labelbottom=lowest, labelleft=column == columns[0])
        _name_lines(figure, rows, columns, grid)
        _key(figure, names, grid.shade_label, key / height)
        return finished(figure)


def _draw(axes: Axes, shown: HeatMap, grid: Grid, names: Sequence[str]) -> None:
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import withStroke
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

    x, y = _edges(grid.x), _edges(grid.y)
    axes.set(xscale="log", yscale="log", xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
    for number, line in enumerate(shown.shares):
        for start, length, share in _runs(line):
            width, height = x[start + length] - x[start], y[number + 1] - y[number]
            axes.add_patch(Rectangle((x[start], y[number]), width, height, color=shade(share), linewidth=0.3))
    for curve in shown.curves:
        color, dash = LINES[names.index(curve.label) % len(LINES)]
        halo = [withStroke(linewidth=2.6, foreground="white")]
        axes.plot(curve.x, curve.y, color=color, linestyle=dash, linewidth=1.3, path_effects=halo)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
    axes.yaxis.set_major_locator(FixedLocator([value for value in grid.y if math.log2(value) % 1 == 0] or list(grid.y)))
    for ticks in (axes.xaxis, axes.yaxis):
        ticks.set_minor_locator(NullLocator())
        ticks.set_major_formatter(FuncFormatter(lambda value, _: short(value)))


def _edges(centres: Sequence[float]) -> list[float]:
    """Where cells around these places begin and end, on a logarithmic axis."""
    if len(centres) == 1:
        return [centres[0] / math.sqrt(2), centres[0] * math.sqrt(2)]
    inner = [math.sqrt(low * high) for low, high in pairwise(centres)]
    return [centres[0] ** 2 / inner[0], *inner, centres[-1] ** 2 / inner[-1]]


def _runs(line: Sequence[float]) -> Iterator[tuple[int, int, float]]:
    """Start, length and share of neighbours that are equal, so that a picture has few parts."""
    start = 0
    for share, run in groupby(line, key=lambda value: -1.0 if math.isnan(value) else value):
        length = len(list(run))
        if share >= 0:
            yield start, length, share
        start += length


def shade(share: float) -> str:
    """The colour of a share, between the two nearest of SHADES."""
    place = min(max(share, 0.0), 1.0) * (len(SHADES) - 1)
    low = min(int(place), len(SHADES) - 2)
    pairs = zip(_channels(SHADES[low]), _channels(SHADES[low + 1]), strict=True)
    return "#" + "".join(f"{round(one + (place - low) * (other - one)):02x}" for one, other in pairs)


def _channels(color: str) -> list[int]:
    return [int(color[start : start + 2], 16) for start in (1, 3, 5)]


def _name_lines(figure: Figure, rows: Sequence[str], columns: Sequence[str], grid: Grid) -> None:
    """The names of rows and columns, and of the axes once."""
    width, height = figure.get_size_inches()
    for number, column in enumerate(columns):
        middle = _LEFT + number * (PANEL[0] + _GAP) + PANEL[0] / 2
        figure.text(middle / width, 1 - (_TOP - 0.08) / height, column, ha="center", va="bottom", fontweight="bold")
    for number, row in enumerate(rows):
        top = height - _TOP - number * (PANEL[1] + _GAP)
        figure.text(0.06 / width, (top - PANEL[1] / 2) / height, row, ha="left", va="center", fontweight="bold",
                    rotation="vertical")  # fmt: skip
        figure.text(0.4 / width, (top - PANEL[1] / 2) / height, grid.y_label, ha="left", va="center")
    bottom = height - _TOP - len(rows) * (PANEL[1] + _GAP) - 0.2
    figure.text(_LEFT / width, bottom / height, grid.x_label, ha="left", va="top")


def _key(figure: Figure, names: Sequence[str], shade_label: str, height: float) -> None:
    """What the shades and every line mean."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Rectangle

    inch = 1 / figure.get_size_inches()[0]
    step = height / (len(names) + 1.4)
    start, text = _LEFT * inch, (_LEFT + 1.65) * inch
    shares = [number / 5 for number in range(6)]
    for number, share in enumerate(shares):
        place = (start + number * 0.25 * inch, height - 0.8 * step)
        figure.add_artist(Rectangle(place, 0.25 * inch, 0.6 * step, facecolor=shade(share), edgecolor="none"))
    figure.text(text, height - 0.5 * step, f"{shade_label}: {percent(0)} to {percent(1)}", va="center")
    for number, name in enumerate(names):
        level = height - (number + 1.5) * step
        color, dash = LINES[number % len(LINES)]
        line = Line2D([start, start + 1.5 * inch], [level, level], color=color, linestyle=dash, linewidth=1.6)
        figure.add_artist(line)
        figure.text(text, level, name, va="center")
