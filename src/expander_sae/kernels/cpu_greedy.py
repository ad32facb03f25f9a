"""Matching pursuit and orthogonal matching pursuit of one token, with local updates (CPU)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np

from expander_sae.kernels.cpu_local import (
    SEARCH_LANES,
    Columns,
    best_feature,
    column_times,
    spread_change,
    subtract_column,
)
from expander_sae.kernels.cpu_refit import append_to_factor, refactor, remove_from_gram, solve_lower, solve_upper
from expander_sae.kernels.greedy import PICKS_PER_FEATURE


class Limits(NamedTuple):
    """`greedy.Rules` with what depends on the precision filled in."""

    signed: bool
    tolerance: float
    rounding: float
    """Correlations below this share of a token's norm are noise."""
    dependent: float
    """A column closer than this (squared) to the span of the chosen ones is refused."""


class Room(NamedTuple):
    """Scratch memory of one thread; everything is left clean for the next token."""

    residual: Any
    """[m]"""
    change: Any
    """[m], zero between steps"""
    stamp: Any
    """[m], zero between steps"""
    closed: Any
    """[n] bool: features in use or refused"""
    refused: Any
    """[3k] features refused so far"""
    chosen: Any
    """[k] features in use, in order"""
    codes: Any
    """[k] their codes"""
    solved: Any
    """[k] what the codes become"""
    target: Any
    """[k] inner products of the token with the columns in use"""
    gram: Any
    """[k, k] of the columns in use"""
    factor: Any
    """[k, k] its Cholesky factor"""
    maxima: Any
    """[64] for the search"""


def make_room(m: int, n: int, k: int, dtype: Any) -> Room:
    """Scratch memory for tokens of width m, n features and k of them in use."""
    return Room(
        residual=np.zeros(m, dtype),
        change=np.zeros(m, dtype),
        stamp=np.zeros(m, dtype),
        closed=np.zeros(n, np.bool_),
        refused=np.zeros(PICKS_PER_FEATURE * k, np.int64),
        chosen=np.zeros(k, np.int64),
        codes=np.zeros(k, dtype),
        solved=np.zeros(k, dtype),
        target=np.zeros(k, dtype),
        gram=np.zeros((k, k), dtype),
        factor=np.zeros((k, k), dtype),
        maxima=np.zeros(SEARCH_LANES, dtype),
    )


# Whole-array assignments and reductions are spelled as loops here: numba compiles those in a fraction of the time.


@numba.njit(cache=True, nogil=True)
def _norm(x: Any) -> float:
    total = x[0] * x[0]
    for coordinate in range(1, x.size):
        total += x[coordinate] * x[coordinate]
    return total**0.5


@numba.njit(cache=True, nogil=True)
def _start(x: Any, room: Room) -> float:
    """Everything of the token is residual; returns its norm."""
    for coordinate in range(x.size):
        room.residual[coordinate] = x[coordinate]
    return _norm(x)


@numba.njit(cache=True, nogil=True)
def _cut_back(correlations: Any, room: Room, count: int, gain: float) -> int:
    """The position in use where taking some back lowers the squared residual by more than `gain`, or -1."""
    position = -1
    for candidate in range(count):
        correlation = correlations[room.chosen[candidate]]
        if correlation < 0:
            back = max(correlation, -room.codes[candidate])
            if back * (2 * correlation - back) > gain:
                gain, position = back * (2 * correlation - back), candidate
    return position


@numba.njit(cache=True, nogil=True)
def matching_pursuit(x: Any, correlations: Any, columns: Columns, limits: Limits, room: Room) -> int:
    """Leave codes in room.chosen and room.codes; returns how many entries are in use."""
    count, norm = 0, _start(x, room)
    for _ in range(room.codes.size):
        feature = best_feature(correlations, limits.signed, room.maxima)
        step = correlations[feature]
        position = -1
        if not limits.signed:
            position = _cut_back(correlations, room, count, max(step, 0) ** 2)
        if position >= 0:
            feature = room.chosen[position]
            step = max(correlations[feature], -room.codes[position])
        if abs(step) <= limits.rounding * norm or (step < 0 and position < 0 and not limits.signed):
            break
        if limits.tolerance > 0 and _norm(room.residual) <= limits.tolerance * norm:
            break
        if position < 0:
            for candidate in range(count):
                if room.chosen[candidate] == feature:
                    position = candidate
        if position < 0:
            position = count
            room.chosen[count], room.codes[count] = feature, 0
            count += 1
        room.codes[position] += step
        subtract_column(columns, feature, step, room.residual, room.change)
        spread_change(columns, feature, room.change, correlations)
    return count


@numba.njit(cache=True, nogil=True)
def _add_column(columns: Columns, feature: int, x: Any, room: Room, count: int) -> float:
    """Put a column behind those in use; returns its squared distance from their span."""
    degree = columns.values.shape[1]
    for slot in range(degree):
        room.stamp[columns.rows[feature, slot]] = columns.values[feature, slot]
    for position in range(count):
        product = column_times(columns, room.chosen[position], room.stamp)
        room.gram[count, position] = product
        room.gram[position, count] = product
    room.gram[count, count] = column_times(columns, feature, room.stamp)
    for slot in range(degree):
        room.stamp[columns.rows[feature, slot]] = 0
    room.chosen[count], room.codes[count] = feature, 0
    room.target[count] = column_times(columns, feature, x)
    return append_to_factor(room.factor, room.gram, count)


@numba.njit(cache=True, nogil=True)
def _solve_with_new_column(correlation: float, pivot: float, room: Room, count: int) -> bool:
    """The refitted codes in room.solved; returns whether all of them are positive."""
    step = correlation / pivot
    for position in range(count):
        room.solved[position] = room.factor[count, position]
    solve_upper(room.factor, count, room.solved)
    positive = step > 0
    for position in range(count):
        room.solved[position] = room.codes[position] - step * room.solved[position]
        positive &= room.solved[position] > 0
    room.solved[count] = step
    return positive


@numba.njit(cache=True, nogil=True)
def _apply(columns: Columns, correlations: Any, room: Room, count: int) -> None:
    """Move the codes to room.solved, and the residual and the correlations with them."""
    for position in range(count):
        amount = room.solved[position] - room.codes[position]
        if amount != 0:
            subtract_column(columns, room.chosen[position], amount, room.residual, room.change)
    for position in range(count):
        if room.solved[position] != room.codes[position]:
            spread_change(columns, room.chosen[position], room.change, correlations)
        room.codes[position] = room.solved[position]


@numba.njit(cache=True, nogil=True)
def _drop(room: Room, position: int, count: int) -> None:
    """Take a column out of those in use."""
    room.closed[room.chosen[position]] = False
    for later in range(position, count - 1):
        room.chosen[later] = room.chosen[later + 1]
        room.codes[later] = room.codes[later + 1]
        room.solved[later] = room.solved[later + 1]
        room.target[later] = room.target[later + 1]
    remove_from_gram(room.gram, count, position)
    refactor(room.factor, room.gram, position, count - 1)


@numba.njit(cache=True, nogil=True)
def _walk_to_non_negative(columns: Columns, correlations: Any, room: Room, count: int) -> int:
    """Lawson and Hanson: go towards the solution as far as codes stay non-negative, drop what reaches zero, solve anew.

    Returns how many columns are left; codes, residual and correlations are those of non-negative least squares on them.
    """
    while True:
        walk, blocking = 1.0, -1
        for position in range(count):
            if room.solved[position] <= 0:
                share = room.codes[position] / max(room.codes[position] - room.solved[position], 1e-30)
                if blocking < 0 or share < walk:
                    walk, blocking = share, position
        if blocking < 0:
            break
        for position in range(count):
            room.solved[position] = room.codes[position] + walk * (room.solved[position] - room.codes[position])
        room.solved[blocking] = 0
        _apply(columns, correlations, room, count)
        dropped = room.chosen[blocking]
        _drop(room, blocking, count)
        correlations[dropped] = column_times(columns, dropped, room.residual)
        count -= 1
        _solve_afresh(room, count)
    _apply(columns, correlations, room, count)
    return count


@numba.njit(cache=True, nogil=True)
def _solve_afresh(room: Room, count: int) -> None:
    """Least squares on the columns in use, from their inner products with the token, in room.solved."""
    for position in range(count):
        room.solved[position] = room.target[position]
    solve_lower(room.factor, count, room.solved)
    solve_upper(room.factor, count, room.solved)


@numba.njit(cache=True, nogil=True)
def orthogonal_matching_pursuit(x: Any, correlations: Any, columns: Columns, limits: Limits, room: Room) -> int:
    """Leave codes in room.chosen and room.codes; returns how many entries are in use."""
    k, count, picks, refusals, norm = room.codes.size, 0, 0, 0, _start(x, room)
    while count < k and picks < room.refused.size:
        feature = best_feature(correlations, limits.signed, room.maxima)
        score = abs(correlations[feature]) if limits.signed else correlations[feature]
        if score <= limits.rounding * norm:
            break
        if room.closed[feature]:
            correlations[feature] = 0  # rounding left over from a column that is fitted already
            continue
        if limits.tolerance > 0 and _norm(room.residual) <= limits.tolerance * norm:
            break
        picks += 1
        room.closed[feature] = True
        pivot = _add_column(columns, feature, x, room, count)
        if pivot < limits.dependent:
            room.refused[refusals] = feature
            refusals += 1
            continue
        correlation = column_times(columns, feature, room.residual)
        positive = _solve_with_new_column(correlation, pivot, room, count)
        count += 1
        if limits.signed or positive:
            _apply(columns, correlations, room, count)
        else:
            count = _walk_to_non_negative(columns, correlations, room, count)
    _solve_afresh(room, count)
    for position in range(count):
        room.codes[position] = room.solved[position] if limits.signed else max(room.solved[position], 0)
        room.closed[room.chosen[position]] = False
    for position in range(refusals):
        room.closed[room.refused[position]] = False
    return count
