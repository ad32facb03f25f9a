"""`select` on CPUs: tiles of tokens, one vector compare per feature, and candidates only where it says so.

A tile of tokens is transposed to [m, lanes], so one gathered row serves all of its tokens with contiguous loads. Each
token has a running threshold that never exceeds its k-th best score; a feature whose scores are all below it costs one
compare for the whole tile. What passes goes to the token's candidate list, which is cut back to the best k whenever it
is full, and that raises the threshold.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import uint64

from expander_sae.kernels.cpu_columns import Columns, column_times, columns_of
from expander_sae.kernels.cpu_ranking import keep_best, sort_best
from expander_sae.kernels.cpu_vectors import correlate_tile, lanes_above, lowest_bit, raise_maxima
from expander_sae.kernels.threads import over_tiles

LANES = 64
"""Tokens per tile: what the bit mask of a compare can hold."""

_PROBE_GROUPS = 8
_PROBE_QUANTILE = 2
_PROBES_PER_RANK = 0.23
"""Probed features per group, times k / n; from F**g = 0.31, the median of the third smallest of eight maxima."""


def aligned(shape: tuple[int, ...], dtype: Any) -> Any:
    """An uninitialised array that starts on a cache line; vector loads that straddle two lines take twice as long."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.empty(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size].view(dtype).reshape(shape)


@numba.njit(cache=True, nogil=True)
def fill_tile(x: Any, start: int, stop: int, tile: Any) -> None:
    """Copy tokens start..stop of x [batch, m] into the columns of tile [m, lanes]; unused lanes become zero."""
    tokens = stop - start
    for token in range(tokens):
        for coordinate in range(x.shape[1]):
            tile[coordinate, token] = x[start + token, coordinate]
    if tokens < tile.shape[1]:
        tile[:, tokens:] = 0


@numba.njit(cache=True, nogil=True)
def _low_quantile(maxima: Any, lane: int) -> float:
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


@numba.njit(cache=True, nogil=True)
def _guess_thresholds(tile: Any, columns: Columns, bias: Any, k: int, signed: bool, room: Any) -> None:
    """Leave in thresholds, for every lane, a score that about 5k of all features exceed, or -inf if n is too small.

    Features spread over the dictionary are probed in eight groups. A group's maximum is a draw of a high quantile, and
    the third smallest of eight draws is seldom far off, whatever the scores are distributed like.
    """
    scores, thresholds, maxima = room[0], room[1], room[2:]
    groups, features = maxima.shape[0], bias.size
    per_group = int(_PROBES_PER_RANK * features / k)
    if per_group < 2:
        thresholds[:] = -np.inf
        return
    maxima[:] = -np.inf
    stride = features // (groups * per_group)
    for probe in range(groups * per_group):
        correlate_tile(LANES, tile, columns.values, columns.rows, columns.starts, bias, probe * stride, scores)
        raise_maxima(LANES, scores, 0, maxima[probe % groups], signed)
    for lane in range(LANES):
        thresholds[lane] = _low_quantile(maxima, lane)


@numba.njit(cache=True, nogil=True)
def _scan(
    tile: Any, columns: Columns, bias: Any, k: int, signed: bool, room: Any, candidates: Any, counts: Any
) -> None:
    """Collect every lane's candidates: all features above its threshold, cut back to the best k when the list fills."""
    scores, thresholds = room[0], room[1]
    ranking, indices = candidates
    capacity = indices.shape[1]
    for feature in range(bias.size):
        correlate_tile(LANES, tile, columns.values, columns.rows, columns.starts, bias, feature, scores)
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


@numba.njit(cache=True, nogil=True)
def _any_short(counts: Any, k: int) -> bool:
    """Whether some lane found fewer than k candidates."""
    short = False
    for lane in range(counts.size):
        short |= counts[lane] < k
    return short


@numba.njit(cache=True, nogil=True)
def _best_of_tile(
    tile: Any, columns: Columns, bias: Any, k: int, signed: bool, room: Any, candidates: Any, counts: Any
) -> None:
    """Leave every lane's best k features, sorted, in the first k places of its candidate list."""
    thresholds = room[1]
    _guess_thresholds(tile, columns, bias, k, signed, room)
    counts[:] = 0
    _scan(tile, columns, bias, k, signed, room, candidates, counts)
    if _any_short(counts, k):
        # A guess was above the k-th best score: once more for those lanes, without a guess.
        for lane in range(LANES):
            short = counts[lane] < k
            thresholds[lane] = -np.inf if short else np.inf
            counts[lane] = 0 if short else counts[lane]
        _scan(tile, columns, bias, k, signed, room, candidates, counts)
    ranking, indices = candidates
    for lane in range(LANES):
        keep_best(ranking[lane], indices[lane], counts[lane], k)
        sort_best(ranking[lane], indices[lane], k)


@numba.njit(cache=True, nogil=True)
def _signed_score(x: Any, columns: Columns, bias: Any, feature: int) -> float:
    """One correlation with its sign, summed in the order of the definition."""
    return column_times(columns, feature, x) + bias[feature]


@numba.njit(cache=True, nogil=True)
def _select_tokens(
    x: Any,
    columns: Columns,
    bias: Any,
    signed: bool,
    span: tuple[int, int],
    out: Any,
    tile: Any,
    room: Any,
    candidates: Any,
) -> None:
    """Fill the values and indices [batch, k] of `out` for the tokens of `span`."""
    out_values, out_indices = out
    ranking, indices = candidates
    counts = np.empty(LANES, np.int64)
    k = out_values.shape[1]
    for first in range(span[0], span[1], LANES):
        last = min(first + LANES, span[1])
        fill_tile(x, first, last, tile)
        _best_of_tile(tile, columns, bias, k, signed, room, candidates, counts)
        for token in range(first, last):
            for rank in range(k):
                feature = indices[token - first, rank]
                out_indices[token, rank] = feature
                if signed:
                    out_values[token, rank] = _signed_score(x[token], columns, bias, feature)
                else:
                    out_values[token, rank] = ranking[token - first, rank]


def select(x: Any, values: Any, rows: Any, k: int, bias: Any, signed: bool) -> tuple[Any, Any]:
    """(values [batch, k], indices [batch, k]) as numpy arrays, from contiguous numpy arrays of one float type."""
    tokens, width = x.shape
    out = np.empty((tokens, k), x.dtype), np.empty((tokens, k), np.int64)
    columns = columns_of(values, rows)
    capacity = min(8 * k + LANES, bias.size)

    def work(start: int, stop: int) -> None:
        tile, room = aligned((width, LANES), x.dtype), aligned((2 + _PROBE_GROUPS, LANES), x.dtype)
        candidates = np.empty((LANES, capacity), x.dtype), np.empty((LANES, capacity), np.int32)
        _select_tokens(x, columns, bias, signed, (start, stop), out, tile, room, candidates)

    over_tiles(work, tokens, LANES)
    return out
