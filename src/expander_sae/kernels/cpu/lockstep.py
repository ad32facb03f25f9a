"""Orthogonal matching pursuit in lockstep on the CPU: before every step, the best feature of a tile of tokens anew.

Every lane of the tile holds what is left of one token. One pass over the dictionary leaves the best score of every
block of features for all lanes, with vector instructions and no branch; then each token takes its step, and a lane
whose token is done goes on with the next one. A pass costs the same however many coordinates the last steps changed.

The pass looks in 16 bits (`coarse.py`), which halves what it reads. The blocks of a lane whose best 16 bits cannot tell
from the best of all, mostly one, are weighed anew, so that the choice is that of exact scores. Where 16 bits cannot
hold the columns, the same pass looks at exact scores.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import int64, uint64
from numpy.typing import DTypeLike

from expander_sae.kernels.cpu import greedy
from expander_sae.kernels.cpu.coarse import LARGEST, Coarse, in_16_bits, scale_of
from expander_sae.kernels.cpu.columns import Columns, Floats, Integers, column_times, compiled, inlined
from expander_sae.kernels.cpu.greedy import Codes, Limits, Scratch
from expander_sae.kernels.cpu.numbers import extreme_of, lowest_bit
from expander_sae.kernels.cpu.tiles import LANES, aligned
from expander_sae.kernels.cpu.vectors import best_of_block, lanes_reaching, raise_maxima
from expander_sae.kernels.threads import kept, over_tiles

_BLOCK = 8
"""Features of which only the best score is kept."""
_FEW = 4
"""Blocks that are weighed of a lane before it is filled anew: what is left has become too small for its scale."""


class Lanes(NamedTuple):
    """Where each lane of the tile stands."""

    tile: Floats
    """[m, lanes] the residuals, in whole numbers unless scores are exact"""
    scale: Floats
    """[lanes] what they were multiplied with; 0 if they have no such number"""
    maxima: Floats
    """[blocks, lanes] the best score of every block of features, without its sign if they are compared so"""
    thresholds: Floats
    """[lanes] the score that a block must reach to be weighed: what the best surely beats"""
    best: Floats
    """[lanes] the best exact score so far"""
    found: Integers
    """[lanes] its feature, or -1 if none is above the noise"""
    shut: Floats
    """[lanes] the best exact score so far of a feature that is closed"""
    weighed: Integers
    """[lanes] blocks that were weighed"""
    token: Integers
    """[lanes] the token in work, or -1 when none is left"""
    norm: Floats
    """[lanes] of the token"""
    in_use: Integers
    """[lanes] features in use"""
    picks: Integers
    """[lanes] picks so far"""


def _make_lanes(m: int, n: int, precision: DTypeLike, dtype: DTypeLike) -> Lanes:
    """A tile of numbers of a dtype for tokens of width m and some precision, and n features."""
    tile, maxima, thresholds = (aligned((rows, LANES), dtype) for rows in (m, -(-n // _BLOCK), 1))
    found, weighed, token, in_use, picks = (np.zeros(LANES, np.int64) for _ in range(5))
    scale, best, shut = (np.ones(LANES, precision) for _ in range(3))
    norm = np.zeros(LANES)
    return Lanes(tile, scale, maxima, thresholds[0], best, found, shut, weighed, token, norm, in_use, picks)


@inlined
def _fill_lane(lane: int, width: int, residual: Floats, look: Coarse, lanes: Lanes) -> None:
    """Put what is left of a token into its lane, scaled anew."""
    if look.margin > 0:
        lanes.scale[lane] = scale_of(residual[:width])
    for coordinate in range(width):
        scaled = residual[coordinate] * lanes.scale[lane]
        lanes.tile[coordinate, lane] = np.rint(scaled) if look.margin > 0 else scaled


@inlined
def _change_lane(lane: int, changed: int, columns: Columns, look: Coarse, lanes: Lanes, scratch: Scratch) -> bool:
    """Bring a lane to the residual at the coordinates of the first `changed` columns; returns whether that fits it."""
    fits = True
    for position in range(changed):
        if scratch.codes[position] != scratch.fitted[position]:
            scratch.fitted[position] = scratch.codes[position]
            feature = scratch.chosen[position]
            for entry in range(columns.starts[feature], columns.starts[feature + 1]):
                scaled = scratch.residual[columns.rows[entry]] * lanes.scale[lane]
                whole = np.rint(scaled) if look.margin > 0 else scaled
                fits &= look.margin == 0 or abs(whole) <= LARGEST
                lanes.tile[columns.rows[entry], lane] = whole
    return fits


@inlined
def _load(x: Floats, token: int, lane: int, look: Coarse, lanes: Lanes, batch: Scratch) -> None:
    """Start a lane on a token, or leave it idle if there is none left."""
    if token >= x.shape[0]:
        lanes.token[lane] = -1
        return
    lanes.token[lane], lanes.in_use[lane], lanes.picks[lane] = token, 0, 0
    scratch = greedy.scratch_of(batch, lane)
    lanes.norm[lane] = greedy.begin(x[token], scratch)
    _fill_lane(lane, x.shape[1], scratch.residual, look, lanes)


@inlined
def _look_at_all(look: Coarse, limits: Limits, lanes: Lanes) -> None:
    """Leave the best score of every block, and for every lane what a block must reach to be weighed."""
    best, least, most = lanes.thresholds, extreme_of(lanes.thresholds, -1), extreme_of(lanes.thresholds, 1)
    for lane in range(LANES):
        best[lane] = least
    for block in range(lanes.maxima.shape[0]):
        first = block * _BLOCK
        last = min(first + _BLOCK, look.offsets.size)
        best_of_block(LANES, lanes.tile, look.columns, look.offsets, first, last, lanes.maxima[block], limits.signed)
        raise_maxima(LANES, lanes.maxima[block], 0, best, False)
    for lane in range(LANES):
        if lanes.token[lane] < 0:
            lanes.thresholds[lane] = most
        elif lanes.scale[lane] == 0:
            lanes.thresholds[lane] = least
        else:
            # If the best score is negative, nothing is above the noise that is not within the margin of zero.
            lanes.thresholds[lane] = max(best[lane], 0) - look.margin


@inlined
def _weigh_blocks(columns: Columns, limits: Limits, lanes: Lanes, batch: Scratch) -> None:
    """Find the best open feature in the blocks that reach a lane's threshold, and how good a closed one is, exactly."""
    for block in range(lanes.maxima.shape[0]):
        mask = lanes_reaching(LANES, lanes.maxima[block], lanes.thresholds)
        first, last = block * _BLOCK, min(block * _BLOCK + _BLOCK, columns.starts.size - 1)
        while mask != 0:
            lane = lowest_bit(mask)
            mask &= mask - uint64(1)
            lanes.weighed[lane] += 1
            residual = batch.residual[lane]
            for feature in range(first, last):
                score = column_times(columns, feature, residual)
                score = abs(score) if limits.signed else score
                if score <= lanes.best[lane]:
                    continue
                if batch.closed[lane, feature]:
                    lanes.shut[lane] = max(lanes.shut[lane], score)
                else:
                    lanes.best[lane], lanes.found[lane] = score, feature


@inlined
def _find_best(columns: Columns, limits: Limits, lanes: Lanes, batch: Scratch) -> None:
    """Find the best feature of every lane that is open and above the noise, the lowest of equal ones.

    Where the best of all that were weighed is closed, the blocks of the best open one may have been left out, and all
    are weighed.
    """
    least, most = extreme_of(lanes.thresholds, -1), extreme_of(lanes.thresholds, 1)
    for lane in range(LANES):
        lanes.best[lane], lanes.found[lane], lanes.shut[lane] = limits.rounding * lanes.norm[lane], -1, 0
        lanes.weighed[lane] = 0
    unsure = True
    while unsure:
        _weigh_blocks(columns, limits, lanes, batch)
        unsure = False
        for lane in range(LANES):
            hidden = lanes.shut[lane] > lanes.best[lane] and lanes.thresholds[lane] > least
            lanes.thresholds[lane] = least if hidden else most
            if hidden:
                lanes.best[lane], lanes.found[lane] = limits.rounding * lanes.norm[lane], -1
                unsure = True


@inlined
def _step(x: Floats, columns: Columns, limits: Limits, look: Coarse, lane: int, lanes: Lanes, scratch: Scratch) -> bool:
    """Let a lane's token take its best feature; returns whether it is done."""
    before, found = lanes.in_use[lane], lanes.found[lane]
    if found < 0 or greedy.is_explained(lanes.norm[lane], limits.tolerance, scratch.residual):
        return True
    count = greedy.take_feature(found, lanes.picks[lane], x, columns, limits, scratch, before)
    lanes.picks[lane] += 1
    lanes.in_use[lane] = count
    if count == scratch.codes.size or lanes.picks[lane] == scratch.picked.size:
        return True
    greedy.move_residual(columns, scratch, before + 1)
    fits = _change_lane(lane, before + 1, columns, look, lanes, scratch)
    coarsely = lanes.weighed[lane] > _FEW and scale_of(scratch.residual[: x.size]) > 2 * lanes.scale[lane]
    if not fits or coarsely or lanes.scale[lane] == 0:
        _fill_lane(lane, x.size, scratch.residual, look, lanes)
    return False


@compiled
def _orthogonal(
    x: Floats, columns: Columns, limits: Limits, look: Coarse, out: Codes, lanes: Lanes, batch: Scratch
) -> None:
    """Fill the values and indices [batch, k] of `out` for the tokens of x."""
    # No literal: numba would compile `_load` once more for it.
    waiting, busy = int64(LANES), min(x.shape[0], LANES)
    for lane in range(LANES):
        _load(x, lane, lane, look, lanes, batch)
    while busy > 0:
        _look_at_all(look, limits, lanes)
        _find_best(columns, limits, lanes, batch)
        for lane in range(LANES):
            token, scratch = lanes.token[lane], greedy.scratch_of(batch, lane)
            if token >= 0 and _step(x[token], columns, limits, look, lane, lanes, scratch):
                greedy.finish(lanes.picks[lane], limits, scratch, lanes.in_use[lane])
                greedy.write_codes(scratch, lanes.in_use[lane], out[0][token], out[1][token])
                _load(x, waiting, lane, look, lanes, batch)
                waiting += 1
                busy -= lanes.token[lane] < 0


def pursue_in_lockstep(x: Floats, columns: Columns, limits: Limits, out: Codes) -> None:
    """Fill the values and indices [batch, k] of `out`, which are zero."""
    width, features = x.shape[1], columns.starts.size - 1
    no_bias = np.zeros(features, x.dtype)
    look = in_16_bits(x, columns, no_bias) if x.dtype == np.float32 else None
    look = Coarse(columns, no_bias, 1.0, 0.0, 0) if look is None else look

    def work(start: int, stop: int) -> None:
        lanes = kept(_make_lanes, width, features, x.dtype, look.offsets.dtype)
        batch = kept(greedy.make_scratch, LANES, width, features, out[0].shape[1], x.dtype)
        _orthogonal(x[start:stop], columns, limits, look, (out[0][start:stop], out[1][start:stop]), lanes, batch)

    over_tiles(work, x.shape[0], LANES)
