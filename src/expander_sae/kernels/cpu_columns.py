"""One column at a time on the CPU: its inner product with a token, and taking it off a residual."""

from __future__ import annotations

from typing import Any, NamedTuple

from expander_sae.kernels.cpu_compile import inlined


class Columns(NamedTuple):
    """A dictionary with unit columns."""

    values: Any
    """[n, d]"""
    rows: Any
    """[n, d], unsigned"""


@inlined
def column_times(columns: Columns, feature: int, x: Any) -> float:
    """One column's inner product with x [m]."""
    total = columns.values[feature, 0] * x[columns.rows[feature, 0]]
    for slot in range(1, columns.values.shape[1]):
        total += columns.values[feature, slot] * x[columns.rows[feature, slot]]
    return total


@inlined
def subtract_column(columns: Columns, feature: int, amount: float, residual: Any) -> None:
    """residual [m] -= amount * column."""
    for slot in range(columns.values.shape[1]):
        residual[columns.rows[feature, slot]] -= amount * columns.values[feature, slot]
