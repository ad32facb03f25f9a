"""Heat maps show every cell that there is, and name what they draw once."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import pytest

from expander_sae.errors import ExpanderError
from expander_sae.reporting.charts import Series
from expander_sae.reporting.heat_maps import Grid, HeatMap, heat_maps, shade

SVG = "{http://www.w3.org/2000/svg}"
GRID = Grid([0.01, 0.03, 0.1], [1.0, 2.0], "active", "size", "found")


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_lines_and_columns_and_curves_are_named_once() -> None:
    curves = [Series("measured", [0.02, 0.03], [1.0, 2.0])]
    shown = HeatMap([[1.0, 0.5, 0.0], [1.0, 0.25, math.nan]], curves)
    found = texts(heat_maps({("a", "x"): shown, ("a", "y"): shown}, ["a", "b"], ["x", "y"], GRID).svg)
    for name in ("a", "x", "y", "measured", "active", "found: 0 % to 100 %"):
        assert found.count(name) == 1
    assert "b" not in found  # there is nothing to see of it


def test_cells_have_the_shade_of_their_share_and_equal_neighbours_are_one() -> None:
    def fills(*line: float) -> int:
        svg = heat_maps({("a", "x"): HeatMap([list(line), [math.nan] * 3])}, ["a"], ["x"], GRID).svg
        return svg.count(f"fill: {shade(0.5)}")

    assert fills(0.5, 0.5, 0.5) == 1
    assert fills(0.5, 0.0, 0.5) == 2
    assert fills(1.0, math.nan, 0.0) == 0


def test_shades_go_from_light_to_dark() -> None:
    sums = [sum(int(shade(share / 10)[at : at + 2], 16) for at in (1, 3, 5)) for share in range(11)]
    assert sums == sorted(sums, reverse=True)
    assert shade(-1) == shade(0)
    assert shade(2) == shade(1)


def test_nothing_to_show_is_refused() -> None:
    with pytest.raises(ExpanderError, match="needs something to show"):
        heat_maps({}, ["a"], ["x"], GRID)
