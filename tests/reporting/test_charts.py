"""Charts say what they show, in letters, and are the same every time."""

from __future__ import annotations

import math
import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from expander_sae.errors import ExpanderError
from expander_sae.reporting.charts import Axis, Family, Point, Series, family_chart, line_chart, point_chart, short
from expander_sae.studies.demo.report import dead_features, loss_curves, storage_fidelity

SVG = "{http://www.w3.org/2000/svg}"
LINES = [Series("sparse", [1, 2, 3], [0.9, 0.6, 0.51]), Series("dense <n>", [1, 2, 3], [0.8, 0.6, 0.5])]
POINTS = [Point("sparse", 3e4, 0.6, 0.55, 0.66), Point("dense", 2.6e6, 0.3, 0.28, 0.33), Point("small", 3.1e4, 0.59)]


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def heights(svg: str, words: set[str]) -> list[float]:
    """Where these texts stand."""
    elements = [element for element in ElementTree.fromstring(svg).iter(f"{SVG}text") if element.text in words]
    return sorted(float(element.attrib["y"]) for element in elements)


def test_everything_is_named_in_real_letters() -> None:
    assert {"sparse", "dense <n>", "tokens trained on"} <= set(texts(loss_curves(LINES).svg))
    assert {"sparse", "dense", "small", "error", "learned values"} <= set(texts(storage_fidelity(POINTS, "error").svg))


def test_names_of_lines_that_end_together_do_not_overlap() -> None:
    crowd = [Series(f"line {number}", [1, 2], [1, 0.5 + number / 1000]) for number in range(6)]
    found = heights(loss_curves(crowd).svg, {line.label for line in crowd})
    assert len(found) == 6
    assert min(above - below for below, above in pairwise(found)) >= 9.5


def test_shares_are_percent_and_large_numbers_short() -> None:
    assert any(text.endswith(" %") for text in texts(dead_features([Series("a", [1000, 300000], [0.0, 0.4])]).svg))
    assert [short(number) for number in (0.25, 300_000, 2.6e6, 3e9, 0)] == ["0.25", "300k", "2.6M", "3G", "0"]


def test_the_same_chart_is_the_same_file_and_refers_to_nothing_outside() -> None:
    picture, again = (
        point_chart(POINTS, Axis("x", log=True), Axis("y")),
        point_chart(POINTS, Axis("x", log=True), Axis("y")),
    )
    assert picture == again
    assert picture.svg.startswith("<svg")
    assert not re.findall(r'(?:href|src)="(?!#)', picture.svg)
    assert "DejaVu" not in picture.svg
    assert picture.png.startswith(b"\x89PNG")


def test_a_single_row_of_metrics_can_be_shown() -> None:
    assert "one" in texts(loss_curves([Series("one", [64], [0.7])]).svg)


@pytest.mark.parametrize(
    ("series", "sentence"),
    [
        ([], "A chart needs something to show."),
        ([Series("a", [1, 2], [1])], "as many x as y"),
        ([Series("a", [], [])], "at least one of each"),
    ],
)
def test_lines_that_cannot_be_drawn(series: list[Series], sentence: str) -> None:
    with pytest.raises(ExpanderError, match=sentence):
        line_chart(series, Axis("x"), Axis("y"))


def test_points_that_cannot_be_drawn() -> None:
    with pytest.raises(ExpanderError, match="both of its numbers are finite"):
        point_chart([Point("a", 1, math.nan)], Axis("x"), Axis("y"))


def test_of_families_the_first_and_those_without_a_name_have_named_points() -> None:
    families = [
        Family("ours", [Point("d=2", 1e3, 0.5, 0.4, 0.6), Point("d=7", 1e4, 0.4)]),
        Family("theirs", [Point("n=8", 1e3, 0.7), Point("n=64", 1e4, 0.6)]),
        Family("", [Point("int8", 1e5, 0.3), Point("int4", 5e4, 0.3)]),
    ]
    found = set(texts(family_chart(families, Axis("bytes", log=True), Axis("error")).svg))
    assert {"ours", "d=2", "d=7", "theirs", "int8", "int4", "bytes", "error"} <= found
    assert not {"n=8", "n=64", ""} & found


def test_families_without_points_cannot_be_drawn() -> None:
    with pytest.raises(ExpanderError, match="something to show"):
        family_chart([Family("ours", [])], Axis("x"), Axis("y"))
