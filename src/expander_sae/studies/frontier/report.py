"""The report of a frontier: the numbers as JSON, one table as CSV and Markdown, and pictures as SVG and PNG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from expander_sae.experiments.comparison import facts_of
from expander_sae.experiments.frontier import FrontierResult
from expander_sae.experiments.frontier_contestants import FAMILIES, PRODUCTS, ROUNDED
from expander_sae.experiments.report_files import Report
from rich.filesize import decimal

from expander_sae.experiments.frontier_rows import Measure, Row, measures_of, rows_of
from expander_sae.experiments.frontier_words import BUDGETS, notes, sentences, verdict_table
from expander_sae.reporting.charts import Axis, Family, Picture, Point, family_chart
from expander_sae.reporting.tables import Cell, Table, estimate_cell

NAME = "frontier"
"""What the files of the report are called, the ending aside; pictures add what they show."""


def write_report(result: FrontierResult) -> Path:
    """Write frontier.json, .csv and .md and the pictures into the folder; the path of the Markdown."""
    rows = rows_of(result.cells)
    return Report(
        name=NAME,
        title="Frontier: what dictionaries keep over what they take",
        findings=sentences(rows),
        tables={"Every dictionary": table_of(rows), "Who wins where": verdict_table(rows)},
        notes=notes(result),
        pictures={
            f"{budget.split()[-1]}_{measure.name}": picture_of(rows, budget, measure)
            for budget in BUDGETS
            for measure in measures_of(rows)
        },
        facts=facts_of(result.config, result.data, result.dense, result.cells[0].evaluation, result.seconds),
        rows=rows,
    ).write(result.config.out)


def table_of(rows: Sequence[Row]) -> Table:
    """The comparison, a row for every dictionary and coder."""
    asked = any(not math.isnan(row.recovered_mean.value) for row in rows)
    headings = ["dictionary", "coder", "learned values", "on disk", "FVU", "never fired"]
    headings += ["CE recovered (zeros)", "CE recovered (mean)", "retention"] if asked else []
    return Table([Cell(heading) for heading in headings], [_cells(row, asked) for row in rows])


def _cells(row: Row, asked: bool) -> list[Cell]:
    found = [
        Cell(row.name),
        Cell(row.coder),
        Cell(f"{row.learned_values:,}"),
        Cell(decimal(row.bytes_on_disk)),
        estimate_cell(row.fvu),
        estimate_cell(row.never_fired, percent=True),
    ]
    shares = (row.recovered_zero, row.recovered_mean, row.retention)
    return [*found, *(estimate_cell(share, percent=True) for share in shares)] if asked else found


def picture_of(rows: Sequence[Row], budget: str, measure: Measure) -> Picture:
    """A measure over what is held equal; each dictionary under whichever coder is better for it."""
    best = dict[tuple[str, str], Row]()
    for row in rows:
        if math.isnan(measure.of(row).value):
            continue
        held = best.setdefault((row.family, row.name), row)
        if measure.better(measure.of(row), measure.of(held)):
            best[row.family, row.name] = row
    families = []
    for family in FAMILIES:
        members = [row for row in best.values() if row.family == family]
        points = [_point(row, BUDGETS[budget], measure) for row in members]
        # Rounded and product-quantised ones are no line that one walks along: each is a choice of its own.
        label = "" if family in (ROUNDED, PRODUCTS) else family
        families.append(Family(label, sorted(points, key=lambda point: point.x)))
    label = "bytes on disk" if budget == "bytes" else budget
    return family_chart(
        [family for family in families if family.points], Axis(label, log=True),
        Axis(measure.label, percent=measure.percent),
    )  # fmt: skip


def _point(row: Row, size: str, measure: Measure) -> Point:
    estimate = measure.of(row)
    name = row.name.removeprefix("expander ").removeprefix("dense ")
    return Point(name, getattr(row, size), estimate.value, estimate.low, estimate.high)
