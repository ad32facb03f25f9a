"""Charts of laws: what was measured over what a law says, and predictions over what came true."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from expander_sae.reporting.charts import (
    LARGE,
    MARKERS,
    PALETTE,
    Axis,
    Picture,
    box_around,
    boxes_along,
    drawing_style,
    empty_figure,
    finished,
    name_beside,
    refuse_empty,
)
from expander_sae.reporting.labels import Box

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MANTISSAS = (
    (1.0,),
    (1.0, 3.0),
    (1.0, 2.0, 5.0),
    (1.0, 1.5, 2.0, 3.0, 5.0, 7.0),
    (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0),
    tuple(1 + step / 4 for step in range(36)),
)
"""Round numbers, coarse to fine."""
FEWEST = 4
"""Round numbers on an axis, if there is any choice."""
GAP = 7.0
"""Pixels between the end of a line and its name."""
NEAREST = 0.07
"""Share of a logarithmic axis between two numbers on it, at least."""


class Fit(NamedTuple):
    """Points that were measured, and the line that a law draws through them."""

    label: str
    points: Sequence[tuple[float, float]]
    line: Sequence[tuple[float, float]]


class Cloud(NamedTuple):
    """Pairs of what was measured and what was predicted."""

    label: str
    points: Sequence[tuple[float, float]]


def law_chart(curves: Sequence[Fit], x: Axis, y: Axis) -> Picture:
    """Points with the lines of a law, each line named at its end."""
    refuse_empty([point for curve in curves for point in curve.points])
    with drawing_style():
        figure, axes = empty_figure(x, y, LARGE)
        for curve, color, marker in zip(curves, cycle(PALETTE), cycle(MARKERS), strict=False):
            axes.plot(*zip(*curve.line, strict=True), color=color, linewidth=1.4)
            axes.plot(*zip(*curve.points, strict=True), color=color, marker=marker, markersize=6, linestyle="")
        axes.margins(x=0.08, y=0.06)
        figure.draw_without_rendering()  # fixes the limits
        _name_ends(figure, axes, curves)
        return finished(figure)


def _name_ends(figure: Figure, axes: Axes, curves: Sequence[Fit]) -> None:
    """The name of each line beside its end, where it covers neither a point nor a line."""
    ends, obstacles = [], list[Box]()
    for curve in curves:
        points, line = (
            [(float(x), float(y)) for x, y in axes.transData.transform(np.array(pairs))]
            for pairs in (curve.points, curve.line)
        )
        obstacles += [box_around(*point) for point in points] + boxes_along(line)
        ends.append(line[-1])
    name_beside(figure, axes, [curve.label for curve in curves], ends, obstacles, GAP)


def agreement_chart(clouds: Sequence[Cloud], measured: str, predicted: str) -> Picture:
    """What was predicted over what was measured, on equal logarithmic axes with the line where both are the same."""
    numbers = [number for cloud in clouds for point in cloud.points for number in point]
    refuse_empty(numbers)
    limits = (min(numbers) / 1.1, max(numbers) * 1.1)
    x, y = (Axis(label, log=True, limits=limits, ticks=round_numbers(*limits)) for label in (measured, predicted))
    with drawing_style():
        figure, axes = empty_figure(x, y, LARGE)
        axes.plot(limits, limits, color="#9aa0a6", linewidth=1.0, zorder=1)
        level = 1.0
        for cloud, color, marker in zip(clouds, cycle(PALETTE), cycle(MARKERS), strict=False):
            if not cloud.points:
                continue
            axes.plot(*zip(*cloud.points, strict=True), color=color, marker=marker, markersize=5, linestyle="",
                      alpha=0.75)  # fmt: skip
            level -= 0.055
            axes.plot([0.02], [level], color=color, marker=marker, markersize=5, transform=axes.transAxes)
            axes.text(0.04, level, cloud.label, color=color, va="center", transform=axes.transAxes)
        return finished(figure)


def round_numbers(low: float, high: float) -> list[float]:
    """Round numbers between two positive ones: at least FEWEST of them, as coarse as that allows."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for mantissas in MANTISSAS:
        found = [each * 10.0**decade for decade in decades for each in mantissas if low <= each * 10.0**decade <= high]
        if len(found) >= FEWEST:
            break
    return found


def apart(numbers: Iterable[float]) -> list[float]:
    """Those of some positive numbers, in rising order, that have room for their names on a logarithmic axis."""
    wanted = sorted(set(numbers))
    gap = NEAREST * math.log(wanted[-1] / wanted[0])
    found = wanted[:1]
    for number in wanted[1:]:
        if math.log(number / found[-1]) >= gap:
            found.append(number)
    return found
