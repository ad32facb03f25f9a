"""Coherence and Babel function: for how many features orthogonal matching pursuit finds every code (Tropp)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from jaxtyping import Float64
from numpy.typing import NDArray

from expander_sae.certificates.matrix import Mask, Matrix, SparseMatrix
from expander_sae.certificates.overlaps import count_shared, counters
from expander_sae.certificates.progress import Progress, over_features

MARGIN = 1e-9
"""What must be less than 1 must be so by this much: flat columns that share one coordinate reach exactly 1 at k = 4."""
DENSE_COLUMNS_AT_ONCE = 256


@dataclass(frozen=True, eq=False)
class Coherence:
    """How alike columns are at most."""

    babel: Float64[np.ndarray, " partners_plus_1"]
    """Entry k: the largest sum of k inner products, by magnitude, between one unit column and others; from k = 0."""
    m: int
    n: int

    @property
    def mu(self) -> float:
        """The largest inner product between two unit columns, by magnitude."""
        return float(self.babel[1])

    @property
    def babel_k(self) -> int:
        """The largest k with babel(k) + babel(k - 1) < 1, as far as `babel` goes."""
        return self.certified_k(1.0)

    def certified_k(self, ratio: float) -> int:
        """The largest k with babel(k) + babel(k - 1) < ratio: by TopK all codes are found whose entries, by magnitude,
        are at least this share of their largest."""
        passing = self.babel[1:] + self.babel[:-1] < ratio - MARGIN
        return len(passing) if passing.all() else int(passing.argmin())

    @property
    def coherence_k(self) -> int:
        """The largest k below (1 + 1/mu) / 2, at most as far as `babel` goes."""
        return _coherence_k(self.mu, len(self.babel) - 1)

    @property
    def welch_mu(self) -> float:
        """No n columns of width m have a smaller mu (Welch)."""
        return math.sqrt((self.n - self.m) / (self.m * (self.n - 1))) if self.n > self.m else 0.0

    @property
    def welch_k(self) -> int | None:
        """The k that a dictionary of this size with the smallest mu would have; None if it could be orthogonal."""
        return _coherence_k(self.welch_mu, self.n) if self.n > self.m else None


def _coherence_k(mu: float, most: int) -> int:
    return sum((2 * k - 1) * mu < 1 - MARGIN for k in range(1, most + 1))


def coherence_of(columns: Matrix, partners: int, report: Progress) -> Coherence:
    """The coherence of the columns that are not zero, with so many partners at most."""
    partners = max(1, min(partners, columns.used.size - 1))
    if isinstance(columns, SparseMatrix):
        babel = sparse_coherence(columns.units, columns.mask, partners, report)
    else:
        babel = dense_coherence(columns.units[columns.used], partners, report)
    return Coherence(babel, columns.m, columns.used.size)


def sparse_coherence(
    units: Float64[np.ndarray, "n d"], mask: Mask, partners: int, report: Progress
) -> Float64[np.ndarray, " partners_plus_1"]:
    """The Babel function of unit columns on a mask, without an n by n matrix: memory grows with n."""
    by_coordinate = _by_coordinate(units, mask.rows, mask.starts)

    def work(start: int, stop: int) -> NDArray[np.float64]:
        return _babel(
            units, mask.rows, mask.starts, mask.features, by_coordinate, counters(mask), start, stop, partners
        )

    return np.max(over_features(work, mask.n, "coherence", report), axis=0)


def dense_coherence(
    units: Float64[np.ndarray, "n m"], partners: int, report: Progress
) -> Float64[np.ndarray, " partners_plus_1"]:
    """The Babel function of unit columns, from blocks of their inner products."""
    n = len(units)
    babel = np.zeros(partners + 1)
    for start in range(0, n, DENSE_COLUMNS_AT_ONCE):
        block = np.abs(units[start : start + DENSE_COLUMNS_AT_ONCE] @ units.T)
        block[np.arange(len(block)), np.arange(start, start + len(block))] = 0.0
        most = np.sort(np.partition(block, n - min(partners, n), axis=1)[:, n - min(partners, n) :], axis=1)[:, ::-1]
        sums = np.cumsum(most, axis=1).max(axis=0)
        babel[1 : len(sums) + 1] = np.maximum(babel[1 : len(sums) + 1], sums)
        babel[len(sums) + 1 :] = np.maximum(babel[len(sums) + 1 :], sums[-1])
        report("coherence", min(start + DENSE_COLUMNS_AT_ONCE, n), n)
    return babel


@numba.njit(cache=True)
def _by_coordinate(
    values: NDArray[np.float64], rows: NDArray[np.int32], starts: NDArray[np.int64]
) -> NDArray[np.float64]:
    """The values in the order of the mask's `features`."""
    result = np.empty(starts[-1])
    nexts = starts[:-1].copy()
    for feature in range(rows.shape[0]):
        for slot in range(rows.shape[1]):
            coordinate = rows[feature, slot]
            if coordinate >= 0:
                result[nexts[coordinate]] = values[feature, slot]
                nexts[coordinate] += 1
    return result


@numba.njit(cache=True, nogil=True)
def _babel(
    units: NDArray[np.float64],
    rows: NDArray[np.int32],
    starts: NDArray[np.int64],
    features: NDArray[np.int32],
    by_coordinate: NDArray[np.float64],
    shared: NDArray[np.unsignedinteger[Any]],
    first: int,
    last: int,
    partners: int,
) -> NDArray[np.float64]:
    """The Babel function over the columns first .. last-1 and all others."""
    n, d = rows.shape
    babel, largest = np.zeros(partners + 1), np.empty(partners)
    products, listed, met = np.zeros(n), np.zeros(n, dtype=np.bool_), np.empty(n, dtype=np.int32)
    for feature in range(first, last):
        count_shared(rows[feature], starts, features, shared)
        shared[feature] = 0
        largest[:] = 0.0
        number_met = 0
        for slot in range(d):
            coordinate, value = rows[feature, slot], units[feature, slot]
            if coordinate < 0:
                continue
            for position in range(starts[coordinate], starts[coordinate + 1]):
                partner = features[position]
                product = value * by_coordinate[position]
                if shared[partner] == 1:  # as nearly all do, which needs no sum
                    shared[partner] = 0
                    if abs(product) > largest[partners - 1]:
                        _insert(largest, abs(product))
                elif shared[partner] > 1:
                    if not listed[partner]:
                        listed[partner], met[number_met] = True, partner
                        number_met += 1
                    products[partner] += product
        for position in range(number_met):
            partner = met[position]
            if abs(products[partner]) > largest[partners - 1]:
                _insert(largest, abs(products[partner]))
            shared[partner], products[partner], listed[partner] = 0, 0.0, False
        total = 0.0
        for k in range(partners):
            total += largest[k]
            babel[k + 1] = max(babel[k + 1], total)
    return babel


@numba.njit(cache=True, nogil=True)
def _insert(largest: NDArray[np.float64], product: float) -> None:
    """Put a number into a list in descending order, whose last one drops out."""
    place = largest.size - 1
    while place > 0 and largest[place - 1] < product:
        largest[place] = largest[place - 1]
        place -= 1
    largest[place] = product
