"""Orthogonal matching pursuit in lockstep on the CPU: before every step, the best feature of a tile of tokens anew.

Every lane of the tile holds what is left of one token. One pass over the dictionary finds the best feature of all
lanes with vector instructions and keeps no correlation; then each token takes its step, and a lane whose token is done
goes on with the next one. A pass costs the same however many coordinates the last steps have changed.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import int64, uint64
from numpy.typing import DTypeLike

from expander_sae.kernels.cpu import greedy
from expander_sae.kernels.cpu.columns import Columns, Flags, Floats, Integers, compiled, inlined
from expander_sae.kernels.cpu.greedy import Codes, Limits, Scratch
from expander_sae.kernels.cpu.tiles import aligned, fill_tile
from expander_sae.kernels.cpu.vectors import correlate_tile, lanes_above, lowest_bit
from expander_sae.kernels.threads import over_tiles

LANES = 32
"""Tokens in work at a time: two chains of sums hide each other's latency, and more tokens would leave the cache."""


class Lanes(NamedTuple):
    """Where each lane of the tile stands."""

    tile: Floats
    """[m, lanes] the residuals"""
    scores: Floats
    """[lanes] correlations with one feature"""
    best: Floats
    """[lanes] the best score so far; infinite for a lane without a token"""
    found: Integers
    """[lanes] its feature, or -1"""
    token: Integers
    """[lanes] the token in work, or -1 when none is left"""
    norm: Floats
    """[lanes] of the token"""
    in_use: Integers
    """[lanes] features in use"""
    picks: Integers
    """[lanes] picks so far"""


def _make_lanes(m: int, dtype: DTypeLike) -> Lanes:
    """A tile for tokens of width m."""
    tile, scores, best = (aligned(shape, dtype) for shape in ((m, LANES), (LANES,), (LANES,)))
    found, token, count, picks = (np.zeros(LANES, np.int64) for _ in range(4))
    return Lanes(tile, scores, best, found, token, np.zeros(LANES), count, picks)


@inlined
def _load(x: Floats, token: int, lane: int, lanes: Lanes, batch: Scratch) -> None:
    """Start a lane on a token, or leave it idle if there is none left."""
    if token >= x.shape[0]:
        lanes.token[lane] = -1
        return
    lanes.token[lane], lanes.in_use[lane], lanes.picks[lane] = token, 0, 0
    lanes.norm[lane] = greedy.begin(x[token], greedy.scratch_of(batch, lane))


@inlined
def _find_best(columns: Columns, bias: Floats, limits: Limits, lanes: Lanes, closed: Flags) -> None:
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
def _step(x: Floats, columns: Columns, limits: Limits, lane: int, lanes: Lanes, scratch: Scratch) -> bool:
    """Let a lane's token take the feature found for it; returns whether it is done."""
    before = lanes.in_use[lane]
    if lanes.found[lane] < 0 or greedy.is_explained(lanes.norm[lane], limits.tolerance, scratch.residual):
        return True
    count = greedy.take_feature(lanes.found[lane], lanes.picks[lane], x, columns, limits, scratch, before)
    lanes.picks[lane] += 1
    lanes.in_use[lane] = count
    greedy.move_residual(columns, scratch, before + 1)
    for position in range(before + 1):
        scratch.fitted[position] = scratch.codes[position]
    return count == scratch.codes.size or lanes.picks[lane] == scratch.picked.size


@compiled
def _orthogonal(
    x: Floats, columns: Columns, bias: Floats, limits: Limits, out: Codes, lanes: Lanes, batch: Scratch
) -> None:
    """Fill the values and indices [batch, k] of `out` for the tokens of x."""
    # No literal: numba would compile `_load` once more for it.
    waiting, busy = int64(LANES), min(x.shape[0], LANES)
    for lane in range(LANES):
        _load(x, lane, lane, lanes, batch)
    while busy > 0:
        fill_tile(batch.residual, 0, LANES, lanes.tile)
        _find_best(columns, bias, limits, lanes, batch.closed)
        for lane in range(LANES):
            token, scratch = lanes.token[lane], greedy.scratch_of(batch, lane)
            if token >= 0 and _step(x[token], columns, limits, lane, lanes, scratch):
                greedy.finish(lanes.picks[lane], limits, scratch, lanes.in_use[lane])
                greedy.write_codes(scratch, lanes.in_use[lane], out[0][token], out[1][token])
                _load(x, waiting, lane, lanes, batch)
                waiting += 1
                busy -= lanes.token[lane] < 0


def pursue_in_lockstep(x: Floats, columns: Columns, limits: Limits, out: Codes) -> None:
    """Fill the values and indices [batch, k] of `out`, which are zero."""
    width, features = x.shape[1], columns.starts.size - 1
    no_bias = np.zeros(features, x.dtype)

    def work(start: int, stop: int) -> None:
        lanes = _make_lanes(width, x.dtype)
        batch = greedy.make_scratch(LANES, width, features, out[0].shape[1], x.dtype)
        _orthogonal(x[start:stop], columns, no_bias, limits, (out[0][start:stop], out[1][start:stop]), lanes, batch)

    over_tiles(work, x.shape[0], LANES)
