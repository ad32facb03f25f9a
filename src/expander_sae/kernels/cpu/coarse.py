"""A first look at correlations in 16 bits, and how far off it may be.

A tile in 16 bits is half as large as one in float32 and twice as many tokens fit a vector register, so that all
correlations take well under half as long. Tokens and columns are scaled to whole numbers, each token by itself and all
columns by one number, and a correlation is the sum of the upper halves of their products, which differs from the exact
one by no more than a bound that is known before. Whatever could be among the best k by that bound is a candidate.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from expander_sae.kernels.cpu.columns import Columns, Floats, Integers, compiled, inlined
from expander_sae.kernels.cpu.tiles import LANES, fill_tile

LARGEST = 32767
"""What the largest coordinate of a token becomes."""
_LARGEST_SUM = 65000
"""What the absolute values of a column may add up to: then no sum of upper halves leaves 16 bits."""
_LONGEST = 256
"""Entries of a column, beyond which the bound is too wide to be of use and sums could leave 16 bits."""
_LEAST_SCALE, _MOST_SCALE = 1e-14, 1e22
"""Scalings outside of this belong to numbers whose products could leave float32, or be rounded by more than usual."""
_ROUNDED = 0.51
"""How far off a number may be that was scaled in float32 and rounded to a whole one."""
_SAMPLE = 64
"""Tokens whose largest coordinates say how large the constant coordinate should be."""


class Coarse(NamedTuple):
    """A dictionary in 16 bits."""

    columns: Columns
    """Their values are 16-bit numbers. If there are biases, each column has one more entry in a constant coordinate."""
    offsets: NDArray[Any]
    """[n] what a sum loses on average because every product is rounded down"""
    scale: float
    """What values were multiplied with."""
    constant: float
    """The constant coordinate, or 0 if there is none."""
    margin: int
    """Of two features, the one that is better by this much is the better one."""


def in_16_bits(x: Floats, columns: Columns, bias: Floats) -> Coarse | None:
    """The columns for tokens like x; nothing if 16 bits cannot hold them."""
    constant = 0.0
    if bias.any():
        constant = float(np.median(np.abs(x[:: -(-len(x) // _SAMPLE)]).max(axis=1))) or 1.0
        columns = _with_constant(columns, bias, constant, x.shape[1])
    lengths = np.diff(columns.starts)
    degree = int(lengths.max())
    largest_sum = _largest_sum_of(columns.values, columns.starts)
    if degree > _LONGEST or not 0 < largest_sum < np.inf:
        return None
    scale = min(_LARGEST_SUM / largest_sum, LARGEST / _largest_of(columns.values))
    if not _LEAST_SCALE < scale < _MOST_SCALE:
        return None
    values = np.empty(columns.values.size, np.int16)
    _scale(columns.values, scale, values)
    return Coarse(columns._replace(values=values), (lengths // 2).astype(np.int16), scale, constant, _margin(degree))


def _margin(degree: int) -> int:
    """How much less than another a feature may score although its exact score is the same or more.

    Rounding down loses up to 1 for every product, rounded values up to `_ROUNDED * LARGEST / 2**16` each, rounded
    coordinates `_ROUNDED * (_LARGEST_SUM + degree) / 2**16` in all, and the exact sum is itself rounded in float32.
    """
    rounded = _ROUNDED * (degree / 2 + 1)
    in_float32 = (degree + 3) * 2**15 * 2.0**-24
    return int(np.ceil(degree + 2 * rounded + 2 * in_float32)) + 2


def _with_constant(columns: Columns, bias: Floats, constant: float, row: int) -> Columns:
    """The columns with one more entry each, which times the constant is the bias."""
    starts = (columns.starts + np.arange(columns.starts.size)).astype(np.uint32)
    size = columns.values.size + bias.size
    longer = Columns(np.empty(size, bias.dtype), np.empty(size, np.uint32), starts)
    with np.errstate(over="ignore"):
        weights = bias / bias.dtype.type(constant)
    _append_entries(columns, weights, row, longer)
    return longer


@compiled
def _append_entries(columns: Columns, values: Floats, row: int, longer: Columns) -> None:
    for column in range(values.size):
        to = longer.starts[column]
        for entry in range(columns.starts[column], columns.starts[column + 1]):
            longer.values[to], longer.rows[to] = columns.values[entry], columns.rows[entry]
            to += 1
        longer.values[to], longer.rows[to] = values[column], row


@compiled
def _largest_sum_of(values: Floats, starts: Integers) -> float:
    """The largest sum of the absolute values of a column."""
    largest = np.float32(0)
    for column in range(starts.size - 1):
        total = np.float32(0)
        for entry in range(starts[column], starts[column + 1]):
            total += abs(values[entry])
        largest = max(largest, total)
    return float(largest)


@compiled
def _largest_of(numbers: Floats) -> float:
    """The largest magnitude of a list of numbers; compared by their bits, which order alike whatever the order."""
    largest = np.int32(_largest_bits(numbers.view(np.int32)))
    return float(largest.view(np.float32))


@inlined
def _largest_bits(numbers: Integers) -> np.int32:
    largest = np.int32(0)
    for place in range(numbers.size):
        largest = np.int32(max(largest, numbers[place] & np.int32(0x7FFFFFFF)))
    return largest


@compiled
def _scale(numbers: Floats, scale: float, whole: Integers) -> None:
    """whole = numbers * scale, rounded."""
    factor = np.float32(scale)
    for place in range(numbers.size):
        whole[place] = np.int16(np.rint(numbers[place] * factor))


@compiled
def scale_of(token: Floats) -> float:
    """What makes whole numbers of a token, the largest of which is `LARGEST`; 0 if there is no such number."""
    largest = _largest_of(token)
    scale = LARGEST / largest if 0 < largest < np.inf else 0.0
    return scale if _LEAST_SCALE < scale < _MOST_SCALE else 0.0


@compiled
def fill_coarsely(x: Floats, coarse: Coarse, rows: Integers, tile: Integers) -> bool:
    """Put up to 64 tokens in 16 bits into a tile, by way of rows [64, m or more]; returns whether they fit there,
    which what is not finite does not."""
    width = x.shape[1]
    for token in range(x.shape[0]):
        largest = _largest_of(x[token])
        scale = LARGEST / max(largest, coarse.constant)
        if not (np.isfinite(largest) and _LEAST_SCALE < scale < _MOST_SCALE):
            return False
        _scale(x[token], scale, rows[token, :width])
        if tile.shape[0] > width:
            rows[token, width] = np.int16(np.rint(coarse.constant * scale))
    fill_tile(rows, 0, x.shape[0], tile)
    return True


def make_rows(width: int) -> Integers:
    """Room for 64 tokens of some width and a constant coordinate, in 16 bits, before they are turned over.

    Their pitch is no power of two, for which the rows of a block would share their cache lines.
    """
    return np.empty((LANES, -(-(width + 1) // LANES) * LANES + LANES // 2), np.int16)
