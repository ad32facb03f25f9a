"""Charts with labels where the eye is: at the end of a line, beside a point. No legends."""

from __future__ import annotations

import dataclasses
import io
import math
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from expander_sae.errors import ExpanderError
from expander_sae.reporting.labels import Box, Label, place_beside, place_beside_any, spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PALETTE = ("#0072b2", "#b84e00", "#00795a", "#9b3f7d", "#7a6200", "#4d4d4d")
"""Dark enough for text on white, and apart for every kind of colour vision; dashes and markers tell lines apart too."""
INK = "#1f2328"
"""Axes and text."""
GRID = "#d8dce1"
DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)), (0, (3, 3)), (0, (8, 2, 2, 2, 2, 2)))
MARKERS = ("o", "s", "D", "^", "v", "P", "X")
SIZE = (5.2, 3.4)
"""Inches; the page shows them between 0.9 and 1.4 times as large."""
LARGE = (8.0, 5.2)
"""Where many points have to find room."""

_POINTS = 10.5
# Pixels between a name and what it names.
_GAP = 10.0


class Series(NamedTuple):
    """A line with its name."""

    label: str
    x: Sequence[float]
    y: Sequence[float]


class Point(NamedTuple):
    """A point with its name, and the interval of its height if it has one."""

    label: str
    x: float
    y: float
    low: float = math.nan
    high: float = math.nan


class Family(NamedTuple):
    """Points that belong together, joined by a line that bears their name; without a name each stands for itself."""

    label: str
    points: Sequence[Point]


class Axis(NamedTuple):
    """What an axis says and how it runs."""

    label: str
    log: bool = False
    percent: bool = False
    limits: tuple[float, float] | None = None
    ticks: Sequence[float] | None = None
    """Where the numbers are; none for round ones."""


@dataclass(frozen=True)
class Picture:
    """A finished chart in both forms, and what to see in it."""

    svg: str
    png: bytes
    title: str = ""
    caption: str = ""

    def titled(self, title: str, caption: str) -> Picture:
        """The same chart with these words."""
        return dataclasses.replace(self, title=title, caption=caption)

    @classmethod
    def load(cls, path: Path) -> Picture:
        """The chart of path.svg and path.png, without words."""
        return cls(path.with_suffix(".svg").read_text(encoding="utf-8"), path.with_suffix(".png").read_bytes())


def check_matplotlib() -> None:
    """Refuse, with the command that helps, if pictures cannot be drawn here."""
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError:
        raise ExpanderError("Pictures need matplotlib: pip install 'expander-sae[report]'.") from None


def line_chart(series: Sequence[Series], x: Axis, y: Axis) -> Picture:
    """Lines, each named at its end."""
    refuse_empty(series)
    for line in series:
        if len(line.x) != len(line.y) or not len(line.x):
            raise ExpanderError(f"The line {line.label!r} needs as many x as y, at least one of each.")
    with drawing_style():
        figure, axes = empty_figure(x, y)
        for line, color, dash in zip(series, cycle(PALETTE), cycle(DASHES), strict=False):
            marker = "o" if len(line.x) == 1 else ""
            axes.plot(line.x, line.y, color=color, linestyle=dash, linewidth=1.8, marker=marker, markersize=5)
        axes.margins(x=0)
        figure.draw_without_rendering()  # fixes the limits
        _name_line_ends(figure, axes, series)
        return finished(figure)


def point_chart(points: Sequence[Point], x: Axis, y: Axis) -> Picture:
    """Points with their intervals, each named beside it."""
    refuse_empty(points)
    if not all(math.isfinite(point.x) and math.isfinite(point.y) for point in points):
        raise ExpanderError("A point can only be drawn where both of its numbers are finite.")
    with drawing_style():
        figure, axes = empty_figure(x, y)
        for point, color, marker in zip(points, cycle(PALETTE), cycle(MARKERS), strict=False):
            if math.isfinite(point.low) and math.isfinite(point.high):
                axes.plot([point.x] * 2, [point.low, point.high], color=color, linewidth=1.6, marker="_", markersize=7)
            axes.plot([point.x], [point.y], color=color, marker=marker, markersize=7, linestyle="")
        axes.margins(x=0.12, y=0.12)
        figure.draw_without_rendering()  # fixes the limits
        _name_points(figure, axes, points)
        return finished(figure)


def family_chart(families: Sequence[Family], x: Axis, y: Axis) -> Picture:
    """Families of points; the first one is drawn with more weight, and its points are named as well."""
    refuse_empty([point for family in families for point in family.points])
    with drawing_style():
        figure, axes = empty_figure(x, y, LARGE)
        for number, (family, color, marker) in enumerate(zip(families, cycle(PALETTE), cycle(MARKERS), strict=False)):
            weight = 1.0 if number else 2.0
            for point in family.points:
                axes.plot([point.x] * 2, [point.low, point.high], color=color, linewidth=0.8 * weight, alpha=0.6)
            axes.plot(
                [point.x for point in family.points], [point.y for point in family.points], color=color, marker=marker,
                markersize=4 + weight, linewidth=1.2 * weight, linestyle=DASHES[0] if family.label else "",
            )  # fmt: skip
        axes.margins(x=0.06, y=0.08)
        figure.draw_without_rendering()  # fixes the limits
        _name_families(figure, axes, families)
        return finished(figure)


def refuse_empty(things: Collection[object]) -> None:
    """Refuse a chart of nothing."""
    if not things:
        raise ExpanderError("A chart needs something to show.")


@contextmanager
def drawing_style() -> Iterator[None]:
    """Letters, colours and lines as all pictures have them."""
    check_matplotlib()
    import matplotlib

    settings: Any = {
        "font.family": "sans-serif", "font.size": _POINTS, "text.color": INK, "axes.labelcolor": INK,
        "axes.edgecolor": INK, "axes.linewidth": 0.8, "xtick.color": INK, "ytick.color": INK, "grid.color": GRID,
        "grid.linewidth": 0.7, "axes.spines.top": False, "axes.spines.right": False, "svg.fonttype": "none",
        "svg.hashsalt": "expander-sae", "axes.formatter.use_mathtext": False, "figure.dpi": 100, "path.simplify": False,
    }  # fmt: skip
    with matplotlib.rc_context(settings):
        yield


def bare_figure(width: float, height: float) -> Figure:
    """A figure of this size in inches, without axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def empty_figure(x: Axis, y: Axis, size: tuple[float, float] = SIZE) -> tuple[Figure, Axes]:
    """A figure with empty axes."""
    figure = bare_figure(*size)
    left, bottom, top = 0.57 / size[0], 0.51 / size[1], 0.41 / size[1]  # inches, whatever the size
    axes = figure.add_axes((left, bottom, 0.97 - left, 1 - bottom - top))
    axes.set_xlabel(x.label)
    figure.text(0.01, 0.98, y.label, va="top")  # level text reads faster than upright text beside the axis
    axes.grid(True, axis="y")
    axes.set_axisbelow(True)
    for axis, name in ((x, "x"), (y, "y")):
        _scale(axes, axis, name)
    return figure, axes


def _scale(axes: Axes, axis: Axis, name: str) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

    ticks = axes.xaxis if name == "x" else axes.yaxis
    if axis.log:
        axes.set(**{f"{name}scale": "log"})
        ticks.set_major_locator(LogLocator(subs=(1, 3)))
        ticks.set_minor_formatter(NullFormatter())
    else:
        ticks.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    if axis.ticks is not None:
        ticks.set_major_locator(FixedLocator(list(axis.ticks)))
        ticks.set_minor_locator(NullLocator())
    ticks.set_major_formatter(FuncFormatter(lambda value, _: percent(value) if axis.percent else short(value)))
    if axis.limits is not None:
        axes.set(**{f"{name}lim": axis.limits})


def short(value: float) -> str:
    """A number as an axis shows it: 0.25, 300k, 2.6M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def percent(value: float) -> str:
    """A share as an axis shows it: 40 %."""
    return f"{100 * value:.3g} %"


def _name_line_ends(figure: Figure, axes: Axes, series: Sequence[Series]) -> None:
    """The names of the lines to the right of their ends, as level with them as their number allows."""
    names = [figure.text(0, 0, line.label, color=color, va="center")
             for line, color in zip(series, cycle(PALETTE), strict=False)]  # fmt: skip
    boxes = [name.get_window_extent() for name in names]
    room = max(box.width for box in boxes) + 2 * _GAP
    left, bottom, _, height = axes.get_position().bounds
    axes.set_position((left, bottom, 1 - left - room / figure.bbox.width, height))
    frame = axes.get_window_extent()
    ends = [axes.transData.transform((line.x[-1], line.y[-1]))[1] for line in series]
    ends = [min(max(end, frame.y0), frame.y1) for end in ends]
    levels = spread(ends, 1.15 * max(box.height for box in boxes), frame.y0, frame.y1)
    for name, end, level, color in zip(names, ends, levels, cycle(PALETTE), strict=False):
        name.set_position(share_of(figure, frame.x1 + _GAP, level))
        if abs(level - end) > 1:
            _leader(figure, (frame.x1 + 1, end), (frame.x1 + _GAP - 1, level), color)


def _name_points(figure: Figure, axes: Axes, points: Sequence[Point]) -> None:
    """The names of the points, where they cover neither each other nor a point nor an interval."""
    places, obstacles = [_pixels(axes, point.x, point.y) for point in points], []
    for point, (x, y) in zip(points, places, strict=True):
        ends = [_pixels(axes, point.x, end)[1] for end in (point.low, point.high) if math.isfinite(end)]
        obstacles.append(
            Box(x - _GAP / 1.5, min([y - _GAP / 1.5, *ends]), x + _GAP / 1.5, max([y + _GAP / 1.5, *ends]))
        )
    name_beside(figure, axes, [point.label for point in points], places, obstacles, _GAP)


def name_beside(
    figure: Figure, axes: Axes, names: Sequence[str], places: Sequence[tuple[float, float]], obstacles: Sequence[Box],
    gap: float,
) -> None:  # fmt: skip
    """Each name in the colour of its turn beside its place in pixels, where it covers no other and no obstacle."""
    texts = [figure.text(0, 0, name, color=color, va="bottom", ha="left")
             for name, color in zip(names, cycle(PALETTE), strict=False)]  # fmt: skip
    sizes = [text.get_window_extent() for text in texts]
    labels = [Label(x, y, size.width, size.height) for (x, y), size in zip(places, sizes, strict=True)]
    for text, box in zip(texts, place_beside(labels, obstacles, frame_of(axes), gap), strict=True):
        text.set_position(share_of(figure, box.left, box.bottom))


def _name_families(figure: Figure, axes: Axes, families: Sequence[Family]) -> None:
    """A name at one of the points of each family, and at every point of the first and of those without a name."""
    labels, names, obstacles = [], [], []
    for number, (family, color) in enumerate(zip(families, cycle(PALETTE), strict=False)):
        points = [_pixels(axes, point.x, point.y) for point in family.points]
        obstacles += [box_around(*point) for point in points] + boxes_along(points)
        of_points = [(point.label, [at]) for point, at in zip(family.points, points, strict=True)]
        of_family = [(family.label, points)] if family.label else []
        for text, places in [*(of_points if number == 0 or not of_family else []), *of_family]:
            weight = "bold" if text == family.label else "normal"
            name = figure.text(0, 0, text, color=color, va="bottom", ha="left", fontweight=weight)
            size = name.get_window_extent()
            names.append(name)
            labels.append([Label(x, y, size.width, size.height) for x, y in places])
    boxes = place_beside_any(labels, obstacles, frame_of(axes), _GAP)
    for name, choices, box in zip(names, labels, boxes, strict=True):
        name.set_position(share_of(figure, box.left, box.bottom))
        distance, start, end = min(_shortest(label, box) for label in choices)
        if distance > 1.1 * _GAP:
            _leader(figure, start, end, str(name.get_color()))


def _pixels(axes: Axes, x: float, y: float) -> tuple[float, float]:
    across, up = axes.transData.transform((x, y))
    return float(across), float(up)


def box_around(x: float, y: float) -> Box:
    """What a marker takes."""
    return Box(x - _GAP / 2, y - _GAP / 2, x + _GAP / 2, y + _GAP / 2)


def _shortest(label: Label, box: Box) -> tuple[float, tuple[float, float], tuple[float, float]]:
    """How far a name is from a point, the point, and what of the name is nearest to it."""
    x, y = min(max(label.x, box.left), box.right), min(max(label.y, box.bottom), box.top)
    return math.hypot(x - label.x, y - label.y), (label.x, label.y), (x, y)


def boxes_along(points: Sequence[tuple[float, float]]) -> list[Box]:
    """What the lines between points take, as small boxes on them."""
    found = []
    for (x1, y1), (x2, y2) in pairwise(points):
        count = int(max(abs(x2 - x1), abs(y2 - y1)) / 4)
        shares = [(step + 1) / (count + 1) for step in range(count)]
        found += [Box(x - 2, y - 2, x + 2, y + 2) for x, y in
                  ((x1 + share * (x2 - x1), y1 + share * (y2 - y1)) for share in shares)]  # fmt: skip
    return found


def _leader(figure: Figure, start: tuple[float, float], end: tuple[float, float], color: str) -> None:
    """A thin line from the end of a line to a name that had to move."""
    from matplotlib.lines import Line2D

    (x1, y1), (x2, y2) = share_of(figure, *start), share_of(figure, *end)
    figure.add_artist(Line2D([x1, x2], [y1, y2], color=color, linewidth=0.7))


def frame_of(axes: Axes) -> Box:
    """Where the axes are, in pixels."""
    frame = axes.get_window_extent()
    return Box(frame.x0, frame.y0, frame.x1, frame.y1)


def share_of(figure: Figure, x: float, y: float) -> tuple[float, float]:
    """A place in pixels as shares of the figure, which stay true at any resolution."""
    return x / figure.bbox.width, y / figure.bbox.height


def finished(figure: Figure) -> Picture:
    """Both forms; the same chart gives the same bytes."""
    svg, png = io.StringIO(), io.BytesIO()
    figure.savefig(svg, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    figure.savefig(png, format="png", dpi=200, facecolor="white")
    return Picture(_plain(svg.getvalue()), png.getvalue())


def _plain(svg: str) -> str:
    """The svg element alone, in whatever sans-serif letters the reader has: they are narrower than those measured."""
    element = re.sub(r" *<defs>\s*<style.*?</defs>\n", "", svg[svg.index("<svg") :], count=1, flags=re.DOTALL)
    return re.sub(r"(font(?:-family)?: [^;\"]*?)'DejaVu Sans'[^;\"]*", r"\1sans-serif", element)
