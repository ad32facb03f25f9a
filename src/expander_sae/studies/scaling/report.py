"""The report of a study of scaling: the numbers as JSON and CSV, laws and cells as tables, and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from expander_sae.experiments.comparison import facts_of
from expander_sae.experiments.report_files import Report
from expander_sae.experiments.scaling import ScalingResult
from expander_sae.experiments.scaling_config import FACTORS, Grid

from expander_sae.experiments.scaling_effects import corner
from expander_sae.experiments.scaling_rows import Row
from expander_sae.experiments.scaling_trials import CORNER, Misses, Trial, Trials
from expander_sae.experiments.scaling_words import notes, sentences
from expander_sae.reporting.charts import Axis, Picture
from expander_sae.reporting.law_charts import Cloud, Curve, agreement_chart, apart, law_chart, round_numbers
from expander_sae.reporting.tables import Cell, Table, estimate_cell

NAME = "scaling"
"""What the files of the report are called, the ending aside."""
FVU = "share of the variance left unexplained (FVU)"
SWEPT = {"n": "learned values, n d", "k": "active features, k", "tokens": "tokens"}
"""What pictures have on their axis when this factor goes from its smallest to its largest."""
STEPS = 40
"""Of the line of a law."""


def write_report(result: ScalingResult, rows: Sequence[Row], trials: Trials) -> Path:
    """Write scaling.json, .csv and .md and the pictures into the folder; the path of the Markdown."""
    largest = result.cells[-1]
    facts = facts_of(result.config, result.data, largest.trained, largest.evaluation, result.seconds)
    grid = {name: list(getattr(result.grid, name)) for name in FACTORS}
    return Report(
        name=NAME,
        title="Scaling: the error by features, active features, values per column and tokens",
        findings=sentences(rows, trials, result.grid),
        tables={"Laws": laws_table(trials), "What the law is made of": parameter_table(trials)},
        notes=notes(result, trials),
        pictures=pictures_of(rows, trials, result.grid),
        facts={
            **facts,
            "settings": {**facts["settings"], **grid},
            "laws": [_plain(trials, each) for each in trials.trials],
        },
        rows=rows,
        further={"Every cell: measured, and told by the law of all others": cell_table(rows)},
    ).write(result.config.out)


def laws_table(trials: Trials) -> Table:
    """A line for every law: how far it is off, in the median and at worst."""
    names = [each.name if each.name == CORNER else f"largest {each.name}" for each in trials.holdouts]
    headings = ["law", "parameters", "mean, left out", "left out", *names]
    lines = []
    for trial in trials.trials:
        misses = trials.misses(trial)
        found = [misses, *(trials.beyond(trial, each) for each in trials.holdouts)]
        lines.append([trial.law.form.name, str(len(trial.law.parameters)), f"{misses.mean:.1%}", *map(_off, found)])
    return Table([Cell(each) for each in headings], [[Cell(each) for each in line] for line in lines])


def _off(misses: Misses | None) -> str:
    if misses is None:
        return "–"
    return f"{misses.median:.1%}" + ("" if misses.worst == misses.median else f", {misses.worst:.0%}")


def parameter_table(trials: Trials) -> Table:
    """A line for every parameter of the law, with its interval."""
    lines = [
        [Cell(name), Cell(f"{value:.3f}"), Cell(f"{low:.3f} to {high:.3f}")]
        for name, (value, low, high) in _parameters(trials.best).items()
    ]
    return Table([Cell("parameter"), Cell("value"), Cell("95 % of redrawn grids")], lines)


def _parameters(trial: Trial) -> dict[str, list[float]]:
    """Value, low and high end by name."""
    drawn = [law.named() for law in trial.drawn]
    return {name: [value, *trial.interval([each[name] for each in drawn])] for name, value in trial.law.named().items()}


def cell_table(rows: Sequence[Row]) -> Table:
    """A line for every cell."""
    headings = ["n", "k", "d", "tokens", "learned values", "FVU", "never fired", "told by the others", "off by"]
    return Table([Cell(each) for each in headings], [_cells(row) for row in rows])


def _cells(row: Row) -> list[Cell]:
    counts = [f"{getattr(row, name):,}" for name in (*FACTORS, "learned_values")]
    shares = [f"{row.never_fired:.1%}", f"{row.predicted:.3f}", f"{row.miss:+.1%}"]
    return [*map(Cell, counts), estimate_cell(row.fvu), *map(Cell, shares)]


def pictures_of(rows: Sequence[Row], trials: Trials, grid: Grid) -> dict[str, Picture]:
    """The error as each factor grows, the others at their largest, a line for every d; and predictions."""
    swept = {f"over_{name}": sweep_picture(rows, trials, grid, name) for name in SWEPT if name in trials.factors}
    return {**swept, "held_out": held_out_picture(trials)}


def sweep_picture(rows: Sequence[Row], trials: Trials, grid: Grid, swept: str) -> Picture:
    """What was measured, and the lines of the law."""
    top = corner(trials, grid)
    curves, values = [], getattr(grid, swept)
    for d in grid.d:
        scale = d if swept == "n" else 1
        held = {name: getattr(grid, name)[-1] for name in FACTORS if name not in (swept, "d")} | {"d": d}
        members = [row for row in rows if all(getattr(row, name) == value for name, value in held.items())]
        steps = np.geomspace(values[0], values[-1], STEPS)
        places = np.concatenate([trials.place(**{**top, "d": d, swept: step}) for step in steps])
        line = zip((scale * steps).tolist(), np.exp(trials.best.law.logs(places)).tolist(), strict=True)
        points = [(float(scale * getattr(row, swept)), row.fvu.value) for row in members]
        curves.append(Curve(f"d={d}", points, list(line)))
    numbers = [number for curve in curves for _, number in (*curve.points, *curve.line)]
    ticks = apart(number for curve in curves for number, _ in curve.points)
    where = ", ".join(f"{name}={value:,}" for name, value in held.items() if name in trials.factors and name != "d")
    label = f"{FVU}, {where}; lines: the law" if where else f"{FVU}; lines: the law"
    y_axis = Axis(label, log=True, ticks=round_numbers(min(numbers), max(numbers)))
    return law_chart(curves, Axis(SWEPT[swept], log=True, ticks=ticks), y_axis)


def held_out_picture(trials: Trials) -> Picture:
    """What the law says of cells that it was not fitted to, over what was measured."""

    def cloud(label: str, measured: np.ndarray, said: np.ndarray) -> Cloud:
        return Cloud(label, list(zip(np.exp(measured).tolist(), np.exp(said).tolist(), strict=True)))

    best = trials.best
    clouds = [cloud("each cell left out", trials.measured, best.left_out)]
    for holdout in trials.holdouts:
        if holdout.name in best.foretold:
            what = "largest of everything" if holdout.name == CORNER else f"largest {holdout.name}"
            measured = trials.measured[holdout.foretold]
            clouds.append(cloud(f"fitted without the {what}", measured, best.foretold[holdout.name]))
    return agreement_chart(clouds, f"measured {FVU}", "told by the law of other cells")


def _plain(trials: Trials, trial: Trial) -> dict[str, Any]:
    """A law as JSON holds it."""
    beyond = {each.name: trials.beyond(trial, each) for each in trials.holdouts}
    return {
        "form": trial.law.form.name,
        "chosen": trial is trials.best,
        "middle": {name: float(f"{value:.6g}") for name, value in trials.middle.items()},
        "parameters": _parameters(trial),
        "left_out": vars(trials.misses(trial)),
        "beyond": {name: None if misses is None else vars(misses) for name, misses in beyond.items()},
    }
