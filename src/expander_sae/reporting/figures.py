"""The pictures of a comparison of dictionaries, each made from named numbers."""

from __future__ import annotations

from collections.abc import Sequence

from expander_sae.reporting.charts import Axis, Picture, Point, Series, line_chart, point_chart

TOKENS = Axis("tokens trained on")


def loss_curves(series: Sequence[Series]) -> Picture:
    """FVU over tokens, from nothing explained (1) to everything (0); what is worse than the mean is cut off."""
    highest = max((value for line in series for value in line.y), default=1.0)
    limits = (0.0, min(1.0, 1.05 * highest))
    return line_chart(series, TOKENS, Axis("share of the variance left unexplained (FVU)", limits=limits))


def dead_features(series: Sequence[Series]) -> Picture:
    """The share of dead features over tokens."""
    highest = max((value for line in series for value in line.y), default=0.0)
    return line_chart(
        series, TOKENS, Axis("share of features that are dead", percent=True, limits=(0.0, _above(highest)))
    )


def storage_fidelity(points: Sequence[Point], measure: str, *, percent: bool = False) -> Picture:
    """What a dictionary achieves, by any measure, over how many values it had to learn."""
    return point_chart(points, Axis("learned values", log=True), Axis(measure, percent=percent))


def _above(highest: float) -> float:
    """An upper limit that leaves room, also where there is nothing to see."""
    return max(0.01, 1.08 * highest)
