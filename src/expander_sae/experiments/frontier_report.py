"""The report of a frontier: the numbers as JSON, one table as CSV and Markdown, and pictures as SVG and PNG."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.filesize import decimal

from expander_sae.evaluation.results import Estimate
from expander_sae.experiments.frontier import FrontierResult
from expander_sae.experiments.frontier_contestants import FAMILIES, PRODUCTS, ROUNDED
from expander_sae.experiments.frontier_rows import Measure, Row, measures_of, rows_of
from expander_sae.experiments.frontier_words import BUDGETS, notes, sentences, verdict_table
from expander_sae.reporting.charts import Axis, Family, Picture, Point, family_chart
from expander_sae.reporting.tables import Cell, Table, estimate_cell
from expander_sae.storage.folder import replace_file
from expander_sae.version import __version__

NAME = "frontier"
"""What the files of the report are called, the ending aside; pictures add what they show."""

_ESTIMATES = ("fvu", "never_fired", "recovered_zero", "recovered_mean", "retention")


def write_report(result: FrontierResult) -> Path:
    """Write frontier.json, .csv and .md and the pictures into the folder; the path of the Markdown."""
    rows, folder = rows_of(result.cells), result.config.out
    replace_file(folder / f"{NAME}.json", _json(result, rows).encode())
    replace_file(folder / f"{NAME}.csv", _csv(rows).encode())
    names = []
    for budget in BUDGETS:
        for measure in measures_of(rows):
            names.append(f"{NAME}_{budget.split()[-1]}_{measure.name}")
            picture_of(rows, budget, measure).save(folder / names[-1])
    path = folder / f"{NAME}.md"
    replace_file(path, _markdown(result, rows, names).encode())
    return path


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


def _markdown(result: FrontierResult, rows: Sequence[Row], pictures: Sequence[str]) -> str:
    parts = [
        "# Frontier: what dictionaries keep over what they take",
        "\n".join(f"- {sentence}" for sentence in sentences(rows)),
        "## Every dictionary",
        table_of(rows).to_markdown(),
        "## Who wins where",
        verdict_table(rows).to_markdown(),
        "## How to read this",
        "\n".join(f"- {note}" for note in notes(result)),
        "## Pictures",
        "\n".join(f"![{name}]({name}.svg)" for name in pictures),
    ]
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def _json(result: FrontierResult, rows: Sequence[Row]) -> str:
    """The numbers and what made them, without the paths of this machine."""
    config, one = result.config, result.cells[0].evaluation
    origin = {name: result.data.origin.get(name) for name in ("planted", "model", "revision", "hookpoint", "context")}
    settings = {name: value for name, value in config.to_json().items() if name not in ("store", "held_out")}
    content = {
        "library_version": __version__,
        "activations": {name: value for name, value in origin.items() if value is not None},
        "settings": {**settings, "n": result.features, "tokens": result.train_tokens, "width": result.data.width},
        "evaluated": {"tokens": one.tokens, "documents": one.documents, "passed_through": one.passed_through},
        "seconds": {stage: round(seconds) for stage, seconds in result.seconds.items()},
        "rows": [_flat(row) for row in rows],
    }
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def _csv(rows: Sequence[Row]) -> str:
    """A line for every row; an estimate takes three columns, and what does not exist is empty."""
    file = io.StringIO()
    flat = [_flat(row) for row in rows]
    writer = csv.DictWriter(file, list(flat[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return file.getvalue()


def _flat(row: Row) -> dict[str, Any]:
    """The numbers of a row by name; nan is None."""
    flat: dict[str, Any] = {name: value for name, value in vars(row).items() if name not in _ESTIMATES}
    for name in _ESTIMATES:
        estimate: Estimate = getattr(row, name)
        numbers = {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
        flat |= {key: None if math.isnan(number) else number for key, number in numbers.items()}
    return flat
