"""`pursue` on CPUs: all correlations of a few tokens at once, then greedy steps that touch only what they change."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from expander_sae.kernels.cpu_greedy import (
    Limits,
    Room,
    make_room,
    matching_pursuit,
    orthogonal_matching_pursuit,
)
from expander_sae.kernels.cpu_local import Columns
from expander_sae.kernels.cpu_select import aligned, fill_tile
from expander_sae.kernels.cpu_vectors import correlate_tile
from expander_sae.kernels.greedy import DEPENDENT, ROUNDING, Rules
from expander_sae.kernels.threads import over_tiles

LANES = 16
"""Tokens correlated at a time: one vector register, and few enough for their correlations to stay in the cache."""


@numba.njit(cache=True, nogil=True)
def _correlate_all(tile: Any, values: Any, rows: Any, bias: Any, block: Any, correlations: Any) -> None:
    """All correlations of a tile, token by token: correlations [lanes, n] through blocks [lanes, lanes] turned over."""
    features = values.shape[0]
    for start in range(0, features, LANES):
        stop = min(start + LANES, features)
        for feature in range(start, stop):
            correlate_tile(LANES, tile, values, rows, bias, feature, block[feature - start])
        for lane in range(LANES):
            for feature in range(start, stop):
                correlations[lane, feature] = block[feature - start, lane]


@numba.njit(cache=True, nogil=True)
def _write(count: int, room: Room, values: Any, indices: Any) -> None:
    """One token's codes into its row [k] of the output; the rest of the row is zero already."""
    for position in range(count):
        values[position] = room.codes[position]
        indices[position] = room.chosen[position]


@numba.njit(cache=True, nogil=True)
def _orthogonal(x: Any, correlations: Any, columns: Columns, limits: Limits, start: int, out: Any, room: Room) -> None:
    """Fill the output for the tokens of x, which begin at row `start` of it."""
    for token in range(x.shape[0]):
        count = orthogonal_matching_pursuit(x[token], correlations[token], columns, limits, room)
        _write(count, room, out[0][start + token], out[1][start + token])


@numba.njit(cache=True, nogil=True)
def _plain(x: Any, correlations: Any, columns: Columns, limits: Limits, start: int, out: Any, room: Room) -> None:
    """Fill the output for the tokens of x, which begin at row `start` of it."""
    for token in range(x.shape[0]):
        count = matching_pursuit(x[token], correlations[token], columns, limits, room)
        _write(count, room, out[0][start + token], out[1][start + token])


def pursue(
    x: Any, unit: Any, rows: Any, lists: tuple[Any, Any, Any], rules: Rules, orthogonal: bool
) -> tuple[Any, Any]:
    """(values [batch, k], indices [batch, k]) as numpy arrays, for columns of unit norm."""
    tokens, width = x.shape
    starts, features, slots = lists
    columns = Columns(unit, rows.view(np.uint32), starts, features.view(np.uint32), unit[features, slots])
    out = np.zeros((tokens, rules.k), x.dtype), np.zeros((tokens, rules.k), np.int64)
    limits = Limits(rules.signed, rules.tolerance, ROUNDING * float(np.finfo(x.dtype).eps), DEPENDENT[x.dtype.itemsize])
    no_bias = np.zeros(unit.shape[0], x.dtype)
    # Two functions rather than a flag: a user of one does not wait for the other to compile.
    pursue_tokens = _orthogonal if orthogonal else _plain

    def work(start: int, stop: int) -> None:
        # Rows a power of two apart would share cache sets; one more line per row keeps them apart.
        correlations = aligned((LANES, -(-unit.shape[0] // 16) * 16 + 16), x.dtype)[:, : unit.shape[0]]
        tile, block = aligned((width, LANES), x.dtype), aligned((LANES, LANES), x.dtype)
        room = make_room(width, unit.shape[0], rules.k, x.dtype)
        for first in range(start, stop, LANES):
            last = min(first + LANES, stop)
            fill_tile(x, first, last, tile)
            _correlate_all(tile, unit, columns.rows, no_bias, block, correlations)
            pursue_tokens(x[first:last], correlations, columns, limits, first, out, room)

    over_tiles(work, tokens, LANES)
    return out
