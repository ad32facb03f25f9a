"""Greedy steps with local updates on the CPU: all correlations of a few tokens at once, then only what a step changed.

When the residual changes in some coordinates, only the features that touch one of them see their correlation change;
the row lists of the support name them. A step that changes r of the m coordinates costs r/m of the n*d products of a
full correlation, but one by one, where a full correlation makes a product for a whole tile of tokens at once.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import int64

from expander_sae.kernels.cpu_columns import Columns, column_times, subtract_column
from expander_sae.kernels.cpu_compile import compiled, inlined
from expander_sae.kernels.cpu_greedy import (
    begin,
    copy_token,
    finish,
    is_explained,
    move_residual,
    take_feature,
    write_codes,
)
from expander_sae.kernels.cpu_room import Limits, Room, make_rooms, row_length
from expander_sae.kernels.cpu_select import aligned, fill_tile
from expander_sae.kernels.cpu_vectors import correlate_tile, raise_maxima
from expander_sae.kernels.threads import over_tiles

LANES = 16
"""Tokens correlated at a time: one vector register, and few enough for their correlations to stay in the cache."""

SEARCH_LANES = 64
"""Correlations compared at a time, by vector instructions, before one of them is looked for."""


class Lists(NamedTuple):
    """The dictionary by coordinate: the features that touch it."""

    starts: Any
    """[m + 1], where the list of each coordinate begins."""
    features: Any
    """[entries], unsigned"""
    values: Any
    """[entries], their values there."""


class Search(NamedTuple):
    """What the search for the best feature needs besides the correlations."""

    seen: Any
    """[m] the residual that the correlations are of"""
    maxima: Any
    """[64] the best of every 64th correlation"""


@compiled
def _correlate_all(tile: Any, columns: Columns, bias: Any, block: Any, correlations: Any) -> None:
    """All correlations of a tile, token by token: correlations [lanes, n] through blocks [lanes, lanes] turned over."""
    features = bias.size
    for start in range(0, features, LANES):
        stop = min(start + LANES, features)
        for feature in range(start, stop):
            correlate_tile(
                LANES, tile, columns.values, columns.rows, columns.starts, bias, feature, block[feature - start]
            )
        for lane in range(LANES):
            for feature in range(start, stop):
                correlations[lane, feature] = block[feature - start, lane]


@inlined
def _lane_maxima(correlations: Any, signed: bool, maxima: Any) -> None:
    """maxima[lane] = the largest of correlations[lane::64]."""
    for lane in range(maxima.size):
        maxima[lane] = -np.inf
    whole = correlations.size // SEARCH_LANES * SEARCH_LANES
    for start in range(0, whole, SEARCH_LANES):
        raise_maxima(SEARCH_LANES, correlations, start, maxima, signed)
    for feature in range(whole, correlations.size):
        score = abs(correlations[feature]) if signed else correlations[feature]
        maxima[feature - whole] = max(score, maxima[feature - whole])


@inlined
def _best_feature(correlations: Any, signed: bool, maxima: Any) -> int:
    """The feature with the largest correlation (by magnitude when signed), the lowest of equal ones."""
    _lane_maxima(correlations, signed, maxima)
    best, found = maxima[0], correlations.size
    for lane in range(1, maxima.size):
        best = max(best, maxima[lane])
    for lane in range(maxima.size):
        if maxima[lane] == best:
            feature = lane
            while feature < found and (abs(correlations[feature]) if signed else correlations[feature]) != best:
                feature += maxima.size
            found = min(found, feature)
    return found


@inlined
def _best_open_feature(correlations: Any, floor: float, signed: bool, closed: Any, maxima: Any) -> int:
    """The best feature that is neither in use nor refused, or -1 if none has a correlation above the floor."""
    while True:
        feature = _best_feature(correlations, signed, maxima)
        if (abs(correlations[feature]) if signed else correlations[feature]) <= floor:
            return -1
        if not closed[feature]:
            return feature
        correlations[feature] = 0  # rounding left over from a column that is fitted already


@inlined
def _spread_change(columns: Columns, feature: int, lists: Lists, residual: Any, seen: Any, correlations: Any) -> None:
    """Bring the correlations, which are those of `seen`, to the residual at the rows of a column."""
    for place in range(columns.starts[feature], columns.starts[feature + 1]):
        row = columns.rows[place]
        amount = residual[row] - seen[row]
        if amount != 0:
            seen[row] = residual[row]
            for entry in range(lists.starts[row], lists.starts[row + 1]):
                correlations[lists.features[entry]] += amount * lists.values[entry]


@compiled
def orthogonal_matching_pursuit(
    x: Any, correlations: Any, columns: Columns, lists: Lists, limits: Limits, room: Room, search: Search
) -> int:
    """Leave codes in room.chosen and room.codes; returns how many are in use."""
    # No literal zeros: numba would compile the steps once more for them.
    norm, count, picks = begin(x, room), int64(0), int64(0)
    copy_token(x, search.seen)
    while count < room.codes.size and picks < room.picked.size:
        feature = _best_open_feature(correlations, limits.rounding * norm, limits.signed, room.closed, search.maxima)
        if feature < 0 or is_explained(norm, limits.tolerance, room.residual):
            break
        before, count = count, take_feature(feature, picks, x, columns, limits, room, count)
        picks += 1
        move_residual(columns, room, before + 1)
        for position in range(before + 1):
            if room.codes[position] != room.fitted[position]:
                room.fitted[position] = room.codes[position]
                _spread_change(columns, room.chosen[position], lists, room.residual, search.seen, correlations)
        for position in range(count, before + 1):
            # Its correlation was neglected while the column was in use.
            correlations[room.chosen[position]] = column_times(columns, room.chosen[position], room.residual)
    finish(picks, limits, room, count)
    return count


@inlined
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


@compiled
def matching_pursuit(
    x: Any, correlations: Any, columns: Columns, lists: Lists, limits: Limits, room: Room, search: Search
) -> int:
    """Leave codes in room.chosen and room.codes; returns how many are in use."""
    norm, count = begin(x, room), 0
    copy_token(x, search.seen)
    for _ in range(room.codes.size):
        feature = _best_feature(correlations, limits.signed, search.maxima)
        step = correlations[feature]
        position = -1
        if not limits.signed:
            position = _cut_back(correlations, room, count, max(step, 0) ** 2)
        if position >= 0:
            feature = room.chosen[position]
            step = max(correlations[feature], -room.codes[position])
        if abs(step) <= limits.rounding * norm or (step < 0 and position < 0 and not limits.signed):
            break
        if is_explained(norm, limits.tolerance, room.residual):
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
        subtract_column(columns, feature, step, room.residual)
        _spread_change(columns, feature, lists, room.residual, search.seen, correlations)
    return count


@compiled
def _orthogonal(
    x: Any, columns: Columns, lists: Lists, limits: Limits, out: Any, correlations: Any, room: Room, search: Search
) -> None:
    """Fill the values and indices [batch, k] of `out` for the tokens of x."""
    for token in range(x.shape[0]):
        count = orthogonal_matching_pursuit(x[token], correlations[token], columns, lists, limits, room, search)
        write_codes(room, count, out[0][token], out[1][token])


@compiled
def _plain(
    x: Any, columns: Columns, lists: Lists, limits: Limits, out: Any, correlations: Any, room: Room, search: Search
) -> None:
    """Fill the values and indices [batch, k] of `out` for the tokens of x."""
    for token in range(x.shape[0]):
        count = matching_pursuit(x[token], correlations[token], columns, lists, limits, room, search)
        write_codes(room, count, out[0][token], out[1][token])


def pursue_locally(
    x: Any, columns: Columns, lists: Lists, limits: Limits, out: tuple[Any, Any], orthogonal: bool
) -> None:
    """Fill the values and indices [batch, k] of `out`, which are zero."""
    width, features = x.shape[1], columns.starts.size - 1
    no_bias = np.zeros(features, x.dtype)
    # Two functions rather than a flag: a user of one does not wait for the other to compile.
    pursue_tokens = _orthogonal if orthogonal else _plain

    def work(start: int, stop: int) -> None:
        correlations = aligned((LANES, row_length(features)), x.dtype)[:, :features]
        tile, block = aligned((width, LANES), x.dtype), aligned((LANES, LANES), x.dtype)
        room = Room(*(array[0] for array in make_rooms(1, width, features, out[0].shape[1], x.dtype)))
        search = Search(np.empty(width, x.dtype), np.empty(SEARCH_LANES, x.dtype))
        for first in range(start, stop, LANES):
            last = min(first + LANES, stop)
            fill_tile(x, first, last, tile)
            _correlate_all(tile, columns, no_bias, block, correlations)
            part = out[0][first:last], out[1][first:last]
            pursue_tokens(x[first:last], columns, lists, limits, part, correlations, room, search)

    over_tiles(work, x.shape[0], LANES)
