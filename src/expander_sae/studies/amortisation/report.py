"""The report of a study of amortisation: the numbers as JSON and CSV, one table, and a picture for each measure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from expander_sae.experiments.amortisation import AmortisationResult
from expander_sae.experiments.amortisation_config import CODERS
from expander_sae.experiments.comparison import facts_of
from expander_sae.experiments.report_files import Report

from expander_sae.evaluation.results import Estimate
from expander_sae.experiments.amortisation_rows import Row, rows_of
from expander_sae.experiments.amortisation_words import notes, sentences
from expander_sae.experiments.frontier_rows import NOTHING
from expander_sae.reporting.charts import Axis, Picture
from expander_sae.reporting.dot_charts import Dot, DotGroup, dot_chart
from expander_sae.reporting.tables import Cell, Table, estimate_cell

NAME = "amortisation"
"""What the files of the report are called, the ending aside."""
FVU, RECOVERED = (
    Axis("share of the variance left unexplained (FVU)"),
    Axis("cross-entropy recovered, against the mean", percent=True),
)


def write_report(result: AmortisationResult) -> Path:
    """Write amortisation.json, .csv and .md and the pictures into the folder; the path of the Markdown."""
    rows = rows_of(result.cells)
    pictures = {"fvu": picture_of(rows, FVU, lambda row: row.fvu)}
    if _asked(rows):
        pictures["recovered"] = picture_of(rows, RECOVERED, lambda row: row.recovered_mean)
    return Report(
        name=NAME,
        title="Amortisation: what is lost by reading codes off one product",
        findings=sentences(rows),
        tables={"Every dictionary under every coder": table_of(rows)},
        notes=notes(result),
        pictures=pictures,
        facts=facts_of(result.config, result.data, result.base, result.cells[0].evaluation, result.seconds),
        rows=rows,
    ).write(result.config.out)


def _asked(rows: Sequence[Row]) -> bool:
    """Whether a language model was."""
    return any(not math.isnan(row.recovered_mean.value) for row in rows)


def table_of(rows: Sequence[Row]) -> Table:
    """A line for every dictionary under every coder."""
    asked = _asked(rows)
    headings = ["dictionary", "trained with", "coder", "values of its network", "FVU", "never fired"]
    headings += ["CE recovered (mean)", "retention"] if asked else []
    return Table([Cell(heading) for heading in headings], [_cells(row, asked) for row in rows])


def _cells(row: Row, asked: bool) -> list[Cell]:
    network = f"{row.network_values:,}" if row.network_values else "–"
    found = [Cell(row.name), Cell(row.trained_with), Cell(row.coder), Cell(network), estimate_cell(row.fvu)]
    found.append(estimate_cell(row.never_fired, percent=True))
    shares = (row.recovered_mean, row.retention) if asked else ()
    return [*found, *(estimate_cell(share, percent=True) for share in shares)]


def picture_of(rows: Sequence[Row], axis: Axis, of: Callable[[Row], Estimate]) -> Picture:
    """A measure of every dictionary, a panel for every coder."""
    found = {(row.name, row.trained_with, row.coder): of(row) for row in rows}
    groups = []
    for name in dict.fromkeys(row.name for row in rows):
        loops = dict.fromkeys(row.trained_with for row in rows if row.name == name)
        dots = [
            Dot(f"trained with {loop}", [found.get((name, loop, coder), NOTHING) for coder in CODERS])
            for loop in loops
        ]  # fmt: skip
        groups.append(DotGroup(name, dots))
    return dot_chart(groups, CODERS, axis)
