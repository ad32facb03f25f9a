"""The report of a study of supports: the numbers as JSON and CSV, one table, and pictures for both coders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from expander_sae.experiments.comparison import facts_of
from expander_sae.experiments.controls import ControlsResult
from expander_sae.experiments.controls_config import CLUSTERED, CODERS, DEGENERATE, SPREAD
from expander_sae.experiments.controls_rows import Row, rows_of
from expander_sae.experiments.controls_words import notes, sentences
from expander_sae.experiments.report_files import Report
from expander_sae.reporting.charts import Axis, Picture
from expander_sae.reporting.dot_charts import Dot, DotGroup, dot_chart
from expander_sae.reporting.tables import Cell, Table, estimate_cell

NAME = "controls"
"""What the files of the report are called, the ending aside."""
FVU, DEAD = "share of the variance left unexplained (FVU)", "features that never fired"


def write_report(result: ControlsResult) -> Path:
    """Write controls.json, .csv and .md and the pictures into the folder; the path of the Markdown."""
    rows = rows_of(result.cells, result.base.n)
    return Report(
        name=NAME,
        title="Supports: where the values of a column are, beside how many there are",
        findings=sentences(rows, result.config.d),
        tables={"Every support": table_of(rows)},
        notes=notes(result),
        pictures={"fvu": picture_of(rows, result.config.d, FVU), "dead": picture_of(rows, result.config.d, DEAD)},
        facts={
            **facts_of(result.config, result.data, result.base, result.cells[0].evaluation, result.seconds),
            "absent": result.absent,
        },
        rows=rows,
        further={"Pairs of columns by how many coordinates they share": overlap_table(rows)},
    ).write(result.config.out)


def table_of(rows: Sequence[Row]) -> Table:
    """A line for every support under every coder."""
    headings = ["support", "d", "coder", "FVU", "never fired", "distinct", "largest overlap", "2 or more shared"]
    return Table([Cell(each) for each in (*headings, "uncovered")], [_cells(row) for row in rows])


def _cells(row: Row) -> list[Cell]:
    return [
        Cell(row.construction),
        Cell(str(row.d)),
        Cell(row.coder),
        estimate_cell(row.fvu),
        estimate_cell(row.dead, percent=True),
        Cell(f"{row.distinct.value:.1%}"),
        Cell(str(row.largest_overlap)),
        Cell(f"{sum(row.overlaps[2:]):.2%}"),
        Cell(f"{row.uncovered.value:.3g}"),
    ]


def overlap_table(rows: Sequence[Row]) -> Table:
    """The overlap histogram of every support."""
    supports = {(row.construction, row.d): row.overlaps for row in rows}
    most = max(len(overlaps) for overlaps in supports.values())
    lines = []
    for (construction, d), overlaps in supports.items():
        shares = [f"{share:.3%}" if share else "–" for share in overlaps] + ["–"] * (most - len(overlaps))
        lines.append([Cell(each) for each in (construction, str(d), *shares)])
    return Table([Cell(each) for each in ("support", "d", *map(str, range(most)))], lines)


def picture_of(rows: Sequence[Row], d: int, measure: str) -> Picture:
    """A measure of every support, under both coders: spread ones, then controls, then uniform ones of other degrees."""
    groups = {
        f"rows spread, d={d}": [row for row in rows if row.construction in SPREAD and row.d == d],
        f"clustered, d={d}": [row for row in rows if row.construction.startswith(CLUSTERED)],
        f"degenerate, d={d}": [row for row in rows if row.construction in DEGENERATE],
        "uniform": [row for row in rows if row.d != d],
    }
    shown = [DotGroup(name, _dots(members, d, measure)) for name, members in groups.items() if members]
    return dot_chart(shown, CODERS, Axis(measure, percent=measure == DEAD))


def _dots(rows: Sequence[Row], d: int, measure: str) -> list[Dot]:
    estimates = {(row.construction, row.d, row.coder): row.dead if measure == DEAD else row.fvu for row in rows}
    return [
        Dot(name if degree == d else f"d={degree}", [estimates[name, degree, coder] for coder in CODERS])
        for name, degree in dict.fromkeys((row.construction, row.d) for row in rows)
    ]
