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
from numba import uint64
from numpy.typing import DTypeLike
from torch import Tensor

from expander_sae.kernels.cpu.columns import Columns, Floats, Integers, column_times, columns_of, compiled
from expander_sae.kernels.cpu.vectors import correlate_tile, lanes_above, lowest_bit, raise_maxima
from expander_sae.kernels.threads import over_tiles

LANES = 64
"""Tokens per tile: what the bit mask of a compare can hold."""

_PROBE_GROUPS = 8
_PROBE_QUANTILE = 2
_PROBES_PER_RANK = 0.23
"""Probed features per group, times k / n; from F**g = 0.31, the median of the third smallest of eight maxima."""


class Tile(NamedTuple):
    """A tile of tokens in work, and what is known of the best features of each."""

    tokens: Floats
    """[m, lanes]"""
    scores: Floats
    """[lanes] correlations with one feature"""
    thresholds: Floats
    """[lanes] what a feature must exceed to be a candidate"""
    maxima: Floats
    """[groups, lanes] the best of each group of probed features"""
    ranking: Floats
    """[lanes, capacity] the candidates' scores, without their signs if they are compared so"""
    indices: Integers
    """[lanes, capacity] the candidates"""
    counts: Integers
    """[lanes] how many there are"""


def aligned(shape: tuple[int, ...], dtype: DTypeLike) -> Floats:
    """An uninitialised array that starts on a cache line; vector loads that straddle two lines take twice as long."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.empty(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size].view(dtype).reshape(shape)


def _make_tile(width: int, capacity: int, dtype: DTypeLike) -> Tile:
    """A tile for tokens of some width, with room for so many candidates of each."""
    shapes = (width, LANES), (LANES,), (LANES,), (_PROBE_GROUPS, LANES)
    tokens, scores, thresholds, maxima = (aligned(shape, dtype) for shape in shapes)
    ranking, indices = np.empty((LANES, capacity), dtype), np.empty((LANES, capacity), np.int32)
    return Tile(tokens, scores, thresholds, maxima, ranking, indices, np.empty(LANES, np.int64))


# A candidate is a score and a feature in two parallel arrays. Scores descend; equal scores rank the lower feature
# first, so that no order of arrival can change a result.


@compiled
def ranks_before(score: float, index: int, other_score: float, other_index: int) -> bool:
    """Whether the first candidate comes before the second."""
    return score > other_score or (score == other_score and index < other_index)


@compiled
def _median_of_three(scores: Floats, indices: Integers, low: int, high: int) -> tuple[float, int]:
    """A pivot between low and high (exclusive) that sorted or constant input does not spoil."""
    first, middle, last = low, (low + high) // 2, high - 1
    if ranks_before(scores[middle], indices[middle], scores[first], indices[first]):
        first, middle = middle, first
    if ranks_before(scores[last], indices[last], scores[middle], indices[middle]):
        middle = last
        if ranks_before(scores[last], indices[last], scores[first], indices[first]):
            middle = first
    return scores[middle], indices[middle]


@compiled
def keep_best(scores: Floats, indices: Integers, count: int, k: int) -> float:
    """Move the best k of the first `count` candidates to the front, in any order; returns the worst score among them.

    Quickselect: about 3 * count comparisons on average.
    """
    low, high = 0, count
    while high - low > 1:
        pivot_score, pivot_index = _median_of_three(scores, indices, low, high)
        left, right = low, high - 1
        while left <= right:
            while ranks_before(scores[left], indices[left], pivot_score, pivot_index):
                left += 1
            while ranks_before(pivot_score, pivot_index, scores[right], indices[right]):
                right -= 1
            if left <= right:
                scores[left], scores[right] = scores[right], scores[left]
                indices[left], indices[right] = indices[right], indices[left]
                left += 1
                right -= 1
        if k <= right:
            high = right + 1
        elif k >= left:
            low = left
        else:
            break
    worst = scores[0]
    for position in range(1, k):
        worst = min(worst, scores[position])
    return worst


@compiled
def sort_best(scores: Floats, indices: Integers, k: int) -> None:
    """Sort the first k candidates in place, best first (shell sort: k is small and nothing is allocated)."""
    gap = 1
    while gap < k // 3:
        gap = 3 * gap + 1
    while gap > 0:
        for position in range(gap, k):
            score, index = scores[position], indices[position]
            place = position
            while place >= gap and ranks_before(score, index, scores[place - gap], indices[place - gap]):
                scores[place], indices[place] = scores[place - gap], indices[place - gap]
                place -= gap
            scores[place], indices[place] = score, index
        gap //= 3


@compiled
def fill_tile(x: Floats, start: int, stop: int, tile: Floats) -> None:
    """Copy tokens start..stop of x [batch, m] into the columns of tile [m, lanes]; unused lanes become zero."""
    tokens = stop - start
    for token in range(tokens):
        for coordinate in range(x.shape[1]):
            tile[coordinate, token] = x[start + token, coordinate]
    if tokens < tile.shape[1]:
        tile[:, tokens:] = 0


@compiled
def _low_quantile(maxima: Floats, lane: int) -> float:
    """The third smallest of a lane's group maxima; overwrites the two below it."""
    threshold = maxima[0, lane]
    for _ in range(_PROBE_QUANTILE + 1):
        smallest = 0
        for group in range(1, maxima.shape[0]):
            if maxima[group, lane] < maxima[smallest, lane]:
                smallest = group
        threshold = maxima[smallest, lane]
        maxima[smallest, lane] = np.inf
    return threshold


@compiled
def _guess_thresholds(columns: Columns, bias: Floats, k: int, signed: bool, tile: Tile) -> None:
    """Leave in thresholds, for every lane, a score that about 5k of all features exceed, or -inf if n is too small.

    Features spread over the dictionary are probed in eight groups. A group's maximum is a draw of a high quantile, and
    the third smallest of eight draws is seldom far off, whatever the scores are distributed like.
    """
    groups, features = tile.maxima.shape[0], bias.size
    per_group = int(_PROBES_PER_RANK * features / k)
    if per_group < 2:
        tile.thresholds[:] = -np.inf
        return
    tile.maxima[:] = -np.inf
    stride = features // (groups * per_group)
    for probe in range(groups * per_group):
        feature = probe * stride
        correlate_tile(LANES, tile.tokens, columns.values, columns.rows, columns.starts, bias, feature, tile.scores)
        raise_maxima(LANES, tile.scores, 0, tile.maxima[probe % groups], signed)
    for lane in range(LANES):
        tile.thresholds[lane] = _low_quantile(tile.maxima, lane)


@compiled
def _scan(columns: Columns, bias: Floats, k: int, signed: bool, tile: Tile) -> None:
    """Collect every lane's candidates: all features above its threshold, cut back to the best k when the list fills."""
    scores, thresholds, ranking, indices, counts = tile.scores, tile.thresholds, tile.ranking, tile.indices, tile.counts
    capacity = indices.shape[1]
    for feature in range(bias.size):
        correlate_tile(LANES, tile.tokens, columns.values, columns.rows, columns.starts, bias, feature, scores)
        mask = lanes_above(LANES, scores, thresholds, signed)
        while mask != 0:
            lane = lowest_bit(mask)
            mask &= mask - uint64(1)
            count = counts[lane]
            ranking[lane, count] = abs(scores[lane]) if signed else scores[lane]
            indices[lane, count] = feature
            count += 1
            if count == capacity:
                thresholds[lane] = keep_best(ranking[lane], indices[lane], count, k)
                count = k
            counts[lane] = count


@compiled
def _any_short(counts: Integers, k: int) -> bool:
    """Whether some lane found fewer than k candidates."""
    short = False
    for lane in range(counts.size):
        short |= counts[lane] < k
    return short


@compiled
def _best_of_tile(columns: Columns, bias: Floats, k: int, signed: bool, tile: Tile) -> None:
    """Leave every lane's best k features, sorted, in the first k places of its candidate list."""
    _guess_thresholds(columns, bias, k, signed, tile)
    tile.counts[:] = 0
    _scan(columns, bias, k, signed, tile)
    if _any_short(tile.counts, k):
        # A guess was above the k-th best score: once more for those lanes, without a guess.
        for lane in range(LANES):
            short = tile.counts[lane] < k
            tile.thresholds[lane] = -np.inf if short else np.inf
            tile.counts[lane] = 0 if short else tile.counts[lane]
        _scan(columns, bias, k, signed, tile)
    for lane in range(LANES):
        keep_best(tile.ranking[lane], tile.indices[lane], tile.counts[lane], k)
        sort_best(tile.ranking[lane], tile.indices[lane], k)


@compiled
def _signed_score(x: Floats, columns: Columns, bias: Floats, feature: int) -> float:
    """One correlation with its sign, summed in the order of the definition."""
    return column_times(columns, feature, x) + bias[feature]


@compiled
def _select_tokens(
    x: Floats,
    columns: Columns,
    bias: Floats,
    signed: bool,
    span: tuple[int, int],
    out: tuple[Floats, Integers],
    tile: Tile,
) -> None:
    """Fill the values and indices [batch, k] of `out` for the tokens of `span`."""
    out_values, out_indices = out
    k = out_values.shape[1]
    for first in range(span[0], span[1], LANES):
        last = min(first + LANES, span[1])
        fill_tile(x, first, last, tile.tokens)
        _best_of_tile(columns, bias, k, signed, tile)
        for token in range(first, last):
            for rank in range(k):
                feature = tile.indices[token - first, rank]
                out_indices[token, rank] = feature
                if signed:
                    out_values[token, rank] = _signed_score(x[token], columns, bias, feature)
                else:
                    out_values[token, rank] = tile.ranking[token - first, rank]


def select(x: Tensor, values: Tensor, rows: Tensor, k: int, bias: Tensor, signed: bool) -> tuple[Tensor, Tensor]:
    """(values [batch, k], indices [batch, k]) like `reference.select`; shorter columns end with rows of -1."""
    tokens, shifts = x.to(bias.dtype).numpy(), bias.numpy()
    columns = columns_of(values.to(bias.dtype).numpy(), rows.numpy())
    out = np.empty((len(tokens), k), tokens.dtype), np.empty((len(tokens), k), np.int64)
    capacity = min(8 * k + LANES, bias.numel())

    def work(start: int, stop: int) -> None:
        tile = _make_tile(tokens.shape[1], capacity, tokens.dtype)
        _select_tokens(tokens, columns, shifts, signed, (start, stop), out, tile)

    over_tiles(work, len(tokens), LANES)
    return torch.from_numpy(out[0]), torch.from_numpy(out[1])
