"""Columns as CPU kernels read them: their entries one after the other, each column as long as it is.

Also how the functions that read them are compiled.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

import numba
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from expander_sae.errors import ExpanderError
from expander_sae.kernels.inputs import remembered

Floats = NDArray[np.floating[Any]]
"""float32 or float64, the same in all arguments of a call."""
Integers = NDArray[np.integer[Any]]
Flags = NDArray[np.bool_]
Places = TypeVar("Places", Floats, Integers)

_HOW: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy", "_nrt": False}
"""How kernels are compiled. Arrays come from Python, which owns them: `_nrt` would make every function count the owners
of every array that it is handed, which takes longer than many of these functions do (a sixth of a pursuit). A division
that could raise would count them too; none divides by zero."""

compiled = numba.njit(**_HOW)
"""For functions that Python calls. They make no arrays, and return none."""

allocating = numba.njit(**{**_HOW, "_nrt": True})
"""For functions that do."""

inlined = numba.njit(**_HOW, forceinline=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
"""For functions that only compiled code calls. Entrances that Python never uses are a fifth of the compiling time."""


class Columns(NamedTuple):
    """The n columns of a dictionary; column j is what lies between starts[j] and starts[j + 1]."""

    values: NDArray[Any]
    """[entries], floating-point numbers; whole ones for a coarse look only"""
    rows: Integers
    """[entries], unsigned, which spares compiled loops the test for negative indices."""
    starts: Integers
    """[n + 1], unsigned and of 32 bits: it is read once for every column that a token uses."""


def columns_of(values: Tensor, rows: Tensor) -> Columns:
    """The columns of `values` [n, d] at `rows` [n, d], without the places behind the last entry of shorter ones."""
    entries, starts = entries_of(rows)
    return Columns(_packed(values.numpy(), starts), entries, starts)


def entries_of(rows: Tensor) -> tuple[Integers, Integers]:
    """(rows [entries], starts [n + 1]) of padded rows [n, d]."""
    n, d = rows.shape
    if rows.numel() >= 1 << 32:
        raise ExpanderError(f"The CPU kernels read dictionaries of fewer than 2**32 values, not {rows.numel():,}.")
    places = rows.numpy()
    if n == 0 or places[:, -1].min() >= 0:
        return places.reshape(-1).view(np.uint32), np.arange(0, n * d + 1, d, dtype=np.uint32)
    return remembered(rows, _uneven_entries)


def _uneven_entries(rows: Tensor) -> tuple[Integers, Integers]:
    places, starts = rows.numpy(), np.zeros(len(rows) + 1, np.uint32)
    _add_up_lengths(places, starts)
    return _packed(places, starts).view(np.uint32), starts


# Training packs and unpacks uneven columns a dozen times a step; NumPy's boolean indices took an eighth of the step.


def _packed(places: Places, starts: Integers) -> Places:
    """What belongs to the entries of the columns, of places [n, d]."""
    if starts[-1] == places.size:
        return places.reshape(-1)
    entries = np.empty(starts[-1], places.dtype)
    _pack(places, starts, entries)
    return entries


def padded(entries: Floats, d: int, starts: Integers) -> Floats:
    """Entries [n, d], with zeros behind the last one of shorter columns."""
    if starts[-1] == (starts.size - 1) * d:
        return entries.reshape(-1, d)
    places = np.zeros((starts.size - 1, d), entries.dtype)
    _unpack(entries, starts, places)
    return places


@compiled
def _add_up_lengths(rows: Integers, starts: Integers) -> None:
    """starts[j + 1] = starts[j] + how many rows column j has before the first that is none."""
    for column in range(rows.shape[0]):
        length = 0
        while length < rows.shape[1] and rows[column, length] >= 0:
            length += 1
        starts[column + 1] = starts[column] + length


@compiled
def _pack(places: Floats | Integers, starts: Integers, entries: Floats | Integers) -> None:
    for column in range(places.shape[0]):
        for slot in range(starts[column + 1] - starts[column]):
            entries[starts[column] + slot] = places[column, slot]


@compiled
def _unpack(entries: Floats, starts: Integers, places: Floats) -> None:
    for column in range(places.shape[0]):
        for slot in range(starts[column + 1] - starts[column]):
            places[column, slot] = entries[starts[column] + slot]


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


@inlined
def copy_token(x: Floats, out: Floats) -> None:
    """out[:m] = x."""
    for coordinate in range(x.size):
        out[coordinate] = x[coordinate]
