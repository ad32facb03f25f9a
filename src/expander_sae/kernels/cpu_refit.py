"""Least squares on one token's chosen columns, kept up to date as columns come and go (CPU).

`factor` is the Cholesky factor of the Gram matrix of the columns in use. Zeros stay exact zeros in these loops, so the
codes of columns that share no coordinate (not even through others) with a new one do not change by a single bit.
"""

from __future__ import annotations

from typing import Any

from expander_sae.kernels.cpu_compile import inlined


@inlined
def append_to_factor(factor: Any, gram: Any, size: int) -> float:
    """Extend the factor of the first `size` columns by one; returns the new column's squared distance from them."""
    pivot = gram[size, size]
    for row in range(size):
        total = gram[size, row]
        for column in range(row):
            total -= factor[row, column] * factor[size, column]
        factor[size, row] = total / factor[row, row]
        pivot -= factor[size, row] * factor[size, row]
    factor[size, size] = pivot**0.5 if pivot > 0 else pivot * 0
    return pivot


@inlined
def solve_lower(factor: Any, size: int, vector: Any) -> None:
    """vector := L^-1 vector, in place."""
    for row in range(size):
        total = vector[row]
        for column in range(row):
            total -= factor[row, column] * vector[column]
        vector[row] = total / factor[row, row]


@inlined
def solve_upper(factor: Any, size: int, vector: Any) -> None:
    """vector := L^-T vector, in place, row by row so that memory is read in order."""
    for row in range(size - 1, -1, -1):
        vector[row] /= factor[row, row]
        for column in range(row):
            vector[column] -= factor[row, column] * vector[row]


@inlined
def remove_from_gram(gram: Any, size: int, position: int) -> None:
    """Close the gap that a dropped column leaves."""
    for row in range(position, size - 1):
        for column in range(size):
            gram[row, column] = gram[row + 1, column]
    for row in range(size - 1):
        for column in range(position, size - 1):
            gram[row, column] = gram[row, column + 1]


@inlined
def refactor(factor: Any, gram: Any, first: int, size: int) -> None:
    """Make the factor's rows from `first` on anew."""
    for row in range(first, size):
        append_to_factor(factor, gram, row)
