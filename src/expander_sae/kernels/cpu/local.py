"""Greedy steps with local updates on the CPU: all correlations of a few tokens at once, then only what a step changed.

When the residual changes in some coordinates, only the features that touch one of them see their correlation change;
the row lists of the support name them. A step that changes r of the m coordinates costs r/m of the n*d products of a
full correlation, but one by one, where a full correlation makes a product for a whole tile of tokens at once.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import int64

from expander_sae.kernels.cpu import greedy
from expander_sae.kernels.cpu.columns import (
    Columns,
    Flags,
    Floats,
    Integers,
    column_times,
    compiled,
    copy_token,
    inlined,
    subtract_column,
)
from expander_sae.kernels.cpu.greedy import Codes, Limits, Scratch
from expander_sae.kernels.cpu.tiles import aligned, fill_tile
from expander_sae.kernels.cpu.vectors import correlate_tile, raise_maxima
from expander_sae.kernels.threads import over_tiles

LANES = 16
"""Tokens correlated at a time: one vector register, and few enough for their correlations to stay in the cache."""

SEARCH_LANES = 64
"""Correlations compared at a time, by vector instructions, before one of them is looked for."""


class Lists(NamedTuple):
    """The dictionary by coordinate: the features that touch it."""

    starts: Integers
    """[m + 1], where the list of each coordinate begins."""
    features: Integers
    """[entries], unsigned"""
    values: Floats
    """[entries], their values there."""


class Search(NamedTuple):
    """What the search for the best feature needs besides the correlations."""

    seen: Floats
    """[m] the residual that the correlations are of"""
    maxima: Floats
    """[64] the best of every 64th correlation"""


@compiled
def _correlate_all(tile: Floats, columns: Columns, bias: Floats, block: Floats, correlations: Floats) -> None:
    """All correlations of a tile, token by token: correlations [lanes, n] through blocks [lanes, lanes] turned over."""
    features = bias.size
    for start in range(0, features, LANES):
        stop = min(start + LANES, features)
        for feature in range(start, stop):
            correlate_tile(LANES, tile, columns, bias, feature, block[feature - start])
        for lane in range(LANES):
            for feature in range(start, stop):
                correlations[lane, feature] = block[feature - start, lane]


@inlined
def _lane_maxima(correlations: Floats, signed: bool, maxima: Floats) -> None:
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
def _best_feature(correlations: Floats, signed: bool, maxima: Floats) -> int:
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
def _best_open_feature(correlations: Floats, floor: float, signed: bool, closed: Flags, maxima: Floats) -> int:
    """The best feature that is neither in use nor refused, or -1 if none has a correlation above the floor."""
    while True:
        feature = _best_feature(correlations, signed, maxima)
        if (abs(correlations[feature]) if signed else correlations[feature]) <= floor:
            return -1
        if not closed[feature]:
            return feature
        correlations[feature] = 0  # rounding left over from a column that is fitted already


@inlined
def _spread_change(
    columns: Columns, feature: int, lists: Lists, residual: Floats, seen: Floats, correlations: Floats
) -> None:
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
    x: Floats, correlations: Floats, columns: Columns, lists: Lists, limits: Limits, scratch: Scratch, search: Search
) -> int:
    """Leave codes in scratch.chosen and scratch.codes; returns how many are in use."""
    # No literal zeros: numba would compile the steps once more for them.
    norm, count, picks = greedy.begin(x, scratch), int64(0), int64(0)
    copy_token(x, search.seen)
    while count < scratch.codes.size and picks < scratch.picked.size:
        feature = _best_open_feature(correlations, limits.rounding * norm, limits.signed, scratch.closed, search.maxima)
        if feature < 0 or greedy.is_explained(norm, limits.tolerance, scratch.residual):
            break
        before, count = count, greedy.take_feature(feature, picks, x, columns, limits, scratch, count)
        picks += 1
        greedy.move_residual(columns, scratch, before + 1)
        for position in range(before + 1):
            if scratch.codes[position] != scratch.fitted[position]:
                scratch.fitted[position] = scratch.codes[position]
                _spread_change(columns, scratch.chosen[position], lists, scratch.residual, search.seen, correlations)
        for position in range(count, before + 1):
            # Its correlation was neglected while the column was in use.
            correlations[scratch.chosen[position]] = column_times(columns, scratch.chosen[position], scratch.residual)
    greedy.finish(picks, limits, scratch, count)
    greedy.forget_columns(picks, columns, scratch)
    return count


@inlined
def _cut_back(correlations: Floats, scratch: Scratch, count: int, gain: float) -> int:
    """The position in use where taking some back lowers the squared residual by more than `gain`, or -1."""
    position = -1
    for candidate in range(count):
        correlation = correlations[scratch.chosen[candidate]]
        if correlation < 0:
            back = max(correlation, -scratch.codes[candidate])
            if back * (2 * correlation - back) > gain:
                gain, position = back * (2 * correlation - back), candidate
    return position


@compiled
def matching_pursuit(
    x: Floats, correlations: Floats, columns: Columns, lists: Lists, limits: Limits, scratch: Scratch, search: Search
) -> int:
    """Leave codes in scratch.chosen and scratch.codes; returns how many are in use."""
    norm, count = greedy.begin(x, scratch), 0
    copy_token(x, search.seen)
    for _ in range(scratch.codes.size):
        feature = _best_feature(correlations, limits.signed, search.maxima)
        step = correlations[feature]
        position = -1
        if not limits.signed:
            position = _cut_back(correlations, scratch, count, max(step, 0) ** 2)
        if position >= 0:
            feature = scratch.chosen[position]
            step = max(correlations[feature], -scratch.codes[position])
        if abs(step) <= limits.rounding * norm or (step < 0 and position < 0 and not limits.signed):
            break
        if greedy.is_explained(norm, limits.tolerance, scratch.residual):
            break
        if position < 0:
            for candidate in range(count):
                if scratch.chosen[candidate] == feature:
                    position = candidate
        if position < 0:
            position = count
            scratch.chosen[count], scratch.codes[count] = feature, 0
            count += 1
        scratch.codes[position] += step
        subtract_column(columns, feature, step, scratch.residual)
        _spread_change(columns, feature, lists, scratch.residual, search.seen, correlations)
    return count


@compiled
def _orthogonal(
    x: Floats,
    columns: Columns,
    lists: Lists,
    limits: Limits,
    out: Codes,
    correlations: Floats,
    scratch: Scratch,
    search: Search,
) -> None:
    """Fill the values and indices [batch, k] of `out` for the tokens of x."""
    for token in range(x.shape[0]):
        count = orthogonal_matching_pursuit(x[token], correlations[token], columns, lists, limits, scratch, search)
        greedy.write_codes(scratch, count, out[0][token], out[1][token])


@compiled
def _plain(
    x: Floats,
    columns: Columns,
    lists: Lists,
    limits: Limits,
    out: Codes,
    correlations: Floats,
    scratch: Scratch,
    search: Search,
) -> None:
    """Fill the values and indices [batch, k] of `out` for the tokens of x."""
    for token in range(x.shape[0]):
        count = matching_pursuit(x[token], correlations[token], columns, lists, limits, scratch, search)
        greedy.write_codes(scratch, count, out[0][token], out[1][token])


def pursue_locally(x: Floats, columns: Columns, lists: Lists, limits: Limits, out: Codes, orthogonal: bool) -> None:
    """Fill the values and indices [batch, k] of `out`, which are zero."""
    width, features = x.shape[1], columns.starts.size - 1
    no_bias = np.zeros(features, x.dtype)
    # Two functions rather than a flag: a user of one does not wait for the other to compile.
    pursue_tokens = _orthogonal if orthogonal else _plain

    def work(start: int, stop: int) -> None:
        correlations = aligned((LANES, greedy.row_length(features)), x.dtype)[:, :features]
        tile, block = aligned((width, LANES), x.dtype), aligned((LANES, LANES), x.dtype)
        scratch = Scratch(*(array[0] for array in greedy.make_scratch(1, width, features, out[0].shape[1], x.dtype)))
        search = Search(np.empty(width, x.dtype), np.empty(SEARCH_LANES, x.dtype))
        for first in range(start, stop, LANES):
            last = min(first + LANES, stop)
            fill_tile(x, first, last, tile)
            _correlate_all(tile, columns, no_bias, block, correlations)
            part = out[0][first:last], out[1][first:last]
            pursue_tokens(x[first:last], columns, lists, limits, part, correlations, scratch, search)

    over_tiles(work, x.shape[0], LANES)
