"""How unlikely stopping sets are in a random support: a first-moment bound (theorem 6), in logarithms.

A stopping set is a set of features of which no coordinate belongs to exactly one. Without one of 2k features or fewer,
every code of k features is unique, whatever the values are, as long as none is zero.

The chance that t random supports form one is at most that of throwing their d t values into the coordinates like balls
into bins and finding no bin with a single ball, divided by the chance that the balls of each support fall apart. Summed
over all sets of t features, and over t, this bounds the chance that the draw has any.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import comb, log

import numba
import numpy as np
from jaxtyping import Float64, Int64
from numpy.typing import NDArray
from scipy.special import gammaln

from expander_sae.supports import Support

LARGEST_VALUES = 1 << 14
"""Values that the features of one set may have: the table of occupancies grows with their square."""
ROUNDING = 1e-5
"""Added to every logarithm: 2**14 sums of logarithms below 2e5 in size, each rounded to 2**-53 of that, err less."""

Logs = Float64[np.ndarray, " sizes"]


@dataclass(frozen=True)
class Draw:
    """How supports were drawn: n independent ones, uniform among the d-subsets, or with one coordinate per group."""

    n: int
    d: int
    groups: tuple[int, ...]
    """Sizes of the groups; a single one, of all coordinates, for uniform subsets."""

    @classmethod
    def of(cls, support: Support) -> Draw | None:
        """The draw that made a support; None for every other construction and for stored rows."""
        if support.is_stored or support.construction not in ("uniform", "partitioned"):
            return None
        if support.construction == "uniform":
            return cls(support.n, support.d, (support.m,))
        edges = np.arange(support.d + 1, dtype=np.int64) * support.m // support.d
        return cls(support.n, support.d, tuple(np.diff(edges).tolist()))

    @property
    def largest_set(self) -> int:
        """The largest set of features that the bounds are computed for."""
        return min(self.n, LARGEST_VALUES // self.d)


def log_bounds(draw: Draw, lost: Int64[np.ndarray, " sizes"], looked_at: int = 1) -> Float64[np.ndarray, " sizes"]:
    """Entry s-1: log of a bound on the chance that the draw has a stopping set of at most s features; may exceed 0.

    `lost[t - 1]` says how many of their values any t features may be without in all, every feature keeping one: the
    bound then holds for whichever values these are, so also for those that training has made vanish. Sets of up to
    `looked_at` features are left out; one feature with a value is none in any draw.
    """
    sets = np.arange(1, len(lost) + 1)
    log_sets = np.cumsum(np.log((draw.n - sets + 1.0) / sets))
    chances = _uniform(draw, lost) if len(draw.groups) == 1 else _partitioned(draw, lost)
    terms = log_sets + chances + ROUNDING
    terms[:looked_at] = -np.inf
    return np.logaddexp.accumulate(terms)


def largest_certified(draw: Draw, delta: float, lost: Int64[np.ndarray, " sizes"], looked_at: int = 1) -> int:
    """The largest k for which the chance of a stopping set of at most 2k features is proved to be at most delta.

    Arguments are as for `log_bounds`. The search ends where `lost` does; a k of half its size means at least that.
    """
    size, limit = min(64, len(lost)), len(lost)
    while True:
        passing = np.flatnonzero(log_bounds(draw, lost[:size], looked_at) <= log(delta))
        certified = int(passing[-1]) + 1 if passing.size else 0
        if certified < size or size == limit:
            return certified // 2
        size = min(2 * size, limit)


def _uniform(draw: Draw, lost: Int64[np.ndarray, " sizes"]) -> Logs:
    """Log of the chance that t given features form a stopping set, t = 1, 2, ..."""
    (m,), d, largest = draw.groups, draw.d, len(lost)
    occupancies: Logs = log_no_single(m, d * largest)
    apart = float(np.log1p(-np.arange(d) / m).sum())
    chances = np.empty(largest)
    for t in range(1, largest + 1):
        gone = np.arange(min(lost[t - 1], d * t) + 1)
        chances[t - 1] = np.logaddexp.reduce(_log_choose(d * t, gone) + occupancies[d * t - gone]) - t * apart
    if largest > 1 and lost[1] == 0:
        chances[1] = -log(comb(m, d))  # two features: the same support
    return np.minimum(chances, 0.0)


def _partitioned(draw: Draw, lost: Int64[np.ndarray, " sizes"]) -> Logs:
    """The same with one coordinate from each group: groups are independent, and no feature meets itself."""
    largest = len(lost)
    tables = {size: log_no_single(size, largest) for size in set(draw.groups)}
    chances = np.empty(largest)
    for t in range(1, largest + 1):
        total = np.zeros(1)
        for size, times in Counter(draw.groups).items():
            gone = np.arange(min(lost[t - 1], t) + 1)
            group = _log_choose(t, gone) + tables[size][t - gone]
            for _ in range(times):
                total = _log_convolution(total, group, int(lost[t - 1]) + 1)
        chances[t - 1] = np.logaddexp.reduce(total)
    return chances


@numba.njit(cache=True)
def _log_add(one: float, other: float) -> float:
    high, low = max(one, other), min(one, other)
    return high if low == -np.inf else high + np.log1p(np.exp(low - high))


@numba.njit(cache=True)
def log_no_single(bins: int, balls: int) -> NDArray[np.float64]:
    """Entry N: log of the chance that N balls thrown into these bins leave no bin with exactly one.

    Associated Stirling numbers of the second kind, times the ways to choose the bins, by bins^N: the last ball joins
    one of the bins in use, or opens a new one together with one of the balls before it. Nothing cancels.
    """
    width = min(bins, balls // 2) + 1
    rows = np.full((3, width), -np.inf)
    rows[0, 0] = 0.0
    totals = np.full(balls + 1, -np.inf)
    totals[0] = 0.0
    for ball in range(1, balls + 1):
        new, last, before = rows[ball % 3], rows[(ball - 1) % 3], rows[(ball - 2) % 3]
        new[:] = -np.inf
        total = -np.inf
        for used in range(1, min(width - 1, ball // 2) + 1):
            joins = last[used] + np.log(used / bins)
            opens = before[used - 1] + np.log((ball - 1) * (bins - used + 1) / bins / bins)
            new[used] = _log_add(joins, opens)
            total = _log_add(total, new[used])
        totals[ball] = total
    return totals


def _log_choose(of: int, some: Int64[np.ndarray, " sizes"]) -> Logs:
    return gammaln(of + 1.0) - gammaln(some + 1.0) - gammaln(of - some + 1.0)


def _log_convolution(one: Logs, other: Logs, length: int) -> Logs:
    """Logs of the coefficients of a product of polynomials, at most `length` of them."""
    product = np.full(min(length, one.size + other.size - 1), -np.inf)
    for shift in range(min(other.size, product.size)):
        part = one[: product.size - shift]
        product[shift : shift + part.size] = np.logaddexp(product[shift : shift + part.size], part + other[shift])
    return product
