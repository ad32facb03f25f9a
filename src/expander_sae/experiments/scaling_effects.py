"""What the law says that a choice changes: twice of a factor, and many short columns or few long ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from expander_sae.experiments.scaling_config import Grid
from expander_sae.experiments.scaling_fit import Places

from expander_sae.evaluation.results import Estimate
from expander_sae.experiments.scaling_rows import Row
from expander_sae.experiments.scaling_trials import Trials

SHAPES = 33
"""Numbers of columns that are tried from the fewest to the most."""


@dataclass(frozen=True)
class Shape:
    """A number of columns and how long they are, with the error that the law says."""

    n: float
    d: float
    fvu: float


@dataclass(frozen=True)
class Shapes:
    """Dictionaries of as many learned values, k and tokens: those at both ends of the grid, and the best of all."""

    values: float
    few: Shape
    many: Shape
    best: Shape
    ratio: Estimate
    """The error of the best over that of the worse end."""


def change(trials: Trials, before: Places, after: Places) -> Estimate:
    """The error at one place over that at another, with the interval over drawn cells."""
    trial, both = trials.best, np.concatenate([before, after])
    value, *drawn = (float(np.exp(np.diff(law.logs(both))[0])) for law in (trial.law, *trial.drawn))
    return Estimate(value, *trial.interval(drawn))


def twice(trials: Trials, factor: str, at: Mapping[str, float]) -> Estimate:
    """What the error is multiplied by when a factor doubles, from this place on."""
    return change(trials, trials.place(**at), trials.place(**{**at, factor: 2 * at[factor]}))


def corner(trials: Trials, grid: Grid) -> dict[str, float]:
    """The largest value of every factor of the law."""
    return {name: float(getattr(grid, name)[-1]) for name in trials.factors}


def shapes(trials: Trials, grid: Grid) -> Shapes | None:
    """Of the middle number of learned values, with the most active features and tokens; None if n or d do not vary."""
    if not {"n", "d"} <= set(trials.factors):
        return None
    values = trials.middle["n"] * trials.middle["d"]
    fewest, most = max(grid.n[0], values / grid.d[-1]), min(grid.n[-1], values / grid.d[0])
    columns = np.geomspace(fewest, most, SHAPES)
    top = corner(trials, grid)
    places = [trials.place(**{**top, "n": n, "d": values / n}) for n in columns]
    errors = np.exp([float(trials.best.law.logs(place)[0]) for place in places])
    found = [Shape(float(n), float(values / n), float(error)) for n, error in zip(columns, errors, strict=True)]
    best, worse = int(np.argmin(errors)), -1 if errors[-1] > errors[0] else 0
    return Shapes(values, found[0], found[-1], found[best], change(trials, places[worse], places[best]))


@dataclass(frozen=True)
class Choices:
    """Groups of cells of equal learned values, k and tokens, and which of their shapes is the best."""

    groups: int
    many: int
    """Where the one of the most columns measured best."""
    named: int
    """Where the one that the law, fitted without each cell it speaks of, says to be the best is so."""


def choices(rows: Sequence[Row]) -> Choices:
    """Counted over all groups of two or more shapes."""

    def alike(row: Row) -> tuple[int, int, int]:
        return row.learned_values, row.k, row.tokens

    groups = [list(group) for _, group in groupby(sorted(rows, key=alike), key=alike)]
    groups = [group for group in groups if len(group) > 1]
    best = [min(group, key=lambda row: row.fvu.value) for group in groups]
    return Choices(
        groups=len(groups),
        many=sum(row.n == max(each.n for each in group) for row, group in zip(best, groups, strict=True)),
        named=sum(row is min(group, key=lambda each: each.predicted) for row, group in zip(best, groups, strict=True)),
    )
