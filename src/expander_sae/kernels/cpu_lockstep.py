"""Orthogonal matching pursuit in lockstep on the CPU: before every step, the best feature of a tile of tokens anew.

Every lane of the tile holds what is left of one token. One pass over the dictionary finds the best feature of all
lanes with vector instructions and keeps no correlation; then each token takes its step, and a lane whose token is done
goes on with the next one. A pass costs the same however many coordinates the last steps have changed.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import int64, uint64

from expander_sae.kernels.cpu_columns import Columns
from expander_sae.kernels.cpu_compile import compiled, inlined
from expander_sae.kernels.cpu_greedy import begin, finish, is_explained, move_residual, take_feature, write_codes
from expander_sae.kernels.cpu_room import Limits, Room, make_rooms, room_of
from expander_sae.kernels.cpu_select import aligned
from expander_sae.kernels.cpu_vectors import correlate_tile, lanes_above, lowest_bit
from expander_sae.kernels.threads import over_tiles

LANES = 32
"""Tokens in work at a time: two chains of sums hide each other's latency, and more tokens would leave the cache."""


class Lanes(NamedTuple):
    """Where each lane of the tile stands."""

    tile: Any
    """[m, lanes] the residuals"""
    scores: Any
    """[lanes] correlations with one feature"""
    best: Any
    """[lanes] the best score so far; infinite for a lane without a token"""
    found: Any
    """[lanes] its feature, or -1"""
    token: Any
    """[lanes] the token in work, or -1 when none is left"""
    norm: Any
    """[lanes] of the token"""
    count: Any
    """[lanes] features in use"""
    picks: Any
    """[lanes] picks so far"""


def _make_lanes(m: int, dtype: Any) -> Lanes:
    """A tile for tokens of width m."""
    tile, scores, best = (aligned(shape, dtype) for shape in ((m, LANES), (LANES,), (LANES,)))
    found, token, count, picks = (np.zeros(LANES, np.int64) for _ in range(4))
    return Lanes(tile, scores, best, found, token, np.zeros(LANES), count, picks)


@inlined
def _load(x: Any, token: int, lane: int, lanes: Lanes, rooms: Room) -> None:
    """Start a lane on a token, or leave it idle if there is none left."""
    if token >= x.shape[0]:
        lanes.token[lane] = -1
        return
    lanes.token[lane], lanes.count[lane], lanes.picks[lane] = token, 0, 0
    lanes.norm[lane] = begin(x[token], room_of(rooms, lane))


@inlined
def _show_residuals(residuals: Any, tile: Any) -> None:
    """tile [m, lanes] = residuals [lanes, m] turned over, written in order."""
    for coordinate in range(tile.shape[0]):
        for lane in range(LANES):
            tile[coordinate, lane] = residuals[lane, coordinate]


@inlined
def _find_best(columns: Columns, bias: Any, limits: Limits, lanes: Lanes, closed: Any) -> None:
    """Leave in lanes.found every lane's best feature above the noise that is not closed, the lowest of equal ones."""
    for lane in range(LANES):
        lanes.best[lane] = limits.rounding * lanes.norm[lane] if lanes.token[lane] >= 0 else np.inf
        lanes.found[lane] = -1
    for feature in range(bias.size):
        correlate_tile(LANES, lanes.tile, columns.values, columns.rows, columns.starts, bias, feature, lanes.scores)
        mask = lanes_above(LANES, lanes.scores, lanes.best, limits.signed)
        while mask != 0:
            lane = lowest_bit(mask)
            mask &= mask - uint64(1)
            if not closed[lane, feature]:
                lanes.best[lane] = abs(lanes.scores[lane]) if limits.signed else lanes.scores[lane]
                lanes.found[lane] = feature


@inlined
def _step(x: Any, columns: Columns, limits: Limits, lane: int, lanes: Lanes, room: Room) -> bool:
    """Let a lane's token take the feature found for it; returns whether it is done."""
    before = lanes.count[lane]
    if lanes.found[lane] < 0 or is_explained(lanes.norm[lane], limits.tolerance, room.residual):
        return True
    count = take_feature(lanes.found[lane], lanes.picks[lane], x, columns, limits, room, before)
    lanes.picks[lane] += 1
    lanes.count[lane] = count
    move_residual(columns, room, before + 1)
    for position in range(before + 1):
        room.fitted[position] = room.codes[position]
    return count == room.codes.size or lanes.picks[lane] == room.picked.size


@compiled
def _orthogonal(x: Any, columns: Columns, bias: Any, limits: Limits, out: Any, lanes: Lanes, rooms: Room) -> None:
    """Fill the values and indices [batch, k] of `out` for the tokens of x."""
    # No literal: numba would compile `_load` once more for it.
    waiting, busy = int64(LANES), min(x.shape[0], LANES)
    for lane in range(LANES):
        _load(x, lane, lane, lanes, rooms)
    while busy > 0:
        _show_residuals(rooms.residual, lanes.tile)
        _find_best(columns, bias, limits, lanes, rooms.closed)
        for lane in range(LANES):
            token, room = lanes.token[lane], room_of(rooms, lane)
            if token >= 0 and _step(x[token], columns, limits, lane, lanes, room):
                finish(lanes.picks[lane], limits, room, lanes.count[lane])
                write_codes(room, lanes.count[lane], out[0][token], out[1][token])
                _load(x, waiting, lane, lanes, rooms)
                waiting += 1
                busy -= lanes.token[lane] < 0


def pursue_in_lockstep(x: Any, columns: Columns, limits: Limits, out: tuple[Any, Any]) -> None:
    """Fill the values and indices [batch, k] of `out`, which are zero."""
    width, features = x.shape[1], columns.starts.size - 1
    no_bias = np.zeros(features, x.dtype)

    def work(start: int, stop: int) -> None:
        lanes, rooms = _make_lanes(width, x.dtype), make_rooms(LANES, width, features, out[0].shape[1], x.dtype)
        _orthogonal(x[start:stop], columns, no_bias, limits, (out[0][start:stop], out[1][start:stop]), lanes, rooms)

    over_tiles(work, x.shape[0], LANES)
