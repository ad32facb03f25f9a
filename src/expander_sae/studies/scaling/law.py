"""Laws of the error: what they are, how far they are off on cells that they have not seen, and what they say.

A law is a product of powers of what a dictionary is given, with and without interactions or a floor. It is put on trial
by cells left out and by cells drawn again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, groupby

import numpy as np
from jaxtyping import Bool, Float64
from scipy.optimize import least_squares

from expander_sae.evaluation import Interval, Kind
from expander_sae.studies.compare import Record
from expander_sae.studies.scaling.config import Grid

Places = Float64[np.ndarray, "cells factors"]
"""Logarithms of what each cell is given, each factor over its geometric middle of the grid."""
Logs = Float64[np.ndarray, " cells"]
"""Logarithms of the errors."""
STARTS = (0.1, 0.5, 0.9)
"""Shares of the least error that the search for a floor begins with."""
FEATHER = 1e-4
"""Weight that keeps a floor which the data do not speak of from wandering off; far too small to matter else."""
LONGEST = 200
"""Steps of a search."""
DRAWS = 400
"""Of the bootstrap over cells."""
SLIGHT = 0.01
"""Share of the least error by which another does not count as larger: a floor of nothing is no floor."""
CORNER = "all at once"
"""The holdout that keeps the largest value of every factor back."""
SHAPES = 33
"""Numbers of columns that are tried from the fewest to the most."""


@dataclass(frozen=True)
class Form:
    """A kind of law: log F = log(exp(slope) + exp(floor)), either linear in the logarithms of the factors."""

    name: str
    factors: tuple[str, ...]
    pairs: bool = False
    """Whether products of two logarithms join the slope."""
    floor: tuple[str, ...] | None = None
    """The factors that a floor is a power of; none of them for a constant one, None for no floor."""

    @property
    def parameters(self) -> tuple[str, ...]:
        """What they are called: the error at the middle, exponents there, interactions, the floor and its exponents."""
        crossed = [f"{one} × {other}" for one, other in combinations(self.factors, 2)] if self.pairs else []
        floor = () if self.floor is None else ("floor", *(f"floor: {name}" for name in self.floor))
        return ("middle", *self.factors, *crossed, *floor)

    def slope(self, places: Places) -> Float64[np.ndarray, "cells terms"]:
        """What the logarithm of the part that falls is linear in."""
        columns = [np.ones(len(places)), *places.T]
        if self.pairs:
            columns += [one * other for one, other in combinations(places.T, 2)]
        return np.stack(columns, axis=1)

    def base(self, places: Places) -> Float64[np.ndarray, "cells terms"]:
        """The same of the floor; nothing where there is none."""
        if self.floor is None:
            return np.empty((len(places), 0))
        columns = [places[:, self.factors.index(name)] for name in self.floor]
        return np.stack([np.ones(len(places)), *columns], axis=1)


@dataclass(frozen=True)
class Law:
    """A form with its parameters, in the order of their names; the first and the floor as logarithms."""

    form: Form
    parameters: Float64[np.ndarray, " parameters"]

    def logs(self, places: Places) -> Logs:
        """Logarithms of the errors that it says."""
        slope, base = self.form.slope(places), self.form.base(places)
        falling = slope @ self.parameters[: slope.shape[1]]
        return falling if self.form.floor is None else np.logaddexp(falling, base @ self.parameters[slope.shape[1] :])

    def named(self) -> dict[str, float]:
        """The parameters, the middle and the floor as errors."""
        found = dict(zip(self.form.parameters, self.parameters.tolist(), strict=True))
        return {name: float(np.exp(each)) if name in ("middle", "floor") else each for name, each in found.items()}


def forms_of(factors: Sequence[str], cells: int) -> list[Form]:
    """The kinds of law over these factors, in rising order, that so many cells can fit with one to spare."""
    names = tuple(factors)
    found = [Form("powers", names)]
    if len(names) > 1:
        found.append(Form("powers with interactions", names, pairs=True))
    found.append(Form("powers over a floor", names, floor=()))
    if "k" in names:
        found.append(Form("powers over a floor in k", names, floor=("k",)))
    return [form for form in found if len(form.parameters) < cells]


def fit(form: Form, places: Places, logs: Logs, start: Law | None = None) -> Law:
    """The law of this form with the least squares in the logarithms; one with a floor from several starts, or one."""
    slope, base = form.slope(places), form.base(places)
    linear = np.linalg.lstsq(slope, logs, rcond=None)[0]
    if form.floor is None:
        return Law(form, linear)
    starts = [_begun(form, slope, logs, share) for share in STARTS] if start is None else [start.parameters]
    found = [_descend(slope, base, logs, each) for each in starts]
    return Law(form, min(found, key=lambda each: each[0])[1])


def _begun(form: Form, slope: np.ndarray, logs: Logs, share: float) -> np.ndarray:
    """A constant floor of this share of the least error, and powers for what is above it."""
    floor = float(np.min(logs)) + np.log(share)
    above = logs + np.log1p(-np.exp(floor - logs))
    powers = np.linalg.lstsq(slope, above, rcond=None)[0]
    return np.concatenate([powers, [floor], np.zeros(len(form.floor or ()))])


def _descend(slope: np.ndarray, base: np.ndarray, logs: Logs, start: np.ndarray) -> tuple[float, np.ndarray]:
    """The sum of squares and the parameters where a search ends."""
    terms, middle = slope.shape[1], float(np.mean(logs))
    held = np.zeros((base.shape[1], len(start)))
    held[:, terms:] = FEATHER * np.eye(base.shape[1])
    target = np.array([middle, *[0.0] * (base.shape[1] - 1)])

    def residuals(parameters: np.ndarray) -> np.ndarray:
        said = np.logaddexp(slope @ parameters[:terms], base @ parameters[terms:])
        return np.concatenate([said - logs, FEATHER * (parameters[terms:] - target)])

    def slopes(parameters: np.ndarray) -> np.ndarray:
        share = 1 / (1 + np.exp(np.clip(base @ parameters[terms:] - slope @ parameters[:terms], -700, 700)))
        return np.concatenate([np.hstack([share[:, None] * slope, (1 - share)[:, None] * base]), held])

    found = least_squares(residuals, start, jac=slopes, method="lm", max_nfev=LONGEST)
    return float(found.cost), found.x


@dataclass(frozen=True)
class Holdout:
    """Cells to fit to, and cells to foretell."""

    name: str
    """The factor whose largest value is kept back, or CORNER."""
    known: Bool[np.ndarray, " cells"]
    foretold: Bool[np.ndarray, " cells"]


@dataclass(frozen=True)
class Misses:
    """How far predictions are off, as shares of what was measured."""

    mean: float
    median: float
    worst: float

    @classmethod
    def of(cls, said: Logs, measured: Logs) -> Misses:
        """From the logarithms of both."""
        shares = np.abs(np.expm1(said - measured))
        return cls(float(shares.mean()), float(np.median(shares)), float(shares.max()))


def _clearly_more(shares: Float64[np.ndarray, " cells"], least: Float64[np.ndarray, " cells"]) -> bool:
    """Whether one law is further off than another, by more than the standard error of that, and not only slightly."""
    difference = shares - least
    error = difference.std(ddof=1) / len(difference) ** 0.5
    return bool(difference.mean() > max(error, SLIGHT * least.mean()))


@dataclass(frozen=True)
class Trial:
    """A law, and how it did."""

    law: Law
    """Fitted to all cells."""
    left_out: Logs
    """What it says of each cell when fitted to the others."""
    foretold: dict[str, Logs]
    """What it says of the cells of a holdout; without those for which there are too few cells."""
    drawn: list[Law]
    """Fitted to as many cells, drawn with replacement."""

    def interval(self, numbers: Sequence[float]) -> tuple[float, float]:
        """The middle 95 % of what the drawn laws say."""
        low, high = np.percentile(np.asarray(numbers), [2.5, 97.5])
        return float(low), float(high)


@dataclass(frozen=True)
class Trials:
    """All laws on the same cells."""

    factors: tuple[str, ...]
    """Those that vary."""
    middle: dict[str, float]
    """Their geometric means, where the logarithms of the places are zero."""
    places: Places
    measured: Logs
    holdouts: list[Holdout]
    trials: list[Trial]
    """In rising order of their forms."""

    @property
    def best(self) -> Trial:
        """The simplest of those that are not clearly further off on cells left out than the one that is off least."""
        shares = [np.abs(np.expm1(trial.left_out - self.measured)) for trial in self.trials]
        least = min(shares, key=lambda each: float(each.mean()))
        return next(trial for trial, each in zip(self.trials, shares, strict=True) if not _clearly_more(each, least))

    def misses(self, trial: Trial) -> Misses:
        """How far a law is off on each cell when fitted to the others."""
        return Misses.of(trial.left_out, self.measured)

    def beyond(self, trial: Trial, holdout: Holdout) -> Misses | None:
        """How far a law is off on the cells of a holdout; None if it had too few to be fitted to."""
        said = trial.foretold.get(holdout.name)
        return None if said is None else Misses.of(said, self.measured[holdout.foretold])

    def place(self, **factors: float) -> Places:
        """A single place, the middle where a factor is not named."""
        found = {name: np.log(factors[name] / self.middle[name]) if name in factors else 0.0 for name in self.factors}
        return np.array([[found[name] for name in self.factors]])


def put_on_trial(
    factors: Sequence[str], values: Float64[np.ndarray, "cells factors"], errors: Float64[np.ndarray, " cells"]
) -> Trials:
    """Fit every form to what was measured, without each cell, without the largest values, and to drawn cells."""
    logs, measured = np.log(values), np.log(errors)
    middle = logs.mean(axis=0)
    places, held = logs - middle, holdouts_of(factors, values)
    drawn = np.random.default_rng(0).integers(len(measured), size=(DRAWS, len(measured)))
    trials = []
    for form in forms_of(factors, len(measured) - 1):
        law = fit(form, places, measured)
        trials.append(
            Trial(
                law=law,
                left_out=np.array([_without(form, places, measured, cell) for cell in range(len(measured))]),
                foretold={
                    each.name: fit(form, places[each.known], measured[each.known]).logs(places[each.foretold])
                    for each in held
                    if each.known.sum() > len(form.parameters)
                },
                drawn=[fit(form, places[cells], measured[cells], start=law) for cells in drawn],
            )
        )
    names = dict(zip(factors, np.exp(middle).tolist(), strict=True))
    return Trials(tuple(factors), names, places, measured, held, trials)


def _without(form: Form, places: Places, measured: Logs, cell: int) -> float:
    """What the law says of a cell that it was not fitted to."""
    others = np.arange(len(measured)) != cell
    return float(fit(form, places[others], measured[others]).logs(places[cell : cell + 1])[0])


def holdouts_of(factors: Sequence[str], values: Float64[np.ndarray, "cells factors"]) -> list[Holdout]:
    """The largest value of each factor of three or more values, and the corner where all of these are largest."""
    largest = values.max(axis=0)
    wide = [number for number in range(len(factors)) if len(np.unique(values[:, number])) > 2]
    top = values == largest
    found = [Holdout(factors[number], ~top[:, number], top[:, number]) for number in wide]
    if len(wide) > 1:
        found.append(Holdout(CORNER, ~top[:, wide].any(axis=1), top[:, wide].all(axis=1)))
    return [each for each in found if each.known.any() and each.foretold.any()]


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
    ratio: Interval
    """The error of the best over that of the worse end."""


def change(trials: Trials, before: Places, after: Places) -> Interval:
    """The error at one place over that at another, with the interval over drawn cells."""
    trial, both = trials.best, np.concatenate([before, after])
    value, *drawn = (float(np.exp(np.diff(law.logs(both))[0])) for law in (trial.law, *trial.drawn))
    return Interval(value, *trial.interval(drawn), Kind.FIT)


def twice(trials: Trials, factor: str, at: Mapping[str, float]) -> Interval:
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


def choices(rows: Sequence[Record]) -> Choices:
    """Counted over all groups of two or more shapes."""

    def alike(row: Record) -> tuple[int, int, int]:
        return row.counts["learned_values"], int(row.labels["k"]), int(row.labels["tokens"])

    groups = [list(group) for _, group in groupby(sorted(rows, key=alike), key=alike)]
    groups = [group for group in groups if len(group) > 1]
    best = [min(group, key=lambda row: row["fvu"].value) for group in groups]
    named = [min(group, key=lambda row: row["predicted"].value) for group in groups]
    most = [max(int(row.labels["n"]) for row in group) for group in groups]
    return Choices(
        groups=len(groups),
        many=sum(row.labels["n"] == columns for row, columns in zip(best, most, strict=True)),
        named=sum(row is told for row, told in zip(best, named, strict=True)),
    )
