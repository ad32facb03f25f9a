"""Orthogonal matching pursuit in lockstep on the CPU: before every step, the best feature of a tile of tokens anew.

Every lane of the tile holds what is left of one token. One pass over the dictionary finds the best feature of all
lanes with vector instructions and keeps no correlation; then each token takes its step, and a lane whose token is done
goes on with the next one. A pass costs the same however many coordinates the last steps have changed.

The pass looks in 16 bits (`coarse.py`), which halves what it reads. The few features of a lane that these cannot tell
from the best are weighed anew, so that the choice is that of exact scores. Where 16 bits cannot hold the columns, the
same pass looks at exact scores, and nothing is left to be weighed but equal ones.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import int64, uint64
from numpy.typing import DTypeLike

from expander_sae.kernels.cpu import greedy
from expander_sae.kernels.cpu.coarse import LARGEST, Coarse, in_16_bits, scale_of
from expander_sae.kernels.cpu.columns import Columns, Flags, Floats, Integers, column_times, compiled, inlined
from expander_sae.kernels.cpu.greedy import Codes, Limits, Scratch
from expander_sae.kernels.cpu.tiles import LANES, aligned
from expander_sae.kernels.cpu.vectors import correlate_tile, extreme_of, lanes_above, lowest_bit
from expander_sae.kernels.threads import kept, over_tiles

_ROOM = 32
"""Features that may be noted of a lane before those that are surely not the best are forgotten."""


class Lanes(NamedTuple):
    """Where each lane of the tile stands."""

    tile: Floats
    """[m, lanes] the residuals, in whole numbers unless scores are exact"""
    scale: Floats
    """[lanes] what they were multiplied with; 0 if they have no such number"""
    scores: Floats
    """[lanes] scores of one feature"""
    thresholds: Floats
    """[lanes] the score that a feature must exceed to be noted: what the best so far surely beats"""
    noted: Integers
    """[lanes, room] the features that could be the best"""
    ranking: Floats
    """[lanes, room] their scores, without their signs if they are compared so"""
    counts: Integers
    """[lanes] how many they are, or -1 if there was no room for all"""
    token: Integers
    """[lanes] the token in work, or -1 when none is left"""
    norm: Floats
    """[lanes] of the token"""
    in_use: Integers
    """[lanes] features in use"""
    picks: Integers
    """[lanes] picks so far"""


def _make_lanes(m: int, precision: DTypeLike, dtype: DTypeLike) -> Lanes:
    """A tile of numbers of a dtype for tokens of width m and some precision."""
    tile, scores, thresholds = (aligned(shape, dtype) for shape in ((m, LANES), (LANES,), (LANES,)))
    noted, ranking = np.zeros((LANES, _ROOM), np.int32), np.zeros((LANES, _ROOM), dtype)
    counts, token, in_use, picks = (np.zeros(LANES, np.int64) for _ in range(4))
    scale = np.ones(LANES, precision)
    return Lanes(tile, scale, scores, thresholds, noted, ranking, counts, token, np.zeros(LANES), in_use, picks)


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
def _note(lane: int, feature: int, score: float, look: Coarse, lanes: Lanes) -> None:
    """Note a feature of a lane, and raise the threshold to what it surely beats.

    Where there is no room left, those that are surely not the best are forgotten. Arrays are read in place: a view of a
    row, or a call with all of them, made the whole pursuit take a fifth longer.
    """
    count = lanes.counts[lane]
    lanes.noted[lane, count], lanes.ranking[lane, count] = feature, score
    lanes.thresholds[lane] = max(lanes.thresholds[lane], score - look.margin)
    lanes.counts[lane] = count + 1
    if count + 1 == _ROOM:
        left = 0
        for place in range(_ROOM):
            if lanes.ranking[lane, place] >= lanes.thresholds[lane]:
                lanes.noted[lane, left] = lanes.noted[lane, place]
                lanes.ranking[lane, left] = lanes.ranking[lane, place]
                left += 1
        lanes.counts[lane] = left if left < _ROOM else -1
        if left == _ROOM:
            lanes.thresholds[lane] = extreme_of(lanes.thresholds, 1)


@inlined
def _look_at_all(look: Coarse, limits: Limits, lanes: Lanes, closed: Flags) -> None:
    """Note for every lane the features that are not closed and could be its best."""
    for lane in range(LANES):
        seen = lanes.token[lane] >= 0 and lanes.scale[lane] > 0
        lanes.thresholds[lane] = -look.margin if seen else extreme_of(lanes.thresholds, 1)
        lanes.counts[lane] = 0 if seen else -1
    columns = look.columns
    for feature in range(look.offsets.size):
        correlate_tile(
            LANES, lanes.tile, columns.values, columns.rows, columns.starts, look.offsets, feature, lanes.scores
        )
        mask = lanes_above(LANES, lanes.scores, lanes.thresholds, limits.signed)
        while mask != 0:
            lane = lowest_bit(mask)
            mask &= mask - uint64(1)
            if not closed[lane, feature]:
                _note(lane, feature, abs(lanes.scores[lane]) if limits.signed else lanes.scores[lane], look, lanes)


@inlined
def _best_of(lane: int, columns: Columns, limits: Limits, lanes: Lanes, scratch: Scratch) -> int:
    """The best of a lane's noted features above the noise, the lowest of equal ones, by exact scores; or -1.

    Where there was no room to note them, it is looked for among all.
    """
    best, found = limits.rounding * lanes.norm[lane], int64(-1)
    among_all = lanes.counts[lane] < 0
    for place in range(columns.starts.size - 1 if among_all else lanes.counts[lane]):
        feature = place if among_all else int64(lanes.noted[lane, place])
        if scratch.closed[feature] if among_all else lanes.ranking[lane, place] < lanes.thresholds[lane]:
            continue
        score = column_times(columns, feature, scratch.residual)
        score = abs(score) if limits.signed else score
        if score > best:
            best, found = score, feature
    return found


@inlined
def _step(x: Floats, columns: Columns, limits: Limits, look: Coarse, lane: int, lanes: Lanes, scratch: Scratch) -> bool:
    """Let a lane's token take its best feature; returns whether it is done."""
    before = lanes.in_use[lane]
    found = _best_of(lane, columns, limits, lanes, scratch)
    if found < 0 or greedy.is_explained(lanes.norm[lane], limits.tolerance, scratch.residual):
        return True
    count = greedy.take_feature(found, lanes.picks[lane], x, columns, limits, scratch, before)
    lanes.picks[lane] += 1
    lanes.in_use[lane] = count
    if count == scratch.codes.size or lanes.picks[lane] == scratch.picked.size:
        return True
    greedy.move_residual(columns, scratch, before + 1)
    if not _change_lane(lane, before + 1, columns, look, lanes, scratch) or lanes.counts[lane] < 0:
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
        _look_at_all(look, limits, lanes, batch.closed)
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
        lanes = kept(_make_lanes, width, x.dtype, look.offsets.dtype)
        batch = greedy.make_scratch(LANES, width, features, out[0].shape[1], x.dtype)
        _orthogonal(x[start:stop], columns, limits, look, (out[0][start:stop], out[1][start:stop]), lanes, batch)

    over_tiles(work, x.shape[0], LANES)
