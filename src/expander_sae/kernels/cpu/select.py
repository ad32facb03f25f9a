"""`select` on CPUs: tiles of tokens, one vector compare per feature, and candidates only where it says so.

A tile of tokens is transposed to [m, lanes], so one gathered row serves all of its tokens with contiguous loads. Each
token has a running threshold that never exceeds its k-th best score; a feature whose scores are all below it costs one
compare for the whole tile. What passes goes to the token's candidate list, which is cut back to the best k whenever it
is full, and that raises the threshold. Scores are looked at in 16 bits first (`coarse.py`): the few features that these
cannot tell from the best k are candidates too, and exact scores decide among them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numba import int64, uint64
from numpy.typing import DTypeLike
from torch import Tensor

from expander_sae.errors import ExpanderError
from expander_sae.kernels.cpu.coarse import Coarse, fill_coarsely, in_16_bits, make_rows
from expander_sae.kernels.cpu.columns import (
    Columns,
    Flags,
    Floats,
    Integers,
    column_times,
    columns_of,
    compiled,
    inlined,
)
from expander_sae.kernels.cpu.numbers import extreme_of, lowest_bit
from expander_sae.kernels.cpu.ranking import WIDTH, count_above, keep_best, list_length, sort_best
from expander_sae.kernels.cpu.tiles import LANES, aligned, all_finite, fill_tile
from expander_sae.kernels.cpu.vectors import correlate_those_above, correlate_tile, places_reaching, raise_maxima
from expander_sae.kernels.inputs import check_finite
from expander_sae.kernels.threads import kept, over_tiles

PROBE_GROUPS = 32
PROBES_PER_RANK = 0.0575
"""Probed features per group, times k / n."""
_PROBE_RANK = 9
"""Which of the group maxima is the guess: some 5.8 k features exceed it, and once in thirty thousand fewer than k."""
LIST_PER_FEATURE = 4
"""Candidates that a list holds for every feature that is chosen, and a few more: once it is full, the threshold is
raised to the k-th best. Longer ones took up to a tenth more time, and shorter ones where many features are alike."""
_BLOCK = 32
"""Features that are looked at before those that passed are put to the lists."""

LOOK_TOKENS = 2 * LANES
LOOK_FEATURES = 16
"""A look in 16 bits pays for so many tokens, and features per feature that is chosen, or more."""
_MOST_WASTED = 2
"""Tiles of a piece that could not be told apart in 16 bits before the rest of it is done without a look."""


class Tile(NamedTuple):
    """A tile of tokens in work, and what is known of the best features of each; scores are as exact as its numbers."""

    tokens: Floats
    """[m, lanes]"""
    thresholds: Floats
    """[lanes] what a feature must exceed to be a candidate"""
    maxima: Floats
    """[groups, lanes] the best of each group of probed features"""
    scores: Floats
    """[block + 1, lanes] correlations with those features of a block that are a candidate for some lane"""
    masks: Integers
    """[block + 1] the lanes that they are candidates for, as bits"""
    passed: Integers
    """[block + 1] which features they are"""
    ranking: Floats
    """[lanes, length of a list] the candidates' scores, without their signs if they are compared so"""
    indices: Integers
    """[lanes, length of a list] the candidates"""
    counts: Integers
    """[lanes] how many there are"""
    capacity: int
    """How many make a list full: after a block of features such lists are cut back to k"""
    crowded: Flags
    """[1] whether some lane had more candidates that the margin cannot tell from the best k than fit its list"""
    margin: int
    """How much better than another a score must be to be surely better; 0 if scores are exact"""


def _make_tile(width: int, capacity: int, k: int, dtype: DTypeLike, margin: int) -> Tile:
    """A tile for tokens of some width, with lists of so many candidates of which k will be chosen."""
    length = list_length(capacity + _BLOCK, k)
    return Tile(
        tokens=aligned((width, LANES), dtype),
        thresholds=aligned((LANES,), dtype),
        maxima=aligned((PROBE_GROUPS, LANES), dtype),
        scores=aligned((_BLOCK + 1, LANES), dtype),
        masks=np.zeros(_BLOCK + 1, np.uint64),
        passed=np.zeros(_BLOCK + 1, np.int32),
        ranking=aligned((LANES, length), dtype),
        indices=np.empty((LANES, length), np.int32),
        counts=np.zeros(LANES, np.int64),
        capacity=capacity,
        crowded=np.zeros(1, np.bool_),
        margin=margin,
    )


def _make_exact_tile(width: int, capacity: int, k: int, dtype: DTypeLike) -> Tile:
    return _make_tile(width, capacity, k, dtype, 0)


def _make_coarse_tile(width: int, capacity: int, k: int, margin: int) -> Tile:
    return _make_tile(width, capacity, k, np.int16, margin)


@compiled
def _low_quantile(maxima: Floats, thresholds: Floats) -> None:
    """thresholds[lane] = the ninth largest of a lane's group maxima, which are put in another order."""
    for rank in range(_PROBE_RANK):
        for group in range(rank + 1, maxima.shape[0]):
            for lane in range(LANES):
                one, other = maxima[rank, lane], maxima[group, lane]
                maxima[rank, lane] = one if one > other else other
                maxima[group, lane] = other if one > other else one
    for lane in range(LANES):
        thresholds[lane] = maxima[_PROBE_RANK - 1, lane]


@compiled
def _guess_thresholds(columns: Columns, bias: Floats, k: int, signed: bool, tile: Tile) -> None:
    """Leave in thresholds, for every lane, a score that about 6k of all features exceed, or the least if there are few.

    Features spread over the dictionary are probed in groups. Of the k best features 1.84 are probed on average, so that
    the ninth largest group maximum is seldom among them, whatever the scores are distributed like.
    """
    groups, features = tile.maxima.shape[0], bias.size
    per_group = int(PROBES_PER_RANK * features / k)
    least = extreme_of(tile.thresholds, -1)
    if per_group < 1:
        tile.thresholds[:] = least
        return
    tile.maxima[:] = least
    stride = features // (groups * per_group)
    for probe in range(groups * per_group):
        feature = probe * stride
        correlate_tile(LANES, tile.tokens, columns, bias, feature, tile.scores[0])
        raise_maxima(LANES, tile.scores[0], 0, tile.maxima[probe % groups], signed)
    _low_quantile(tile.maxima, tile.thresholds)
    if tile.margin > 0:
        for lane in range(LANES):
            tile.thresholds[lane] = max(tile.thresholds[lane] - tile.margin, least)


@inlined
def _append_survivors(found: int, signed: bool, tile: Tile) -> None:
    """Put what passed in a block of features to the lists of their lanes."""
    for row in range(found):
        mask = tile.masks[row]
        while mask != 0:
            lane = uint64(lowest_bit(mask))
            mask &= mask - uint64(1)
            score, count = tile.scores[row, lane], uint64(tile.counts[lane])
            tile.ranking[lane, count] = abs(score) if signed else score
            tile.indices[lane, count] = tile.passed[row]
            tile.counts[lane] += 1


@compiled
def _cut_back(lane: int, k: int, tile: Tile) -> None:
    """Cut back a full list, to no candidates if there would hardly be room for others."""
    threshold, kept = keep_best(tile.ranking[lane], tile.indices[lane], tile.counts[lane], k, tile.margin)
    crowded = 2 * kept > tile.capacity and kept > k
    tile.crowded[0] |= crowded
    tile.thresholds[lane] = extreme_of(tile.thresholds, 1) if crowded else threshold
    tile.counts[lane] = 0 if crowded else kept


@compiled
def _scan(columns: Columns, bias: Floats, k: int, signed: bool, tile: Tile) -> None:
    """Collect every lane's candidates: all features above its threshold, cut back to the best k when the list fills."""
    for start in range(0, bias.size, _BLOCK):
        found = correlate_those_above(
            LANES,
            tile.tokens,
            columns,
            bias,
            start,
            min(start + _BLOCK, bias.size),
            tile.thresholds,
            signed,
            tile.scores,
            tile.masks,
            tile.passed,
        )
        _append_survivors(found, signed, tile)
        full = places_reaching(LANES, tile.counts, 0, tile.capacity)
        while full != 0:
            _cut_back(lowest_bit(full), k, tile)
            full &= full - uint64(1)


@inlined
def _is_short(lane: int, k: int, tile: Tile) -> bool:
    """Whether a lane's list may lack one of its best k features.

    Features that score as much as the threshold and margin or more are all there with whatever could be better.
    """
    count, threshold = tile.counts[lane], tile.thresholds[lane]
    if tile.margin > 0 and threshold > extreme_of(tile.thresholds, -1):
        bound = min(int64(threshold) + tile.margin - 1, int64(extreme_of(tile.thresholds, 1)))
        count = count_above(tile.ranking[lane], count, tile.ranking.dtype.type(bound))
    return count < k


@compiled
def _find_candidates(columns: Columns, bias: Floats, k: int, signed: bool, used: int, tile: Tile) -> bool:
    """Leave at least k candidates of the first `used` lanes, the best k among them; returns whether all have so many.

    Those that have fewer have sums that are not numbers or minus infinity, or scores that the margin cannot tell apart.
    """
    least, most = extreme_of(tile.thresholds, -1), extreme_of(tile.thresholds, 1)
    _guess_thresholds(columns, bias, k, signed, tile)
    tile.thresholds[used:] = most
    tile.counts[:] = 0
    tile.crowded[0] = False
    _scan(columns, bias, k, signed, tile)
    missing = int64(0)
    for lane in range(used):
        missing += _is_short(lane, k, tile)
    if missing == 0 or tile.crowded[0]:
        return missing == 0
    # A guess was not below the k-th best score: once more for those lanes, without a guess.
    for lane in range(used):
        short = _is_short(lane, k, tile)
        tile.thresholds[lane] = least if short else most
        tile.counts[lane] = 0 if short else tile.counts[lane]
    _scan(columns, bias, k, signed, tile)
    missing = int64(0)
    for lane in range(used):
        missing += tile.counts[lane] < k
    return missing == 0 and not tile.crowded[0]


@compiled
def _signed_score(x: Floats, columns: Columns, bias: Floats, feature: int) -> float:
    """One correlation with its sign, summed in the order of the definition."""
    return column_times(columns, feature, x) + bias[feature]


@compiled
def _weigh_anew(x: Floats, columns: Columns, bias: Floats, k: int, signed: bool, coarse: Tile, exact: Tile) -> None:
    """Give the exact tile what of a coarse one's candidates could be among the best k, with exact scores."""
    for lane in range(x.shape[0]):
        features, token = coarse.indices[lane], x[lane]
        _, kept = keep_best(coarse.ranking[lane], features, coarse.counts[lane], k, coarse.margin)
        for place in range(kept):
            score = _signed_score(token, columns, bias, features[place])
            exact.ranking[lane, place] = abs(score) if signed else score
            exact.indices[lane, place] = features[place]
        exact.counts[lane] = kept


@compiled
def _write_best(
    x: Floats, columns: Columns, bias: Floats, signed: bool, tile: Tile, values: Floats, indices: Integers
) -> None:
    """Fill values and indices [tokens, k] with the best candidates of each of the tokens x in the tile."""
    k = values.shape[1]
    for lane in range(x.shape[0]):
        ranking, features = tile.ranking[lane], tile.indices[lane]
        count = tile.counts[lane]
        if count > WIDTH:
            _, count = keep_best(ranking, features, count, k, 0)
        first = sort_best(ranking, features, count)
        for rank in range(k):
            feature = features[first + rank]
            indices[lane, rank] = feature
            values[lane, rank] = _signed_score(x[lane], columns, bias, feature) if signed else ranking[first + rank]


@compiled
def _select_tile(
    x: Floats, columns: Columns, bias: Floats, signed: bool, tile: Tile, values: Floats, indices: Integers
) -> bool:
    """Fill values and indices [tokens, k] for up to 64 tokens x; returns whether each is finite and has k features to
    choose."""
    fill_tile(x, 0, x.shape[0], tile.tokens)
    if not all_finite(x) or not _find_candidates(columns, bias, values.shape[1], signed, x.shape[0], tile):
        return False
    _write_best(x, columns, bias, signed, tile, values, indices)
    return True


@compiled
def _select_tokens(
    x: Floats, columns: Columns, bias: Floats, signed: bool, out: tuple[Floats, Integers], tile: Tile
) -> bool:
    """Fill the values and indices [batch, k] of `out`; returns whether every token is finite and has k features to
    choose."""
    for first in range(0, x.shape[0], LANES):
        last = min(first + LANES, x.shape[0])
        if not _select_tile(x[first:last], columns, bias, signed, tile, out[0][first:last], out[1][first:last]):
            return False
    return True


@compiled
def _select_after_a_look(
    x: Floats,
    start: int,
    columns: Columns,
    bias: Floats,
    signed: bool,
    out: tuple[Floats, Integers],
    lists: Tile,
    coarse: Coarse,
    look: Tile,
    rows: Integers,
) -> tuple[int, bool]:
    """Fill the values and indices [batch, k] of `out` from the token `start` on, by way of a look in 16 bits.

    Gives back the first token of the first tile that this cannot do, or the number of tokens; and whether 16 bits hold
    that tile, whose best features they then cannot tell apart.
    """
    k = out[0].shape[1]
    for first in range(start, x.shape[0], LANES):
        last = min(first + LANES, x.shape[0])
        tokens = x[first:last]
        if not fill_coarsely(tokens, coarse, rows, look.tokens):
            return first, False
        if not _find_candidates(coarse.columns, coarse.offsets, k, signed, last - first, look):
            return first, True
        _weigh_anew(tokens, columns, bias, k, signed, look, lists)
        _write_best(tokens, columns, bias, signed, lists, out[0][first:last], out[1][first:last])
    return x.shape[0], False


def select(x: Tensor, values: Tensor, rows: Tensor, k: int, bias: Tensor, signed: bool) -> tuple[Tensor, Tensor]:
    """(values [batch, k], indices [batch, k]) like `reference.select`; shorter columns end with rows of -1.

    Whether tokens are finite is seen where they are read, by all threads: a pass of its own would cost an eighth more.
    """
    tokens, shifts = x.to(bias.dtype).numpy(), bias.numpy()
    columns = columns_of(values.to(bias.dtype), rows)
    out = np.empty((len(tokens), k), tokens.dtype), np.empty((len(tokens), k), np.int64)
    width, capacity = tokens.shape[1], min(LIST_PER_FEATURE * k + 16, bias.numel())
    worth_a_look = tokens.dtype == np.float32 and len(tokens) >= LOOK_TOKENS and bias.numel() >= LOOK_FEATURES * k
    coarse = in_16_bits(tokens, columns, shifts) if worth_a_look else None

    def exactly(start: int, stop: int) -> None:
        tile = kept(_make_exact_tile, width, capacity, k, tokens.dtype)
        part = out[0][start:stop], out[1][start:stop]
        if not _select_tokens(tokens[start:stop], columns, shifts, signed, part, tile):
            check_finite("x", x)  # of all tokens, wherever this thread began
            raise ExpanderError(f"Sums of x and values leave the range of {bias.dtype}; scale them down.")

    def after_a_look(start: int, stop: int) -> None:
        assert coarse is not None
        lists = kept(_make_exact_tile, width, capacity, k, tokens.dtype)
        look = kept(_make_coarse_tile, width + (coarse.constant > 0), capacity, k, coarse.margin)
        room, part = kept(make_rows, width), (out[0][:stop], out[1][:stop])
        wasted = 0
        # What 16 bits cannot do is done from here: the exact loop is compiled when it is first called.
        while start < stop and wasted <= _MOST_WASTED:
            begin, fits = _select_after_a_look(
                tokens[:stop], start, columns, shifts, signed, part, lists, coarse, look, room
            )
            start = min(begin + LANES, stop)
            wasted += fits
            if begin < stop:
                exactly(begin, start)
        if start < stop:
            exactly(start, stop)

    over_tiles(exactly if coarse is None else after_a_look, len(tokens), LANES)
    return torch.from_numpy(out[0]), torch.from_numpy(out[1])
