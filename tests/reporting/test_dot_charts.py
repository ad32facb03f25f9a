"""Dot charts: what they show, and what they refuse."""

from __future__ import annotations

import pytest

from expander_sae.errors import ExpanderError
from expander_sae.evaluation.results import NOTHING, Interval, Kind
from expander_sae.reporting.charts import Axis
from expander_sae.reporting.dot_charts import Dot, DotGroup, dot_chart

ONE = Interval(0.25, 0.2, 0.3, Kind.DOCUMENTS)


def test_every_thing_is_named_once_and_numbered_in_every_panel() -> None:
    groups = [DotGroup("good", [Dot("lines", [ONE, ONE])]), DotGroup("bad", [Dot("shared", [ONE, ONE])])]
    picture = dot_chart(groups, ["topk", "omp"], Axis("dead", percent=True))
    for word, times in {"good": 1, "bad": 1, "lines": 1, "shared": 1, "topk": 1, "omp": 1, "25.0%": 4}.items():
        assert picture.svg.count(f">{word}</text>") == times
    assert picture == dot_chart(groups, ["topk", "omp"], Axis("dead", percent=True))
    assert picture.png.startswith(b"\x89PNG")


def test_what_is_not_known_is_left_out() -> None:
    picture = dot_chart([DotGroup("all", [Dot("a", [NOTHING]), Dot("b", [ONE])])], ["topk"], Axis("FVU"))
    assert picture.svg.count(">0.250</text>") == 1
    assert ">nan</text>" not in picture.svg


def test_charts_that_cannot_be_are_refused() -> None:
    with pytest.raises(ExpanderError, match="needs something to show"):
        dot_chart([DotGroup("all", [])], ["topk"], Axis("FVU"))
    with pytest.raises(ExpanderError, match="a value for each of the panels topk, omp"):
        dot_chart([DotGroup("all", [Dot("a", [ONE])])], ["topk", "omp"], Axis("FVU"))
