"""`select` on CPUs: tiles of tokens, one vector compare per feature, and candidates only where it says so.

A tile of tokens is transposed to [m, lanes], so one gathered row serves all of its tokens with contiguous loads. Each
token has a running threshold that never exceeds its k-th best score; a feature whose scores are all below it costs one
compare for the whole tile. What passes goes to the token's candidate list, which is cut back to the best k whenever it
is full, and that raises the threshold.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numba import int64, uint64
from numpy.typing import DTypeLike
from torch import Tensor

from expander_sae.errors import ExpanderError
from expander_sae.kernels.cpu.columns import Columns, Floats, Integers, column_times, columns_of, compiled, inlined
from expander_sae.kernels.cpu.ranking import keep_best, list_length, sort_best
from expander_sae.kernels.cpu.vectors import (
    correlate_tile,
    lanes_above,
    lowest_bit,
    raise_maxima,
    turn_block,
)
from expander_sae.kernels.threads import over_tiles

LANES = 64
"""Tokens per tile: what the bit mask of a compare can hold."""

PROBE_GROUPS = 32
PROBES_PER_RANK = 0.0575
"""Probed features per group, times k / n."""
_PROBE_RANK = 9
"""Which of the group maxima is the guess: some 5.8 k features exceed it, and once in thirty thousand fewer than k."""
_TURNED = 16
"""Rows and columns that are transposed at a time."""
_BLOCK = 32
"""Features that are looked at before those that passed are put to the lists."""


class Tile(NamedTuple):
    """A tile of tokens in work, and what is known of the best features of each."""

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
    """How many there may be before they are cut back to k"""


def aligned(shape: tuple[int, ...], dtype: DTypeLike) -> Floats:
    """An uninitialised array that starts on a cache line; vector loads that straddle two lines take twice as long."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.empty(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size].view(dtype).reshape(shape)


def _make_tile(width: int, capacity: int, k: int, dtype: DTypeLike) -> Tile:
    """A tile for tokens of some width, with lists of so many candidates of which k will be chosen."""
    length = list_length(capacity, k)
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
    )


@compiled
def fill_tile(x: Floats, start: int, stop: int, tile: Floats) -> None:
    """Copy rows start..stop of x [batch, m or more] into the columns of tile [m, lanes]; unused lanes become zero."""
    tokens, width, lanes, pitch = stop - start, tile.shape[0], tile.shape[1], x.shape[1]
    whole_tokens, whole_width = tokens // _TURNED * _TURNED, width // _TURNED * _TURNED
    for token in range(0, whole_tokens, _TURNED):
        for coordinate in range(0, whole_width, _TURNED):
            source, to = (start + token) * pitch + coordinate, coordinate * lanes + token
            turn_block(_TURNED, x, source, pitch, tile, to, lanes)
    for token in range(tokens):
        for coordinate in range(whole_width if token < whole_tokens else 0, width):
            tile[coordinate, token] = x[start + token, coordinate]
    if tokens < lanes:
        tile[:, tokens:] = 0


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
    """Leave in thresholds, for every lane, a score that about 6k of all features exceed, or -inf if n is too small.

    Features spread over the dictionary are probed in groups. Of the k best features 1.84 are probed on average, so that
    the ninth largest group maximum is seldom among them, whatever the scores are distributed like.
    """
    groups, features = tile.maxima.shape[0], bias.size
    per_group = int(PROBES_PER_RANK * features / k)
    if per_group < 1:
        tile.thresholds[:] = -np.inf
        return
    tile.maxima[:] = -np.inf
    stride = features // (groups * per_group)
    for probe in range(groups * per_group):
        feature = probe * stride
        correlate_tile(LANES, tile.tokens, columns.values, columns.rows, columns.starts, bias, feature, tile.scores[0])
        raise_maxima(LANES, tile.scores[0], 0, tile.maxima[probe % groups], signed)
    _low_quantile(tile.maxima, tile.thresholds)


@inlined
def _append_survivors(rows: int, k: int, signed: bool, tile: Tile) -> None:
    """Put what passed in a block of features to the lists of their lanes, and cut back those that fill."""
    for row in range(rows):
        mask = tile.masks[row]
        while mask != 0:
            lane = lowest_bit(mask)
            mask &= mask - uint64(1)
            score, count = tile.scores[row, lane], tile.counts[lane]
            tile.ranking[lane, count] = abs(score) if signed else score
            tile.indices[lane, count] = tile.passed[row]
            count += 1
            if count == tile.capacity:
                tile.thresholds[lane] = keep_best(tile.ranking[lane], tile.indices[lane], count, k)
                count = k
            tile.counts[lane] = count


@compiled
def _scan(columns: Columns, bias: Floats, k: int, signed: bool, tile: Tile) -> None:
    """Collect every lane's candidates: all features above its threshold, cut back to the best k when the list fills.

    The scores of a feature that nothing passes for are overwritten by those of the next: a branch would be guessed
    wrong for every third feature, and a wrong guess throws away the sums that are under way.
    """
    for start in range(0, bias.size, _BLOCK):
        row = int64(0)
        for feature in range(start, min(start + _BLOCK, bias.size)):
            scores = tile.scores[row]
            correlate_tile(LANES, tile.tokens, columns.values, columns.rows, columns.starts, bias, feature, scores)
            mask = lanes_above(LANES, scores, tile.thresholds, signed)
            tile.masks[row], tile.passed[row] = mask, feature
            row += mask != 0
        _append_survivors(row, k, signed, tile)


@compiled
def _count_short(counts: Integers, k: int) -> int:
    """How many lanes found fewer than k candidates."""
    short = 0
    for lane in range(counts.size):
        short += counts[lane] < k
    return short


@compiled
def _find_candidates(columns: Columns, bias: Floats, k: int, signed: bool, used: int, tile: Tile) -> int:
    """Leave at least k candidates of the first `used` lanes, the best k among them; returns how many lanes have fewer.

    Those have sums that are not numbers or minus infinity.
    """
    _guess_thresholds(columns, bias, k, signed, tile)
    tile.thresholds[used:] = np.inf
    tile.counts[:] = 0
    _scan(columns, bias, k, signed, tile)
    if _count_short(tile.counts[:used], k) > 0:
        # A guess was not below the k-th best score: once more for those lanes, without a guess.
        for lane in range(used):
            short = tile.counts[lane] < k
            tile.thresholds[lane] = -np.inf if short else np.inf
            tile.counts[lane] = 0 if short else tile.counts[lane]
        _scan(columns, bias, k, signed, tile)
    return _count_short(tile.counts[:used], k)


@compiled
def _signed_score(x: Floats, columns: Columns, bias: Floats, feature: int) -> float:
    """One correlation with its sign, summed in the order of the definition."""
    return column_times(columns, feature, x) + bias[feature]


@compiled
def _write_best(
    x: Floats, columns: Columns, bias: Floats, signed: bool, tile: Tile, values: Floats, indices: Integers
) -> None:
    """Fill values and indices [tokens, k] with the best candidates of each of the tokens x in the tile."""
    k = values.shape[1]
    for lane in range(x.shape[0]):
        ranking, features = tile.ranking[lane], tile.indices[lane]
        keep_best(ranking, features, tile.counts[lane], k)
        first = sort_best(ranking, features, k)
        for rank in range(k):
            feature = features[first + rank]
            indices[lane, rank] = feature
            values[lane, rank] = _signed_score(x[lane], columns, bias, feature) if signed else ranking[first + rank]


@compiled
def _select_tokens(
    x: Floats, columns: Columns, bias: Floats, signed: bool, out: tuple[Floats, Integers], tile: Tile
) -> bool:
    """Fill the values and indices [batch, k] of `out`; returns whether every token has k features to choose."""
    values, indices = out
    k = values.shape[1]
    for first in range(0, x.shape[0], LANES):
        last = min(first + LANES, x.shape[0])
        fill_tile(x, first, last, tile.tokens)
        if _find_candidates(columns, bias, k, signed, last - first, tile) > 0:
            return False
        _write_best(x[first:last], columns, bias, signed, tile, values[first:last], indices[first:last])
    return True


def select(x: Tensor, values: Tensor, rows: Tensor, k: int, bias: Tensor, signed: bool) -> tuple[Tensor, Tensor]:
    """(values [batch, k], indices [batch, k]) like `reference.select`; shorter columns end with rows of -1."""
    tokens, shifts = x.to(bias.dtype).numpy(), bias.numpy()
    columns = columns_of(values.to(bias.dtype).numpy(), rows.numpy())
    out = np.empty((len(tokens), k), tokens.dtype), np.empty((len(tokens), k), np.int64)
    capacity = min(8 * k + LANES, bias.numel())

    def work(start: int, stop: int) -> None:
        tile = _make_tile(tokens.shape[1], capacity, k, tokens.dtype)
        part = out[0][start:stop], out[1][start:stop]
        if not _select_tokens(tokens[start:stop], columns, shifts, signed, part, tile):
            raise ExpanderError(f"Sums of x and values leave the range of {bias.dtype}; scale them down.")

    over_tiles(work, len(tokens), LANES)
    return torch.from_numpy(out[0]), torch.from_numpy(out[1])
