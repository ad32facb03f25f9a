"""Charts of laws: what they show, and what they refuse."""

from __future__ import annotations

import pytest

from expander_sae.errors import ExpanderError
from expander_sae.reporting.charts import Axis
from expander_sae.reporting.law_charts import Cloud, Fit, agreement_chart, apart, law_chart, round_numbers

CURVES = [Fit(f"d={d}", [(100.0, 0.4 / d), (200.0, 0.3 / d)], [(100.0, 0.41 / d), (200.0, 0.29 / d)]) for d in (1, 2)]


def test_lines_are_named_and_numbers_are_where_they_are_wanted() -> None:
    axes = Axis("tokens", log=True, ticks=[100, 200]), Axis("FVU", log=True, ticks=round_numbers(0.1, 0.45))
    picture = law_chart(CURVES, *axes)
    for word in ("d=1", "d=2", "tokens", "FVU", "100", "200", "0.15"):
        assert picture.svg.count(f">{word}</text>") == 1
    assert picture == law_chart(CURVES, *axes)
    assert picture.png.startswith(b"\x89PNG")


def test_clouds_are_named_once_and_empty_ones_not_at_all() -> None:
    picture = agreement_chart([Cloud("left out", [(0.2, 0.21)]), Cloud("nothing", [])], "measured", "told")
    assert picture.svg.count(">left out</text>") == 1
    assert "nothing" not in picture.svg


def test_numbers_on_an_axis_are_round_and_few() -> None:
    assert round_numbers(0.09, 12.0) == pytest.approx([0.1, 0.3, 1, 3, 10])
    assert round_numbers(0.1, 0.45) == pytest.approx([0.1, 0.15, 0.2, 0.3])
    assert len(round_numbers(0.31, 0.33)) <= 4
    assert apart([384, 192, 200, 768, 384]) == [192, 384, 768]


def test_charts_that_cannot_be_are_refused() -> None:
    with pytest.raises(ExpanderError, match="needs something to show"):
        law_chart([], Axis("x"), Axis("y"))
    with pytest.raises(ExpanderError, match="needs something to show"):
        agreement_chart([Cloud("left out", [])], "measured", "told")
