"""Dot charts: a line for every thing, a panel for every way to measure it, all on one axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import cycle
from typing import TYPE_CHECKING, NamedTuple

from expander_sae.errors import ExpanderError
from expander_sae.evaluation.results import Interval
from expander_sae.reporting.charts import (
    MARKERS,
    PALETTE,
    Axis,
    Picture,
    bare_figure,
    drawing_style,
    finished,
    percent,
    refuse_empty,
    short,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LINE, PANEL = 0.24, 2.6
"""Inches from line to line, and of a panel's width."""

_TOP, _BOTTOM, _GAP, _LETTER = 0.62, 0.5, 0.25, 0.095  # inches


class Dot(NamedTuple):
    """A thing, and what is measured of it in every panel."""

    label: str
    values: Sequence[Interval]


class DotGroup(NamedTuple):
    """Things that belong together, under a heading."""

    label: str
    dots: Sequence[Dot]


def dot_chart(groups: Sequence[DotGroup], panels: Sequence[str], axis: Axis) -> Picture:
    """Every thing on a line of its own, with its interval and its number beside the dot."""
    dots = [dot for group in groups for dot in group.dots]
    refuse_empty(dots and panels)
    if any(len(dot.values) != len(panels) for dot in dots):
        raise ExpanderError(f"Every dot needs a value for each of the panels {', '.join(panels)}.")
    left = 0.2 + _LETTER * max(len(name) for name in [group.label for group in groups] + [dot.label for dot in dots])
    lines = sum(len(group.dots) + 1 for group in groups)
    width = left + len(panels) * (PANEL + _GAP)
    height = _TOP + lines * LINE + _BOTTOM
    with drawing_style():
        figure = bare_figure(width, height)
        figure.text(0.01, 1 - 0.06 / height, axis.label, va="top")
        for number, (panel, color, marker) in enumerate(zip(panels, cycle(PALETTE), cycle(MARKERS), strict=False)):
            place = (left + number * (PANEL + _GAP)) / width
            axes = figure.add_axes((place, _BOTTOM / height, PANEL / width, lines * LINE / height))
            _scale(axes, axis, dots, lines)
            axes.set_title(panel, color=color, fontweight="bold", fontsize="medium")
            _draw(axes, groups, number, color, marker, axis)
            if number == 0:
                _name_lines(axes, groups)
        return finished(figure)


def _scale(axes: Axes, axis: Axis, dots: Sequence[Dot], lines: int) -> None:
    """From zero to a little beyond the largest number, in every panel alike."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    ends = [end for dot in dots for value in dot.values for end in (value.value, value.high) if math.isfinite(end)]
    limits = axis.limits or (0.0, 1.28 * max([*ends, 1e-3]))  # which leaves room for the number behind the last dot
    axes.set(xlim=limits, ylim=(lines - 0.4, -0.6))
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: percent(value) if axis.percent else short(value)))
    axes.tick_params(axis="y", length=0, labelleft=False)
    axes.spines["left"].set_visible(False)
    axes.grid(True, axis="x")
    axes.set_axisbelow(True)


def _draw(axes: Axes, groups: Sequence[DotGroup], panel: int, color: str, marker: str, axis: Axis) -> None:
    level = 0
    for group in groups:
        for dot in group.dots:
            level += 1
            value = dot.values[panel]
            if math.isnan(value.value):
                continue
            if math.isfinite(value.low) and math.isfinite(value.high):
                axes.plot([value.low, value.high], [level, level], color=color, linewidth=1.6)
            axes.plot([value.value], [level], color=color, marker=marker, markersize=5, linestyle="")
            said = f"{value.value:.1%}" if axis.percent else f"{value.value:.3f}"
            end = value.high if math.isfinite(value.high) else value.value
            axes.annotate(said, (end, level), (6, 0), textcoords="offset points", va="center", fontsize="small")
        level += 1


def _name_lines(axes: Axes, groups: Sequence[DotGroup]) -> None:
    """Headings and names to the left of the first panel."""
    level = 0
    for group in groups:
        for label, weight in ((group.label, "bold"), *((dot.label, "normal") for dot in group.dots)):
            axes.annotate(label, (0, level), (-8, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
                          ha="right", va="center", fontweight=weight)  # fmt: skip
            level += 1
