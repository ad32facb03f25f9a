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
import torch
from numba import int64, uint64
from numpy.typing import DTypeLike
from torch import Tensor

from expander_sae.kernels.cpu import greedy
from expander_sae.kernels.cpu.blocks import SIDE, Blocks, best_of_block, block_times, blocks_of, with_values
from expander_sae.kernels.cpu.coarse import LARGEST, in_16_bits, scale_of
from expander_sae.kernels.cpu.columns import Columns, Floats, Integers, compiled, inlined
from expander_sae.kernels.cpu.greedy import Codes, Limits, Scratch
from expander_sae.kernels.cpu.numbers import count_up, extreme_of, lowest_bit
from expander_sae.kernels.cpu.tiles import LANES, aligned
from expander_sae.kernels.cpu.vectors import lanes_reaching, largest_of, places_equal, places_reaching, raise_maxima
from expander_sae.kernels.threads import kept, over_tiles

_FEW = 4
"""Blocks that are weighed of a lane before it is filled anew: what is left has become too small for its scale."""


class Look(NamedTuple):
    """How a pass reads the dictionary."""

    blocks: Blocks
    """Their values are whole numbers unless scores are exact."""
    offsets: Floats | Integers
    """[8 blocks] what the sum of a column loses on average because every product is rounded down"""
    margin: int
    """Of two features, the one that is better by this much is the better one; 0 if scores are exact."""


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
    scores: Floats
    """[8] the exact scores of a block for one token"""
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
    tile, maxima, thresholds = (aligned((rows, LANES), dtype) for rows in (m, -(-n // SIDE), 1))
    scores = aligned((SIDE,), precision)
    found, weighed, token, in_use, picks = (np.zeros(LANES, np.int64) for _ in range(5))
    scale, best, shut = (np.ones(LANES, precision) for _ in range(3))
    norm = np.zeros(LANES)
    return Lanes(tile, scale, maxima, thresholds[0], best, found, scores, shut, weighed, token, norm, in_use, picks)


@inlined
def _fill_lane(lane: int, width: int, residual: Floats, look: Look, lanes: Lanes) -> None:
    """Put what is left of a token into its lane, scaled anew."""
    if look.margin > 0:
        lanes.scale[lane] = scale_of(residual[:width])
    for coordinate in range(width):
        scaled = residual[coordinate] * lanes.scale[lane]
        lanes.tile[coordinate, lane] = np.rint(scaled) if look.margin > 0 else scaled


@inlined
def _move_lane(lane: int, changed: int, columns: Columns, look: Look, lanes: Lanes, scratch: Scratch) -> bool:
    """Bring the residual and its lane to the codes of the first `changed` columns; returns whether it fits its lane."""
    fits = True
    for position in range(changed):
        change = scratch.codes[position] - scratch.fitted[position]
        if change != 0:
            scratch.fitted[position] = scratch.codes[position]
            feature = scratch.chosen[position]
            for entry in range(columns.starts[feature], columns.starts[feature + 1]):
                row = columns.rows[entry]
                scratch.residual[row] -= change * columns.values[entry]
                scaled = scratch.residual[row] * lanes.scale[lane]
                whole = np.rint(scaled) if look.margin > 0 else scaled
                fits &= look.margin == 0 or abs(whole) <= LARGEST
                lanes.tile[row, lane] = whole
    return fits


@inlined
def _load(x: Floats, begun: Integers, lane: int, look: Look, lanes: Lanes, batch: Scratch) -> bool:
    """Start a lane on the next token, or leave it idle if there is none; returns whether there is one."""
    token = count_up(begun)
    if token >= x.shape[0]:
        lanes.token[lane] = -1
        return False
    lanes.token[lane], lanes.in_use[lane], lanes.picks[lane] = token, 0, 0
    scratch = greedy.scratch_of(batch, lane)
    lanes.norm[lane] = greedy.begin(x[token], scratch)
    _fill_lane(lane, x.shape[1], scratch.residual, look, lanes)
    return True


@inlined
def _look_at_all(look: Look, limits: Limits, lanes: Lanes) -> None:
    """Leave the best score of every block, and for every lane what a block must reach to be weighed."""
    best, least, most = lanes.thresholds, extreme_of(lanes.thresholds, -1), extreme_of(lanes.thresholds, 1)
    for lane in range(LANES):
        best[lane] = least
    for block in range(lanes.maxima.shape[0]):
        best_of_block(LANES, lanes.tile, look.blocks, look.offsets, block, lanes.maxima[block], limits.signed)
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
def _weigh_blocks(blocks: Blocks, limits: Limits, lanes: Lanes, batch: Scratch) -> None:
    """Find the best open feature in the blocks that reach a lane's threshold, and how good a closed one is, exactly."""
    for block in range(lanes.maxima.shape[0]):
        mask = lanes_reaching(LANES, lanes.maxima[block], lanes.thresholds)
        while mask != 0:
            lane = lowest_bit(mask)
            mask &= mask - uint64(1)
            lanes.weighed[lane] += 1
            block_times(blocks, block, batch.residual[lane], limits.signed, lanes.scores)
            top = largest_of(SIDE, lanes.scores)
            # The last place where none is equal: sums that left the range of numbers are not even equal to themselves.
            place = lowest_bit(places_equal(SIDE, lanes.scores, 0, top) | uint64(1 << (SIDE - 1)))
            hides = batch.closed[lane, blocks.features[block * SIDE + place]]  # others, of which one may be the best
            bound = lanes.best[lane] if hides else max(top, lanes.best[lane])
            reaching = places_reaching(SIDE, lanes.scores, 0, bound)
            while reaching != 0:
                place = lowest_bit(reaching)
                reaching &= reaching - uint64(1)
                score, feature = lanes.scores[place], int64(blocks.features[block * SIDE + place])
                if (score == lanes.best[lane] and feature > lanes.found[lane]) or score < lanes.best[lane]:
                    continue
                if batch.closed[lane, feature]:
                    lanes.shut[lane] = max(lanes.shut[lane], score)
                else:
                    lanes.best[lane], lanes.found[lane] = score, feature


@inlined
def _find_best(blocks: Blocks, limits: Limits, lanes: Lanes, batch: Scratch) -> None:
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
        _weigh_blocks(blocks, limits, lanes, batch)
        unsure = False
        for lane in range(LANES):
            hidden = lanes.shut[lane] > lanes.best[lane] and lanes.thresholds[lane] > least
            lanes.thresholds[lane] = least if hidden else most
            if hidden:
                lanes.best[lane], lanes.found[lane] = limits.rounding * lanes.norm[lane], -1
                unsure = True


@inlined
def _step(x: Floats, columns: Columns, limits: Limits, look: Look, lane: int, lanes: Lanes, scratch: Scratch) -> bool:
    """Let a lane's token take its best feature; returns whether it is done."""
    before, found = lanes.in_use[lane], lanes.found[lane]
    if found < 0 or greedy.is_explained(lanes.norm[lane], limits.tolerance, scratch.residual):
        return True
    count = greedy.take_feature(found, lanes.picks[lane], x, columns, limits, scratch, before)
    lanes.picks[lane] += 1
    lanes.in_use[lane] = count
    if count == scratch.codes.size or lanes.picks[lane] == scratch.picked.size:
        return True
    fits = _move_lane(lane, before + 1, columns, look, lanes, scratch)
    coarsely = lanes.weighed[lane] > _FEW and scale_of(scratch.residual[: x.size]) > 2 * lanes.scale[lane]
    if not fits or coarsely or lanes.scale[lane] == 0:
        _fill_lane(lane, x.size, scratch.residual, look, lanes)
    return False


@compiled
def _orthogonal(
    x: Floats,
    columns: Columns,
    blocks: Blocks,
    limits: Limits,
    look: Look,
    out: Codes,
    begun: Integers,
    lanes: Lanes,
    batch: Scratch,
) -> None:
    """Fill the values and indices [batch, k] of `out` for tokens of x, counted by `begun` [1], until all are begun."""
    busy = 0
    for lane in range(LANES):
        busy += _load(x, begun, lane, look, lanes, batch)
    while busy > 0:
        _look_at_all(look, limits, lanes)
        _find_best(blocks, limits, lanes, batch)
        for lane in range(LANES):
            token, scratch = lanes.token[lane], greedy.scratch_of(batch, lane)
            if token >= 0 and _step(x[token], columns, limits, look, lane, lanes, scratch):
                greedy.finish(lanes.picks[lane], limits, scratch, lanes.in_use[lane])
                greedy.forget_columns(lanes.picks[lane], columns, scratch)
                greedy.write_codes(scratch, lanes.in_use[lane], out[0][token], out[1][token])
                busy -= not _load(x, begun, lane, look, lanes, batch)


def _look_of(x: Floats, columns: Columns, blocks: Blocks) -> Look:
    """How to look at the blocks of columns for tokens like x: in 16 bits if those can hold them."""
    if x.dtype == np.float32:
        coarse = in_16_bits(x, columns, np.zeros(columns.starts.size - 1, x.dtype))
        if coarse is not None:
            return Look(with_values(blocks, coarse.columns), coarse.offsets[blocks.features], coarse.margin)
    return Look(blocks, np.zeros(blocks.features.size, x.dtype), 0)


def pursue_in_lockstep(x: Floats, rows: Tensor, columns: Columns, limits: Limits, out: Codes) -> None:
    """Fill the values and indices [batch, k] of `out`, which are zero, by columns at rows [n, d]."""
    width, features = x.shape[1], columns.starts.size - 1
    blocks = blocks_of(rows, columns)
    look, begun = _look_of(x, columns, blocks), np.zeros(1, np.int64)

    def work(*_: int) -> None:
        lanes = kept(_make_lanes, width, features, x.dtype, look.offsets.dtype)
        batch = kept(greedy.make_scratch, LANES, width, features, out[0].shape[1], x.dtype)
        _orthogonal(x, columns, blocks, limits, look, out, begun, lanes, batch)

    # No pieces of the batch: lanes would be idle at the end of each, and threads at the end of the last.
    over_tiles(work, min(torch.get_num_threads(), -(-len(x) // LANES)), 1)
