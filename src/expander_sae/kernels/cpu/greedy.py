"""The steps of orthogonal matching pursuit for one token (CPU), whoever finds the feature to take: begin, take, finish.

Whole-array assignments and reductions are spelled as loops here: numba compiles those in a fraction of the time.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import int64, uint64
from numpy.typing import DTypeLike

from expander_sae.kernels.cpu.columns import (
    Columns,
    Flags,
    Floats,
    Integers,
    column_times,
    copy_token,
    inlined,
    subtract_column,
)
from expander_sae.kernels.cpu.numbers import lowest_bit
from expander_sae.kernels.greedy import DEPENDENT, PICKS_PER_FEATURE, ROUNDING, Rules

Codes = tuple[Floats, Integers]
"""Values and indices [batch, k], zero where nothing is written."""


class Limits(NamedTuple):
    """`greedy.Rules` with what depends on the precision filled in."""

    signed: bool
    tolerance: float
    rounding: float
    """Correlations below this share of a token's norm are noise."""
    dependent: float
    """A column closer than this (squared) to the span of the chosen ones is refused."""


def limits_of(rules: Rules, dtype: DTypeLike) -> Limits:
    """The limits for floats of one type."""
    precision = np.dtype(dtype)
    rounding = ROUNDING * float(np.finfo(precision).eps)
    return Limits(rules.signed, rules.tolerance, rounding, DEPENDENT[precision.itemsize])


class Scratch(NamedTuple):
    """Scratch memory of one token; `make_scratch` makes it for several, with one more dimension in front.

    `stamp`, `users` and `closed` are left clean for the next token, the rest is written before it is read.
    """

    residual: Floats
    """[m] what the codes leave of the token, then zeros"""
    stamp: Floats
    """[m], zero between steps, so that tokens share it"""
    users: Integers
    """[m] for every coordinate a bit for each position, modulo 64, whose column has an entry there"""
    closed: Flags
    """[n] bool: features in use or refused"""
    picked: Integers
    """[3k] the feature of every pick"""
    chosen: Integers
    """[k] features in use, in order; then those dropped by the last step"""
    codes: Floats
    """[k] their codes"""
    fitted: Floats
    """[k] the codes that `residual` is made with"""
    solved: Floats
    """[k] least squares on the columns in use"""
    target: Floats
    """[k] inner products of the token with the columns in use"""
    gram: Floats
    """[k, k] of the columns in use; only what is not above its diagonal"""
    factor: Floats
    """[k, k] its Cholesky factor, with reciprocals on the diagonal, where all that is asked of it is to divide"""


def row_length(size: int) -> int:
    """At least `size`, and an odd number of cache lines: rows a power of two apart would share cache sets."""
    return 16 * (-(-size // 16) | 1)


def make_scratch(tokens: int, m: int, n: int, k: int, dtype: DTypeLike) -> Scratch:
    """Scratch memory for some tokens of width m, n features and k of them in use; `scratch_of` takes one out."""
    return Scratch(
        residual=np.zeros((tokens, row_length(m)), dtype),
        stamp=np.zeros((1, m), dtype),
        users=np.zeros((tokens, m), np.uint64),
        closed=np.zeros((tokens, n), np.bool_),
        picked=np.zeros((tokens, PICKS_PER_FEATURE * k), np.int64),
        chosen=np.zeros((tokens, k), np.int64),
        codes=np.zeros((tokens, k), dtype),
        fitted=np.zeros((tokens, k), dtype),
        solved=np.zeros((tokens, k), dtype),
        target=np.zeros((tokens, k), dtype),
        gram=np.zeros((tokens, k, k), dtype),
        factor=np.zeros((tokens, k, k), dtype),
    )


@inlined
def scratch_of(batch: Scratch, token: int) -> Scratch:
    """One token's share of the scratch memory made for several."""
    return Scratch(
        batch.residual[token],
        batch.stamp[0],
        batch.users[token],
        batch.closed[token],
        batch.picked[token],
        batch.chosen[token],
        batch.codes[token],
        batch.fitted[token],
        batch.solved[token],
        batch.target[token],
        batch.gram[token],
        batch.factor[token],
    )


# Least squares on the chosen columns, kept up to date as columns come and go. `factor` is the Cholesky factor of the
# Gram matrix of the columns in use. Zeros stay exact zeros in these loops, so the codes of columns that share no
# coordinate (not even through others) with a new one do not change by a single bit.


@inlined
def append_to_factor(factor: Floats, gram: Floats, size: int, first: int) -> float:
    """Extend the factor of the first `size` columns by one; returns the new column's squared distance from them.

    With the columns before `first` its inner products are zero.
    """
    pivot = gram[size, size]
    for row in range(first):
        factor[size, row] = 0
    for row in range(first, size):
        total = gram[size, row]
        for column in range(first, row):
            total -= factor[row, column] * factor[size, column]
        factor[size, row] = total * factor[row, row]
        pivot -= factor[size, row] * factor[size, row]
    factor[size, size] = 1 / pivot**0.5 if pivot > 0 else pivot * 0
    return pivot


@inlined
def solve_lower(factor: Floats, size: int, vector: Floats) -> None:
    """vector := L^-1 vector, in place."""
    for row in range(size):
        total = vector[row]
        for column in range(row):
            total -= factor[row, column] * vector[column]
        vector[row] = total * factor[row, row]


@inlined
def solve_upper(factor: Floats, size: int, vector: Floats) -> None:
    """vector := L^-T vector, in place, row by row so that memory is read in order."""
    for row in range(size - 1, -1, -1):
        vector[row] *= factor[row, row]
        for column in range(row):
            vector[column] -= factor[row, column] * vector[row]


@inlined
def remove_from_gram(gram: Floats, size: int, position: int) -> None:
    """Close the gap that a dropped column leaves."""
    for row in range(position, size - 1):
        for column in range(row + 1):
            gram[row, column] = gram[row + 1, column if column < position else column + 1]


@inlined
def refactor(factor: Floats, gram: Floats, first: int, size: int) -> None:
    """Make the factor's rows from `first` on anew."""
    for row in range(first, size):
        append_to_factor(factor, gram, row, int64(0))  # a literal would compile it once more


@inlined
def _norm(x: Floats) -> float:
    # Four sums, none of which waits for another.
    zero = x[0] - x[0]
    first, second, third, fourth = zero, zero, zero, zero
    whole = x.size // 4 * 4
    for place in range(0, whole, 4):
        first += x[place] * x[place]
        second += x[place + 1] * x[place + 1]
        third += x[place + 2] * x[place + 2]
        fourth += x[place + 3] * x[place + 3]
    for place in range(whole, x.size):
        first += x[place] * x[place]
    return ((first + second) + (third + fourth)) ** 0.5


@inlined
def begin(x: Floats, scratch: Scratch) -> float:
    """Everything of the token is residual; returns its norm."""
    copy_token(x, scratch.residual)
    return _norm(x)


@inlined
def is_explained(norm: float, tolerance: float, residual: Floats) -> bool:
    """Whether the residual is within the tolerance."""
    return tolerance > 0 and _norm(residual) <= tolerance * norm


@inlined
def _meet(columns: Columns, feature: int, position: int, scratch: Scratch) -> int:
    """Note which coordinates the column at a position uses; returns the bits of those that used one before."""
    met, bit = uint64(0), uint64(1) << uint64(position % 64)
    for entry in range(columns.starts[feature], columns.starts[feature + 1]):
        met |= scratch.users[columns.rows[entry]]
        scratch.users[columns.rows[entry]] |= bit
    return met


@inlined
def _forget(columns: Columns, feature: int, scratch: Scratch) -> None:
    """Nobody uses the coordinates of a column."""
    for entry in range(columns.starts[feature], columns.starts[feature + 1]):
        scratch.users[columns.rows[entry]] = 0


@inlined
def _add_inner_products(columns: Columns, feature: int, met: int, scratch: Scratch, count: int) -> int:
    """Fill the row of inner products of the column at position `count`; returns the first position that it meets.

    Of most columns in use it shares no coordinate, and is orthogonal to them.
    """
    for position in range(count):
        scratch.gram[count, position] = 0
    for entry in range(columns.starts[feature], columns.starts[feature + 1]):
        scratch.stamp[columns.rows[entry]] = columns.values[entry]
    first = count
    for start in range(0, count, 64):
        left = met
        while left != 0:
            position = start + lowest_bit(left)
            left &= left - uint64(1)
            if position < count:
                first = min(first, position)
                scratch.gram[count, position] = column_times(columns, scratch.chosen[position], scratch.stamp)
    scratch.gram[count, count] = column_times(columns, feature, scratch.stamp)
    for entry in range(columns.starts[feature], columns.starts[feature + 1]):
        scratch.stamp[columns.rows[entry]] = 0
    return first


@inlined
def _add_column(columns: Columns, feature: int, x: Floats, scratch: Scratch, count: int) -> tuple[float, int]:
    """Put a column behind those in use; returns its squared distance from their span, and the first that it meets."""
    met = _meet(columns, feature, count, scratch)
    first = _add_inner_products(columns, feature, met, scratch, count)
    scratch.chosen[count], scratch.codes[count], scratch.fitted[count] = feature, 0, 0
    scratch.target[count] = column_times(columns, feature, x)
    return append_to_factor(scratch.factor, scratch.gram, count, first), first


@inlined
def solve_with_new_column(correlation: float, pivot: float, scratch: Scratch, count: int, first: int) -> bool:
    """The refitted codes in scratch.solved; returns whether all of them are positive.

    The new column meets none before `first`.
    """
    step = correlation / pivot
    positive = step > 0
    scratch.solved[count] = step
    if first == count:
        for position in range(count):
            scratch.solved[position] = scratch.codes[position]
        return positive
    for position in range(count):
        scratch.solved[position] = scratch.factor[count, position]
    solve_upper(scratch.factor, count, scratch.solved)
    for position in range(count):
        scratch.solved[position] = scratch.codes[position] - step * scratch.solved[position]
        positive &= scratch.solved[position] > 0
    return positive


@inlined
def _drop(scratch: Scratch, position: int, count: int) -> None:
    """Take a column out of those in use, and keep it behind them with a code of zero."""
    feature, fitted = scratch.chosen[position], scratch.fitted[position]
    scratch.closed[feature] = False
    for later in range(position, count - 1):
        scratch.chosen[later] = scratch.chosen[later + 1]
        scratch.codes[later] = scratch.codes[later + 1]
        scratch.fitted[later] = scratch.fitted[later + 1]
        scratch.target[later] = scratch.target[later + 1]
    scratch.chosen[count - 1], scratch.codes[count - 1], scratch.fitted[count - 1] = feature, 0, fitted
    remove_from_gram(scratch.gram, count, position)
    refactor(scratch.factor, scratch.gram, position, count - 1)


@inlined
def _solve_afresh(scratch: Scratch, count: int) -> None:
    """Least squares on the columns in use, from their inner products with the token, in scratch.solved."""
    for position in range(count):
        scratch.solved[position] = scratch.target[position]
    solve_lower(scratch.factor, count, scratch.solved)
    solve_upper(scratch.factor, count, scratch.solved)


@inlined
def walk_to_non_negative(scratch: Scratch, count: int) -> int:
    """Lawson and Hanson: go towards the solution as far as codes stay non-negative, drop what reaches zero, solve anew.

    Returns how many columns are left; scratch.solved is then non-negative least squares on them.
    """
    while True:
        walk, blocking = 1.0, int64(-1)
        for position in range(count):
            if scratch.solved[position] <= 0:
                share = scratch.codes[position] / max(scratch.codes[position] - scratch.solved[position], 1e-30)
                if blocking < 0 or share < walk:
                    walk, blocking = share, position
        if blocking < 0:
            return count
        for position in range(count):
            scratch.codes[position] += walk * (scratch.solved[position] - scratch.codes[position])
        _drop(scratch, blocking, count)
        count -= 1
        _solve_afresh(scratch, count)


@inlined
def refit(correlation: float, pivot: float, limits: Limits, scratch: Scratch, count: int, first: int) -> int:
    """Solve for the codes with the column that was just added to the factor; returns how many are in use then.

    The correlation is that of the new column with what the others leave, of which it meets none before `first`.
    """
    positive = solve_with_new_column(correlation, pivot, scratch, count, first)
    left = count + 1
    if not (limits.signed or positive):
        left = walk_to_non_negative(scratch, left)
    for position in range(left):
        scratch.codes[position] = scratch.solved[position]
    return left


@inlined
def take_feature(
    feature: int, pick: int, x: Floats, columns: Columns, limits: Limits, scratch: Scratch, count: int
) -> int:
    """Put a feature to those in use and refit them all; returns how many are in use then.

    The residual stays as it is: it is up to the caller to `move_residual` along the columns of
    scratch.chosen[:count + 1], which are those in use and then those that were dropped.
    """
    scratch.picked[pick] = feature
    scratch.closed[feature] = True
    pivot, first = _add_column(columns, feature, x, scratch, count)
    if pivot < limits.dependent:
        return count
    left = refit(column_times(columns, feature, scratch.residual), pivot, limits, scratch, count, first)
    if left <= count:  # positions have changed
        for position in range(count + 1):
            _forget(columns, scratch.chosen[position], scratch)
        for position in range(left):
            _meet(columns, scratch.chosen[position], position, scratch)
    return left


@inlined
def move_residual(columns: Columns, scratch: Scratch, total: int) -> None:
    """Bring the residual to the codes of the first `total` columns; `fitted` still tells which of them changed."""
    for position in range(total):
        change = scratch.codes[position] - scratch.fitted[position]
        if change != 0:
            subtract_column(columns, scratch.chosen[position], change, scratch.residual)


@inlined
def finish(picks: int, limits: Limits, scratch: Scratch, count: int) -> None:
    """Leave the final codes in scratch.codes, refitted once more, and every feature open for the next token."""
    _solve_afresh(scratch, count)
    for position in range(count):
        scratch.codes[position] = scratch.solved[position] if limits.signed else max(scratch.solved[position], 0)
    for pick in range(picks):
        scratch.closed[scratch.picked[pick]] = False


@inlined
def forget_columns(picks: int, columns: Columns, scratch: Scratch) -> None:
    """Leave no coordinate in use for the next token, whose columns `take_feature` put there."""
    for pick in range(picks):
        _forget(columns, scratch.picked[pick], scratch)


@inlined
def write_codes(scratch: Scratch, count: int, values: Floats, indices: Integers) -> None:
    """One token's codes into its row [k] of the output; the rest of the row is zero already."""
    for position in range(count):
        values[position] = scratch.codes[position]
        indices[position] = scratch.chosen[position]
