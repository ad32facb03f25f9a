"""What a greedy step costs on the CPU: finding the best correlation, and updating the few that a step changed.

When the residual changes in some coordinates, only the features that touch one of them see their correlation change;
the row lists of the support name them. For a column of degree d that is about d*d*n/m of the n*d products of a full
correlation (theory: (rows changed)/m of its cost, never more).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np

from expander_sae.kernels.cpu_vectors import raise_maxima

SEARCH_LANES = 64
"""Correlations compared at a time, by vector instructions, before one of them is looked for."""


class Columns(NamedTuple):
    """A dictionary with unit columns: by feature, and by coordinate."""

    values: Any
    """[n, d]"""
    rows: Any
    """[n, d], unsigned"""
    starts: Any
    """[m + 1], where the list of each coordinate begins."""
    features: Any
    """[n * d], the features that touch it."""
    list_values: Any
    """[n * d], their values there."""


@numba.njit(cache=True, nogil=True)
def _lane_maxima(correlations: Any, signed: bool, maxima: Any) -> None:
    """maxima[lane] = the largest of correlations[lane::64]."""
    maxima[:] = -np.inf
    whole = correlations.size // SEARCH_LANES * SEARCH_LANES
    for start in range(0, whole, SEARCH_LANES):
        raise_maxima(SEARCH_LANES, correlations, start, maxima, signed)
    for feature in range(whole, correlations.size):
        score = abs(correlations[feature]) if signed else correlations[feature]
        maxima[feature - whole] = max(score, maxima[feature - whole])


@numba.njit(cache=True, nogil=True)
def best_feature(correlations: Any, signed: bool, maxima: Any) -> int:
    """The feature with the largest correlation (by magnitude when signed), the lowest of equal ones."""
    _lane_maxima(correlations, signed, maxima)
    best, found = maxima.max(), correlations.size
    for lane in range(maxima.size):
        if maxima[lane] == best:
            feature = lane
            while feature < found and (abs(correlations[feature]) if signed else correlations[feature]) != best:
                feature += maxima.size
            found = min(found, feature)
    return found


@numba.njit(cache=True, nogil=True)
def column_times(columns: Columns, feature: int, x: Any) -> float:
    """One column's inner product with x [m]."""
    total = columns.values[feature, 0] * x[columns.rows[feature, 0]]
    for slot in range(1, columns.values.shape[1]):
        total += columns.values[feature, slot] * x[columns.rows[feature, slot]]
    return total


@numba.njit(cache=True, nogil=True)
def subtract_column(columns: Columns, feature: int, amount: float, residual: Any, change: Any) -> None:
    """residual -= amount * column; the same is added up in change [m]."""
    for slot in range(columns.values.shape[1]):
        row = columns.rows[feature, slot]
        part = amount * columns.values[feature, slot]
        residual[row] -= part
        change[row] -= part


@numba.njit(cache=True, nogil=True)
def spread_change(columns: Columns, feature: int, change: Any, correlations: Any) -> None:
    """Add to the correlations what `change` does at the coordinates of a column, and clear it there."""
    for slot in range(columns.rows.shape[1]):
        row = columns.rows[feature, slot]
        amount = change[row]
        if amount != 0:
            change[row] = 0
            for entry in range(columns.starts[row], columns.starts[row + 1]):
                correlations[columns.features[entry]] += amount * columns.list_values[entry]
