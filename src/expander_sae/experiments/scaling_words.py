"""What a study of scaling says in words: never better than the numbers are."""

from __future__ import annotations

from collections.abc import Sequence

from expander_sae.experiments.scaling import ScalingResult
from expander_sae.experiments.scaling_config import FACTORS, Grid
from expander_sae.experiments.scaling_fit import Law

from expander_sae.evaluation.results import Estimate
from expander_sae.experiments.scaling_effects import Shape, Shapes, choices, corner, shapes, twice
from expander_sae.experiments.scaling_rows import Row
from expander_sae.experiments.scaling_trials import CORNER, DRAWS, Trials

NAMES = {"n": "features n", "k": "active features k", "d": "values per column d", "tokens": "tokens"}
"""Of the factors."""


def sentences(rows: Sequence[Row], trials: Trials, grid: Grid) -> list[str]:
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


def _interval(estimate: Estimate) -> str:
    return f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"


def _shape(rows: Sequence[Row], trials: Trials, grid: Grid) -> list[str]:
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


def notes(result: ScalingResult, trials: Trials) -> list[str]:
    """How to read the tables, and what must not be concluded."""
    config, evaluation = result.config, result.cells[0].evaluation
    planted = (
        "Planted activations, sums of exactly 8 of 384 columns: the error does not follow a power of k, so these laws "
        "can only be rough here, and they say nothing about any model."
    )
    seeds = len(config.seeds)
    return [
        *([planted] if config.synthetic else []),
        f"{result.grid.cells} dictionaries, {seeds} seed{'s' * (seeds > 1)}, {config.construction} supports, trained "
        f"and measured with {config.coder}; every number of tokens is a training of its own, with its own learning "
        f"rates. Measured on {evaluation.tokens:,} held-out tokens of {evaluation.documents:,} documents.",
        "Laws are fitted by least squares in log FVU, after the mean over seeds. Exponents are those at the middle of "
        "the grid, the geometric mean of its cells; with interactions they change from there. The law is the simplest "
        "of those that on cells left out are not clearly further off, in the mean, than the one that is off least: not "
        "by more than a standard error of the difference.",
        f"Intervals are the middle 95 % of {DRAWS} laws, each fitted to as many cells drawn with replacement. They say "
        "how much the law leans on single cells. They do not say what other seeds, text or learning rates would "
        "give, for all cells share these, and they are too short where the form of the law is wrong.",
        "Left out: each cell told by the law of all others, which are around it or beside it. Largest: the law is "
        "fitted to the cells below the largest value of a factor, or of all at once, and tells those at it, which is "
        "what one asks of it for a larger dictionary. A factor of two values has no such test. Where there are two "
        "numbers, they are the median and the worst.",
    ]
