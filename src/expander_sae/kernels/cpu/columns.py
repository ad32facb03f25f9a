"""Columns as CPU kernels read them: their entries one after the other, each column as long as it is.

Also how the functions that read them are compiled.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from expander_sae.errors import ExpanderError

Floats = NDArray[np.floating[Any]]
"""float32 or float64, the same in all arguments of a call."""
Integers = NDArray[np.integer[Any]]
Flags = NDArray[np.bool_]

compiled = numba.njit(cache=True, nogil=True, error_model="numpy")
"""For functions that Python calls. A division that could raise would make numba count the owners of all arrays around
it, which takes longer than many of these functions do; none divides by zero."""

inlined = numba.njit(
    cache=True, nogil=True, error_model="numpy", forceinline=True, no_cpython_wrapper=True, no_cfunc_wrapper=True
)
"""For functions that only compiled code calls. Passing a dozen arrays would take longer than many of them do, and
entrances that Python never uses are a fifth of the time of compiling."""


class Columns(NamedTuple):
    """The n columns of a dictionary; column j is what lies between starts[j] and starts[j + 1]."""

    values: Floats
    """[entries]"""
    rows: Integers
    """[entries], unsigned, which spares compiled loops the test for negative indices."""
    starts: Integers
    """[n + 1], unsigned and of 32 bits: it is read once for every column that a token uses."""


def columns_of(values: Floats, rows: Integers) -> Columns:
    """The columns of `values` [n, d] at `rows` [n, d], without the places behind the last entry of shorter ones."""
    entries, starts = entries_of(rows)
    return Columns(values.reshape(-1) if entries.size == values.size else values[rows >= 0], entries, starts)


def entries_of(rows: Integers) -> tuple[Integers, Integers]:
    """(rows [entries], starts [n + 1]) of padded rows [n, d]."""
    n, d = rows.shape
    if rows.size >= 1 << 32:
        raise ExpanderError(f"The CPU kernels read dictionaries of fewer than 2**32 values, not {rows.size:,}.")
    if n == 0 or rows[:, -1].min() >= 0:
        return rows.reshape(-1).view(np.uint32), np.arange(0, n * d + 1, d, dtype=np.uint32)
    real = rows >= 0
    starts = np.zeros(n + 1, np.uint32)
    np.cumsum(real.sum(axis=1), out=starts[1:])
    return rows[real].view(np.uint32), starts


def padded(entries: Floats, d: int, starts: Integers) -> Floats:
    """Entries [n, d], with zeros behind the last one of shorter columns."""
    if starts[-1] == (starts.size - 1) * d:
        return entries.reshape(-1, d)
    out = np.zeros((starts.size - 1, d), entries.dtype)
    out[np.arange(d) < np.diff(starts)[:, None]] = entries
    return out


@inlined
def column_times(columns: Columns, feature: int, x: Floats) -> float:
    """One column's inner product with x [m]."""
    first = columns.starts[feature]
    total = columns.values[first] * x[columns.rows[first]]
    for entry in range(first + 1, columns.starts[feature + 1]):
        total += columns.values[entry] * x[columns.rows[entry]]
    return total


@inlined
def subtract_column(columns: Columns, feature: int, amount: float, residual: Floats) -> None:
    """residual [m] -= amount * column."""
    for entry in range(columns.starts[feature], columns.starts[feature + 1]):
        residual[columns.rows[entry]] -= amount * columns.values[entry]
