"""The page stands alone, is well formed, and says every number that it was given."""

from __future__ import annotations

import re

import pytest

from expander_sae.evaluation.results import NOTHING, Interval, Kind
from expander_sae.reporting.charts import PALETTE, Series
from expander_sae.reporting.highlights import FeatureCard, Piece
from expander_sae.reporting.page import page_of
from expander_sae.reporting.report import Features, Report
from expander_sae.reporting.tables import Cell, Percent, Table, interval_cell
from expander_sae.studies.demo.report import loss_curves
from tests.pages import Reader


@pytest.fixture(scope="module")
def page() -> Report:
    table = Table(
        [Cell("dictionary"), Cell("FVU"), Cell("recovered", "against zeros")],
        [
            [
                Cell("sparse", "64 columns"),
                interval_cell(Interval(0.5123, 0.4, 0.6, Kind.DOCUMENTS)),
                Cell("81.7%", "79.1% to 83.2%"),
            ],
            [Cell("dense"), interval_cell(Interval(0.25, 0.2, 0.3, Kind.DOCUMENTS)), Cell("97.3%")],
        ],
    )
    picture = loss_curves([Series("sparse", [1, 2], [0.9, 0.5]), Series("dense", [1, 2], [0.8, 0.3])])
    pieces = [Piece("<script>", 1.0, 3.25, True), Piece("&amp;", 0.0, 0.0, False), Piece("↵", 0.5, 1.0, False)]
    card = FeatureCard(7, "Fires on 1.25% of 100 tokens.", "Touches 2 of 8 coordinates.", [pieces])
    return Report(
        name="demo",
        title="A < B & C",
        findings=['They say "no".'],
        tables={"The dictionaries compared": table},
        notes=["a note"],
        pictures={"one": picture.titled("One", "first"), "other": picture.titled('The "other"', "second")},
        features=Features("of sparse", [card]),
        facts={"made": {"Model": "tiny <1>"}},
        commands=["expander demo --out 'my runs'"],
        cautions=["do not"],
    )


def render(report: Report) -> str:
    return page_of([report], report.title)


def test_it_is_well_formed_and_stands_alone(page: Report) -> None:
    html = render(page)
    reader = Reader(html)
    assert html.startswith("<!DOCTYPE html>")
    assert all(reference.startswith("#") for reference in reader.references)
    assert not re.search(r"<(script|link|img|iframe)\b|@import|url\((?!#)", html)
    assert len(reader.ids) == len(set(reader.ids))
    assert {reference.removeprefix("#") for reference in reader.references} <= set(reader.ids)


def test_it_says_everything(page: Report) -> None:
    text, (table,) = "".join(Reader(render(page)).texts), page.tables.values()
    for row in [table.headings, *table.rows]:
        for cell in row:
            assert cell.text in text
            assert cell.below in text
    for words in (
        page.title, *page.findings, "of sparse", "a note", "Feature 7", "1.25% of 100 tokens", "<script>&amp;↵",
        "tiny <1>", "expander demo --out 'my runs'", "do not", "first", "second",
    ):  # fmt: skip
        assert words in text


def test_pictures_follow_the_theme(page: Report) -> None:
    html = render(page)
    drawings = re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL)
    assert len(drawings) == 2
    assert not any(color in drawing for drawing in drawings for color in PALETTE)
    styles = html.split("</style>")[0]
    dark = styles[styles.index("prefers-color-scheme: dark") :]
    for name in set(re.findall(r"var\((--[\w-]+)\)", "".join(drawings))):
        assert f"{name}:" in styles.split("@media")[0]
        assert f"{name}:" in dark


def test_intervals_in_cells() -> None:
    share = Interval(0.8123, 0.79, 0.83, Kind.DOCUMENTS)
    assert interval_cell(share, percent=True) == Cell("81.2%", "79.0% to 83.0%", "±2.0")
    assert interval_cell(Interval.bare(0.5)) == Cell("0.500")
    assert interval_cell(Interval(1.0, 1.0, 1.0, Kind.HULL)) == Cell("1.000")
    assert interval_cell(NOTHING) == interval_cell(None) == Cell("–")


def test_a_table_says_which_statistic_its_intervals_are() -> None:
    one, other = Interval(0.5, 0.4, 0.6, Kind.HULL), Interval(0.1, 0.0, 0.2, Kind.LEAST_AND_MOST)
    table = Table.of(["a", "b"], {"name": str, "values": lambda _: 1234, "FVU": lambda _: one})
    assert [[cell.text for cell in row] for row in table.rows] == [["a", "1,234", "0.500"], ["b", "1,234", "0.500"]]
    assert table.caption == f"Intervals: {Kind.HULL}."
    assert table.caption in table.to_markdown()
    both = Table.of(["a"], {"name": str, "FVU": lambda _: one, "dead": lambda _: Percent(other)})
    assert both.caption == f"Intervals: {Kind.HULL} (FVU); {Kind.LEAST_AND_MOST} (dead)."
    assert both.rows[0][2] == Cell("10.0%", "0.0% to 20.0%", "±10.0")
    assert Table.of(["a"], {"name": str, "FVU": lambda _: NOTHING}).caption == ""
