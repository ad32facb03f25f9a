"""Columns as CPU kernels read them: their entries one after the other, each column as long as it is."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from expander_sae.errors import ExpanderError
from expander_sae.kernels.cpu_compile import inlined


class Columns(NamedTuple):
    """The n columns of a dictionary; column j is what lies between starts[j] and starts[j + 1]."""

    values: Any
    """[entries]"""
    rows: Any
    """[entries], unsigned, which spares compiled loops the test for negative indices."""
    starts: Any
    """[n + 1], unsigned and of 32 bits: it is read once for every column that a token uses."""


def columns_of(values: Any, rows: Any) -> Columns:
    """The columns of `values` [n, d] at `rows` [n, d], without the places behind the last entry of shorter ones."""
    entries, starts = entries_of(rows)
    return Columns(values.reshape(-1) if entries.size == values.size else values[rows >= 0], entries, starts)


def entries_of(rows: Any) -> tuple[Any, Any]:
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


def padded(entries: Any, d: int, starts: Any) -> Any:
    """Entries [n, d], with zeros behind the last one of shorter columns."""
    if starts[-1] == (starts.size - 1) * d:
        return entries.reshape(-1, d)
    out = np.zeros((starts.size - 1, d), entries.dtype)
    out[np.arange(d) < np.diff(starts)[:, None]] = entries
    return out


@inlined
def column_times(columns: Columns, feature: int, x: Any) -> float:
    """One column's inner product with x [m]."""
    first = columns.starts[feature]
    total = columns.values[first] * x[columns.rows[first]]
    for entry in range(first + 1, columns.starts[feature + 1]):
        total += columns.values[entry] * x[columns.rows[entry]]
    return total


@inlined
def subtract_column(columns: Columns, feature: int, amount: float, residual: Any) -> None:
    """residual [m] -= amount * column."""
    for entry in range(columns.starts[feature], columns.starts[feature + 1]):
        residual[columns.rows[entry]] -= amount * columns.values[entry]
