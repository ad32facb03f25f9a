"""Laws on trial: what they say of cells that they were not fitted to, and how they move when cells are drawn again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from expander_sae.experiments.scaling_fit import Form, Law, Logs, Places, fit, forms_of
from jaxtyping import Bool, Float64

DRAWS = 400
"""Of the bootstrap over cells."""
SLIGHT = 0.01
"""Share of the least error by which another does not count as larger: a floor of nothing is no floor."""
CORNER = "all at once"
"""The holdout that keeps the largest value of every factor back."""


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
