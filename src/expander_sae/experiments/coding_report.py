"""The report of a study of sparse coding: one table, and pictures of scores over what they cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from expander_sae.experiments.report_files import Report

from expander_sae.evaluation.results import Estimate
from expander_sae.experiments.coding import CodingResult
from expander_sae.experiments.coding_config import NEITHER, REFINED
from expander_sae.experiments.coding_rows import Row, rows_of
from expander_sae.experiments.coding_words import notes, sentences
from expander_sae.reporting.charts import Axis, Picture, Point, point_chart, short
from expander_sae.reporting.tables import Cell, Table, estimate_cell

NAME = "coding"
"""What the files of the report are called, the ending aside."""
PER_TOKEN, TO_LEARN = "multiply-adds for the codes of a token", "multiply-adds to learn, in all"


def write_report(result: CodingResult) -> Path:
    """Write coding.json, .csv and .md and the pictures into the folder; the path of the Markdown."""
    rows = rows_of(result)
    return Report(
        name=NAME,
        title="Sparse coding: encoders and dictionaries apart",
        findings=sentences(rows),
        tables={"Every coder": table_of(rows)},
        notes=notes(result),
        pictures=pictures_of(result, rows),
        facts={
            "settings": result.config.to_json(),
            "seconds": {stage: round(seconds) for stage, seconds in result.seconds.items()},
        },
        rows=rows,
    ).write(result.config.out)


def table_of(rows: Sequence[Row]) -> Table:
    """A line for every coder in every world and setting."""
    headings = [Cell(each) for each in ("truth, known", "coder", "features", "codes", "precision", "recall", "error")]
    headings += [Cell("cost", terse="a token"), Cell("cost", terse="to learn")]
    return Table(headings, [_cells(row) for row in rows])


def _cells(row: Row) -> list[Cell]:
    estimates = (row.features, row.codes, row.precision, row.recall, row.error)
    costs = [Cell(short(row.inference)), Cell(short(row.training))]
    return [
        Cell(f"{row.truth}, {row.setting.removeprefix('known ')}"),
        Cell(row.coder),
        *(estimate_cell(each) for each in estimates),
        *costs,
    ]


def pictures_of(result: CodingResult, rows: Sequence[Row]) -> dict[str, Picture]:
    """By setting and truth: codes over their price; where columns are learned, columns over what learning cost."""
    pictures = dict[str, Picture]()
    for setting in result.config.settings:
        for truth in result.config.truths:
            here = [row for row in rows if (row.setting, row.truth) == (setting, truth)]
            name = f"{setting.replace(' ', '_')}_{truth}"
            where = f"{truth}, {setting}" + (" known" if setting == NEITHER else "")
            label = f"codes: correlation with the truth ({where})"
            pictures[f"{name}_codes"] = _picture(here, PER_TOKEN, label, lambda row: (row.inference, row.codes))
            if setting == NEITHER:
                learned = [row for row in here if row.coder != REFINED]  # which has the columns of topk
                label = f"columns: cosine with the truth ({where})"
                pictures[f"{name}_columns"] = _picture(
                    learned, TO_LEARN, label, lambda row: (row.training, row.features)
                )
    return pictures


def _picture(rows: Sequence[Row], cost: str, label: str, of: Callable[[Row], tuple[float, Estimate]]) -> Picture:
    points = []
    for row in rows:
        price, score = of(row)
        low, high = (score.low, min(1.0, score.high)) if math.isfinite(score.low) else (math.nan, math.nan)
        points.append(Point(row.coder, price, score.value, low, high))
    return point_chart(points, Axis(cost, log=True), Axis(label))
