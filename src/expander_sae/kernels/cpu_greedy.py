"""The steps of orthogonal matching pursuit for one token (CPU), whoever finds the feature to take: begin, take, finish.

Whole-array assignments and reductions are spelled as loops here: numba compiles those in a fraction of the time.
"""

from __future__ import annotations

from typing import Any

from numba import int64

from expander_sae.kernels.cpu_columns import Columns, column_times, subtract_column
from expander_sae.kernels.cpu_compile import inlined
from expander_sae.kernels.cpu_refit import append_to_factor, refactor, remove_from_gram, solve_lower, solve_upper
from expander_sae.kernels.cpu_room import Limits, Room


@inlined
def _norm(x: Any) -> float:
    total = x[0] * x[0]
    for coordinate in range(1, x.size):
        total += x[coordinate] * x[coordinate]
    return total**0.5


@inlined
def copy_token(x: Any, out: Any) -> None:
    """out[:m] = x."""
    for coordinate in range(x.size):
        out[coordinate] = x[coordinate]


@inlined
def begin(x: Any, room: Room) -> float:
    """Everything of the token is residual; returns its norm."""
    copy_token(x, room.residual)
    return _norm(x)


@inlined
def is_explained(norm: float, tolerance: float, residual: Any) -> bool:
    """Whether the residual is within the tolerance."""
    return tolerance > 0 and _norm(residual) <= tolerance * norm


@inlined
def _add_column(columns: Columns, feature: int, x: Any, room: Room, count: int) -> float:
    """Put a column behind those in use; returns its squared distance from their span."""
    for entry in range(columns.starts[feature], columns.starts[feature + 1]):
        room.stamp[columns.rows[entry]] = columns.values[entry]
    for position in range(count):
        product = column_times(columns, room.chosen[position], room.stamp)
        room.gram[count, position] = product
        room.gram[position, count] = product
    room.gram[count, count] = column_times(columns, feature, room.stamp)
    for entry in range(columns.starts[feature], columns.starts[feature + 1]):
        room.stamp[columns.rows[entry]] = 0
    room.chosen[count], room.codes[count], room.fitted[count] = feature, 0, 0
    room.target[count] = column_times(columns, feature, x)
    return append_to_factor(room.factor, room.gram, count)


@inlined
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


@inlined
def _drop(room: Room, position: int, count: int) -> None:
    """Take a column out of those in use, and keep it behind them with a code of zero."""
    feature, fitted = room.chosen[position], room.fitted[position]
    room.closed[feature] = False
    for later in range(position, count - 1):
        room.chosen[later] = room.chosen[later + 1]
        room.codes[later] = room.codes[later + 1]
        room.fitted[later] = room.fitted[later + 1]
        room.target[later] = room.target[later + 1]
    room.chosen[count - 1], room.codes[count - 1], room.fitted[count - 1] = feature, 0, fitted
    remove_from_gram(room.gram, count, position)
    refactor(room.factor, room.gram, position, count - 1)


@inlined
def _solve_afresh(room: Room, count: int) -> None:
    """Least squares on the columns in use, from their inner products with the token, in room.solved."""
    for position in range(count):
        room.solved[position] = room.target[position]
    solve_lower(room.factor, count, room.solved)
    solve_upper(room.factor, count, room.solved)


@inlined
def _walk_to_non_negative(room: Room, count: int) -> int:
    """Lawson and Hanson: go towards the solution as far as codes stay non-negative, drop what reaches zero, solve anew.

    Returns how many columns are left; room.solved is then non-negative least squares on them.
    """
    while True:
        walk, blocking = 1.0, int64(-1)
        for position in range(count):
            if room.solved[position] <= 0:
                share = room.codes[position] / max(room.codes[position] - room.solved[position], 1e-30)
                if blocking < 0 or share < walk:
                    walk, blocking = share, position
        if blocking < 0:
            return count
        for position in range(count):
            room.codes[position] += walk * (room.solved[position] - room.codes[position])
        _drop(room, blocking, count)
        count -= 1
        _solve_afresh(room, count)


@inlined
def take_feature(feature: int, pick: int, x: Any, columns: Columns, limits: Limits, room: Room, count: int) -> int:
    """Put a feature to those in use and refit them all; returns how many are in use then.

    The residual stays as it is: it is up to the caller to `move_residual` along the columns of room.chosen[:count + 1],
    which are those in use and then those that were dropped.
    """
    room.picked[pick] = feature
    room.closed[feature] = True
    pivot = _add_column(columns, feature, x, room, count)
    if pivot < limits.dependent:
        return count
    positive = _solve_with_new_column(column_times(columns, feature, room.residual), pivot, room, count)
    left = count + 1
    if not (limits.signed or positive):
        left = _walk_to_non_negative(room, left)
    for position in range(left):
        room.codes[position] = room.solved[position]
    return left


@inlined
def move_residual(columns: Columns, room: Room, total: int) -> None:
    """Bring the residual to the codes of the first `total` columns; room.fitted still tells which of them changed."""
    for position in range(total):
        change = room.codes[position] - room.fitted[position]
        if change != 0:
            subtract_column(columns, room.chosen[position], change, room.residual)


@inlined
def finish(picks: int, limits: Limits, room: Room, count: int) -> None:
    """Leave the final codes in room.codes, refitted once more, and the room clean for the next token."""
    _solve_afresh(room, count)
    for position in range(count):
        room.codes[position] = room.solved[position] if limits.signed else max(room.solved[position], 0)
    for pick in range(picks):
        room.closed[room.picked[pick]] = False


@inlined
def write_codes(room: Room, count: int, values: Any, indices: Any) -> None:
    """One token's codes into its row [k] of the output; the rest of the row is zero already."""
    for position in range(count):
        values[position] = room.codes[position]
        indices[position] = room.chosen[position]
