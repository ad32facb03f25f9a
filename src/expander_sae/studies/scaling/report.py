"""What a study of scaling says: the law, how far it is off, what twice of each factor buys, which shape is best."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from expander_sae.evaluation import Interval
from expander_sae.reporting.charts import Axis, Picture
from expander_sae.reporting.law_charts import Cloud, Fit, agreement_chart, apart, law_chart, round_numbers
from expander_sae.reporting.report import Report
from expander_sae.reporting.tables import Cell, Table
from expander_sae.studies.compare import Comparison, Record
from expander_sae.studies.scaling.config import FACTORS, Grid, ScalingConfig
from expander_sae.studies.scaling.law import (
    CORNER,
    DRAWS,
    Law,
    Misses,
    Shape,
    Shapes,
    Trial,
    Trials,
    choices,
    corner,
    shapes,
    twice,
)
from expander_sae.studies.study import notes_of

NAMES = {"n": "features n", "k": "active features k", "d": "values per column d", "tokens": "tokens"}
"""What the factors are called."""
FVU = "share of the variance left unexplained (FVU)"
SWEPT = {"n": "learned values, n d", "k": "active features, k", "tokens": "tokens"}
"""What pictures have on their axis when this factor goes from its smallest to its largest."""
STEPS = 40
"""Of the line of a law."""


def report_of(comparison: Comparison[ScalingConfig], grid: Grid, rows: Sequence[Record], trials: Trials) -> Report:
    """The report; `rows` are the cells over seeds, with what the law of the others says of each."""
    facts, config = comparison.facts, comparison.config
    varied = {name: list(getattr(grid, name)) for name in FACTORS}
    words = {**comparison.words, "dictionaries": f"{grid.cells} dictionaries", "draws": DRAWS}
    return Report(
        name="scaling",
        title="Scaling: the error by features, active features, values per column and tokens",
        findings=findings(rows, trials, grid),
        tables={"Laws": laws_table(trials), "What the law is made of": parameter_table(trials)},
        notes=notes_of(__package__, *(["Planted"] * config.synthetic), **words),
        pictures=pictures_of(rows, trials, grid),
        facts={
            **facts,
            "settings": {**facts["settings"], **varied},
            "laws": [_plain(trials, each) for each in trials.trials],
        },
        rows=[
            {**row.row("fvu"), **{name: row[name].value for name in ("never_fired", "predicted", "miss")}}
            for row in rows
        ],
        further={"Every cell: measured, and told by the law of all others": cell_table(rows)},
    )


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


def cell_table(rows: Sequence[Record]) -> Table:
    """A line for every cell."""
    return Table.of(rows, {
        "n": lambda row: row.labels["n"],
        "k": lambda row: row.labels["k"],
        "d": lambda row: row.labels["d"],
        "tokens": lambda row: row.labels["tokens"],
        "learned values": lambda row: row.counts["learned_values"],
        "FVU": lambda row: row["fvu"],
        "never fired": lambda row: f"{row['never_fired'].value:.1%}",
        "told by the others": lambda row: f"{row['predicted'].value:.3f}",
        "off by": lambda row: f"{row['miss'].value:+.1%}",
    })  # fmt: skip


def pictures_of(rows: Sequence[Record], trials: Trials, grid: Grid) -> dict[str, Picture]:
    """The error as each factor grows, the others at their largest, a line for every d; and predictions."""
    swept = {f"over_{name}": sweep_picture(rows, trials, grid, name) for name in SWEPT if name in trials.factors}
    return {**swept, "held_out": held_out_picture(trials)}


def sweep_picture(rows: Sequence[Record], trials: Trials, grid: Grid, swept: str) -> Picture:
    """What was measured, and the lines of the law."""
    top = corner(trials, grid)
    curves, values = [], getattr(grid, swept)
    for d in grid.d:
        scale = d if swept == "n" else 1
        held = {name: getattr(grid, name)[-1] for name in FACTORS if name not in (swept, "d")} | {"d": d}
        members = [row for row in rows if row.is_called(**held)]
        steps = np.geomspace(values[0], values[-1], STEPS)
        places = np.concatenate([trials.place(**{**top, "d": d, swept: step}) for step in steps])
        line = zip((scale * steps).tolist(), np.exp(trials.best.law.logs(places)).tolist(), strict=True)
        points = [(float(scale * int(row.labels[swept])), row["fvu"].value) for row in members]
        curves.append(Fit(f"d={d}", points, list(line)))
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


def findings(rows: Sequence[Record], trials: Trials, grid: Grid) -> list[str]:
    """The law and how far it is off, what twice of each factor buys, and which shape is best at equal values."""
    absent = [f"{name} = {getattr(grid, name)[0]:,}" for name in FACTORS if name not in trials.factors]
    return [
        _law(trials),
        *([f"Not in the law, for the grid holds one value of each: {', '.join(absent)}."] if absent else []),
        _beyond(trials),
        *(_twice(trials, grid, factor) for factor in trials.factors),
        *_shape(rows, trials, grid),
    ]


def formula(law: Law, trials: Trials) -> str:
    """The law as one reads it, each factor over its middle."""
    found = law.named()

    def powers(prefix: str) -> str:
        named = [(name, found.get(prefix + name)) for name in trials.factors]
        said = [f"({name}/{_number(trials.middle[name])})^{each:.3f}" for name, each in named if each is not None]
        return " ".join(said)

    said = f"FVU = {found['middle']:.3f} {powers('')}"
    crossed = {name: each for name, each in found.items() if " × " in name}
    if crossed:
        said += f" exp({' '.join(f'{each:+.3f} {_logs(name)}' for name, each in crossed.items())})"
    if "floor" in found:
        said += f" + {found['floor']:.3f} {powers('floor: ')}".rstrip()
    if crossed:
        said += ", where log is of the factor over its middle"
    return said


def _logs(pair: str) -> str:
    return " ".join(f"log({name})" for name in pair.split(" × "))


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _law(trials: Trials) -> str:
    misses = trials.misses(trials.best)
    return (
        f"The law, of {len(trials.trials)} tried on {len(trials.measured)} cells: {formula(trials.best.law, trials)}. "
        f"Each cell told by the law of all others, it is off by {misses.mean:.1%} in the mean, {misses.median:.1%} in "
        f"the median, {misses.worst:.0%} at worst."
    )


def _beyond(trials: Trials) -> str:
    """How far it is off where it was never fitted."""
    said = []
    for holdout in trials.holdouts:
        misses = trials.beyond(trials.best, holdout)
        if misses is not None:
            what = "values of every factor" if holdout.name == CORNER else holdout.name
            one = "" if holdout.name == CORNER else f", {misses.worst:.0%} at worst"
            said.append(f"without the largest {what} by {misses.median:.1%}{one}")
    if not said:
        return (
            "No factor has the three values that it takes to keep the largest back, so how far the law reaches is open."
        )
    return f"Beyond what it was fitted to it is off (median over the cells kept back) {'; '.join(said)}."


def _twice(trials: Trials, grid: Grid, factor: str) -> str:
    """What doubling buys in the middle of the grid and, if the law goes on, beyond its corner."""
    inside, outside = twice(trials, factor, trials.middle), twice(trials, factor, corner(trials, grid))
    said = f"Twice the {NAMES[factor]}, in the middle of the grid: FVU times {_interval(inside)}"
    if inside.low <= 1 <= inside.high:
        said += ", so the law does not say whether it helps"
    said += f"; beyond the largest of everything: times {_interval(outside)}"
    tests = {
        "of everything" if each.name == CORNER else each.name: misses.median
        for each in trials.holdouts
        if each.name in (factor, CORNER) and (misses := trials.beyond(trials.best, each)) is not None
    }
    if not tests:
        return f"{said}, which nothing here tests."
    worst, effect = max(tests, key=lambda name: tests[name]), abs(1 - outside.value)
    compared = f"without the largest {worst} the law was off by {tests[worst]:.1%}"
    if outside.low <= 1 <= outside.high:
        return f"{said}, which the law does not carry: the interval reaches over 1."
    if tests[worst] >= effect:
        return f"{said}, which the law does not carry: {compared}."
    return f"{said}, an effect of {effect:.1%}, where {compared}."


def _interval(interval: Interval) -> str:
    return f"{interval.value:.3f} ({interval.low:.3f} to {interval.high:.3f})"


def _shape(rows: Sequence[Record], trials: Trials, grid: Grid) -> list[str]:
    """Many short columns or few long ones."""
    found = shapes(trials, grid)
    if found is None:
        return []
    others = " and ".join(f"{getattr(grid, name)[-1]:,} {NAMES[name].removesuffix(' k')}" for name in ("k", "tokens"))
    ends = [_told(each) for each in (found.few, found.many) if each != found.best]
    said = (
        f"Of {found.values:,.0f} learned values, with {others}, the law makes {_told(found.best)} the best, against "
        f"{' and '.join(ends)}: {_verdict(found)}, FVU times {_interval(found.ratio)} against the worse end"
    )
    misses = trials.misses(trials.best)
    if found.ratio.high >= 1:
        said += "; the law does not carry this: the interval reaches 1"
    elif misses.mean >= 1 - found.ratio.value:
        said += f"; the law does not carry this, being off by {misses.mean:.1%} on cells left out"
    counted = choices(rows)
    measured = (
        f"Measured, the most and shortest columns are the best in {counted.many} of {counted.groups} groups of cells "
        "with equal n d, k and tokens; the law, fitted without the cell it speaks of, names the best one in "
        f"{counted.named}."
    )
    return [f"{said}.", *([measured] if counted.groups else [])]


def _told(shape: Shape) -> str:
    return f"n={shape.n:.0f} columns of d={shape.d:.3g} (FVU {shape.fvu:.3f})"


def _verdict(found: Shapes) -> str:
    if found.best == found.many:
        return "many short columns"
    return "few long columns" if found.best == found.few else "something in between"
