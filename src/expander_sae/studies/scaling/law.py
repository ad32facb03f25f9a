"""Laws of the error: products of powers of what a dictionary is given, with and without interactions or a floor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Float64
from scipy.optimize import least_squares

Places = Float64[np.ndarray, "cells factors"]
"""Logarithms of what each cell is given, each factor over its geometric middle of the grid."""
Logs = Float64[np.ndarray, " cells"]
"""Of the errors."""
STARTS = (0.1, 0.5, 0.9)
"""Shares of the least error that the search for a floor begins with."""
FEATHER = 1e-4
"""Weight that keeps a floor which the data do not speak of from wandering off; far too small to matter else."""

LONGEST = 200
"""Steps of a search."""


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
