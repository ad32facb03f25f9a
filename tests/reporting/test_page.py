"""The page stands alone, is well formed, and says every number that it was given."""

from __future__ import annotations

import re

import pytest

from expander_sae.evaluation.results import Estimate
from expander_sae.reporting.charts import PALETTE, Series
from expander_sae.reporting.figures import loss_curves
from expander_sae.reporting.highlights import FeatureCard, Piece
from expander_sae.reporting.page import Figure, Page, render
from expander_sae.reporting.tables import Cell, Table, estimate_cell
from tests.pages import Reader


@pytest.fixture(scope="module")
def page() -> Page:
    table = Table(
        [Cell("dictionary"), Cell("FVU"), Cell("recovered", "against zeros")],
        [
            [Cell("sparse", "64 columns"), estimate_cell(Estimate(0.5123, 0.4, 0.6)), Cell("81.7%", "79.1% to 83.2%")],
            [Cell("dense"), estimate_cell(Estimate(0.25, 0.2, 0.3)), Cell("97.3%")],
        ],
    )
    picture = loss_curves([Series("sparse", [1, 2], [0.9, 0.5]), Series("dense", [1, 2], [0.8, 0.3])])
    pieces = [Piece("<script>", 1.0, 3.25, True), Piece("&amp;", 0.0, 0.0, False), Piece("↵", 0.5, 1.0, False)]
    return Page(
        title="A < B & C",
        summary='They say "no".',
        table=table,
        notes=["a note"],
        figures=[Figure(picture, "One", "first"), Figure(picture, 'The "other"', "second")],
        features_of="of sparse",
        features=[FeatureCard(7, "Fires on 1.25% of 100 tokens.", "Touches 2 of 8 coordinates.", [pieces])],
        facts=[("Model", "tiny <1>")],
        commands=["expander demo --out 'my runs'"],
        cautions=["do not"],
    )


def test_it_is_well_formed_and_stands_alone(page: Page) -> None:
    html = render(page)
    reader = Reader(html)
    assert html.startswith("<!DOCTYPE html>")
    assert all(reference.startswith("#") for reference in reader.references)
    assert not re.search(r"<(script|link|img|iframe)\b|@import|url\((?!#)", html)
    assert len(reader.ids) == len(set(reader.ids))
    assert {reference.removeprefix("#") for reference in reader.references} <= set(reader.ids)


def test_it_says_everything(page: Page) -> None:
    text = "".join(Reader(render(page)).texts)
    for row in [page.table.headings, *page.table.rows]:
        for cell in row:
            assert cell.text in text
            assert cell.below in text
    for words in (
        page.title, page.summary, page.features_of, "a note", "Feature 7", "1.25% of 100 tokens", "<script>&amp;↵",
        "tiny <1>", "expander demo --out 'my runs'", "do not", "first", "second",
    ):  # fmt: skip
        assert words in text


def test_pictures_follow_the_theme(page: Page) -> None:
    html = render(page)
    drawings = re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL)
    assert len(drawings) == 2
    assert not any(color in drawing for drawing in drawings for color in PALETTE)
    styles = html.split("</style>")[0]
    dark = styles[styles.index("prefers-color-scheme: dark") :]
    for name in set(re.findall(r"var\((--[\w-]+)\)", "".join(drawings))):
        assert f"{name}:" in styles.split("@media")[0]
        assert f"{name}:" in dark


def test_estimates_in_cells() -> None:
    assert estimate_cell(Estimate(0.8123, 0.79, 0.83), percent=True) == Cell("81.2%", "79.0% to 83.0%", "±2.0")
    assert estimate_cell(Estimate(0.5, float("nan"), float("nan"))) == Cell("0.500")
    assert estimate_cell(Estimate(1.0, 1.0, 1.0)) == Cell("1.000")
    assert estimate_cell(Estimate(float("nan"), float("nan"), float("nan"))) == estimate_cell(None) == Cell("–")
