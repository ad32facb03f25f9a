"""Looking among groups of features on CPUs: each group is read once for all the tokens that look at it.

Tokens that look at a group are put side by side in small tiles, as `select` does with all tokens, so that one gathered
row serves all of a tile. Every token keeps its best k in order from the first group on; the last of them is what a
further feature must exceed.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import uint64

from expander_sae.kernels.cpu.columns import Columns, Flags, Floats, Integers, allocating, compiled, inlined
from expander_sae.kernels.cpu.numbers import lowest_bit
from expander_sae.kernels.cpu.tiles import aligned, fill_tile
from expander_sae.kernels.cpu.vectors import correlate_tile, lanes_above

LANES = 16
"""Tokens per tile: few, since few of a batch look at one group."""
CENTRES = 64
"""Centres per tile: as many as are compared at once, since every column is compared with all."""


class LaidOut(NamedTuple):
    """The columns of a dictionary, group after group."""

    columns: Columns
    bias: Floats
    """[n]"""
    features: Integers
    """[n] what number each has in the dictionary; they ascend in every group"""
    allowed: Flags
    """[n] which of them may be chosen"""
    edges: Integers
    """[groups + 1] the columns of group g are those from edges[g] to edges[g + 1]"""


class Visits(NamedTuple):
    """Which tokens look at which groups."""

    tokens: Integers
    """The tokens that look at group g are tokens[starts[g]:starts[g + 1]]; they ascend."""
    starts: Integers
    """[groups + 1]"""


class Best(NamedTuple):
    """The best features that tokens have found, best first, equal ones by lowest feature."""

    ranking: Floats
    """[tokens, k] the scores, without their signs if they are compared so"""
    features: Integers
    """[tokens, k] n where fewer than k were found"""


class Workplace(NamedTuple):
    """What a thread works with."""

    staged: Floats
    """[lanes, m] tokens that look at a group"""
    tile: Floats
    """[m, lanes] the same, transposed"""
    scores: Floats
    """[lanes]"""
    thresholds: Floats
    """[lanes] what a feature must exceed to be among a token's best"""


def make_workplace(x: Floats) -> Workplace:
    """A workplace for tokens like these."""
    lanes = aligned((LANES,), x.dtype), aligned((LANES,), x.dtype)
    return Workplace(np.zeros((LANES, x.shape[1]), x.dtype), aligned((x.shape[1], LANES), x.dtype), *lanes)


# Features are read in their own order: those of a group ascend, so that each group is written from its first column to
# its last, in lines that stay in the cache. Read in the order of the groups, nearly every column would be waited for.


@compiled
def lay_out(values: Floats, places: Integers, start: int, stop: int, columns: Columns) -> bool:
    """Write the values [n, d] of the features start to stop at their places; gives back whether all are finite."""
    finite = True
    for feature in range(start, stop):
        first = columns.starts[places[feature]]
        for slot in range(columns.starts[places[feature] + 1] - first):
            value = values[feature, slot]
            finite &= value - value == 0
            columns.values[first + slot] = value
    return finite


@compiled
def put(numbers: Floats | Flags, places: Integers, laid_out: Floats | Flags) -> None:
    """Write a number of every feature [n] at its place."""
    for feature in range(places.size):
        laid_out[places[feature]] = numbers[feature]


@allocating
def visits_of(ranked: Integers, edges: Integers, most: int) -> Visits:
    """Every token looks at group 0, and at those ranked for it, best first, as long as their features are at most
    `most` together."""
    batch, groups = ranked.shape[0], edges.size - 1
    taken = np.zeros(batch, np.int64)
    counts = np.zeros(groups + 1, np.int64)
    counts[1] = batch
    for token in range(batch):
        features = edges[1]
        for place in range(ranked.shape[1]):
            group = ranked[token, place] + 1
            features += edges[group + 1] - edges[group]
            if features > most:
                break
            taken[token] += 1
            counts[group + 1] += 1
    starts = np.cumsum(counts)
    filled = starts[:-1].copy()
    tokens = np.empty(starts[-1], np.int64)
    for token in range(batch):
        tokens[filled[0]] = token
        filled[0] += 1
        for place in range(taken[token]):
            group = ranked[token, place] + 1
            tokens[filled[group]] = token
            filled[group] += 1
    return Visits(tokens, starts)


@inlined
def _fill_tile(x: Floats, tokens: Integers, work: Workplace) -> None:
    """Transpose some tokens into the tile; unused lanes keep what they held, which nothing looks at."""
    for lane in range(tokens.size):
        token = tokens[lane]
        for row in range(x.shape[1]):  # numba copies a slice in four times the time
            work.staged[lane, row] = x[token, row]
    fill_tile(work.staged, 0, LANES, work.tile)


@inlined
def _insert(ranking: Floats, features: Integers, score: float, feature: int) -> None:
    """Put a feature in its place among a token's best, of which the last one leaves, unless it is no better."""
    place = ranking.size - 1
    if score == ranking[place] and feature > features[place]:
        return
    while place > 0 and (ranking[place - 1] < score or (ranking[place - 1] == score and features[place - 1] > feature)):
        ranking[place], features[place] = ranking[place - 1], features[place - 1]
        place -= 1
    ranking[place], features[place] = score, feature


@inlined
def _scan(
    laid_out: LaidOut, start: int, stop: int, tokens: Integers, signed: bool, best: Best, work: Workplace
) -> None:
    """Compare the columns from start to stop with the best of the tokens in the tile."""
    columns, last = laid_out.columns, best.ranking.shape[1] - 1
    lowest = best.ranking.dtype.type(-np.inf)
    work.thresholds[:] = np.inf
    for lane in range(tokens.size):  # one below, since a lower feature of equal score takes its place
        work.thresholds[lane] = np.nextafter(best.ranking[tokens[lane], last], lowest)
    for place in range(start, stop):
        if not laid_out.allowed[place]:
            continue
        correlate_tile(LANES, work.tile, columns, laid_out.bias, place, work.scores)
        mask = lanes_above(LANES, work.scores, work.thresholds, signed)
        while mask != 0:
            lane = lowest_bit(mask)
            mask &= mask - uint64(1)
            score, ranking = work.scores[lane], best.ranking[tokens[lane]]
            _insert(ranking, best.features[tokens[lane]], abs(score) if signed else score, laid_out.features[place])
            work.thresholds[lane] = np.nextafter(ranking[last], lowest)


@compiled
def look(x: Floats, laid_out: LaidOut, visits: Visits, signed: bool, best: Best, work: Workplace) -> None:
    """Leave in `best` the best features of every token x [tokens, m] among the groups it looks at."""
    best.ranking[:] = -np.inf
    best.features[:] = laid_out.bias.size
    for group in range(laid_out.edges.size - 1):
        for first in range(visits.starts[group], visits.starts[group + 1], LANES):
            tokens = visits.tokens[first : min(first + LANES, visits.starts[group + 1])]
            _fill_tile(x, tokens, work)
            _scan(laid_out, laid_out.edges[group], laid_out.edges[group + 1], tokens, signed, best, work)


@compiled
def scale(values: Floats, rows: Integers, spread: Floats, features: Integers, scaled: Floats) -> None:
    """scaled[j] = the values of features[j], each times the size of its coordinate; zero where there is no row."""
    for place in range(features.size):
        feature = features[place]
        for slot in range(values.shape[1]):
            row = rows[feature, slot]
            scaled[place, slot] = values[feature, slot] * spread[row] if row >= 0 else 0


@compiled
def nearest(
    columns: Columns,
    bias: Floats,
    tile: Floats,
    centres: int,
    first: int,
    start: int,
    best: Best,
    scores: Floats,
    thresholds: Floats,
) -> None:
    """Compare columns with the centres, from number `first` on, that lie in the lanes of the tile [m, 64].

    best.features[j] is which of all so far has the largest inner product with column start + j. `scores` and
    `thresholds` are room for the lanes.
    """
    there = ~uint64(0) if centres == CENTRES else (uint64(1) << uint64(centres)) - uint64(1)
    for feature in range(best.features.shape[0]):
        correlate_tile(CENTRES, tile, columns, bias, start + feature, scores)
        thresholds[:] = best.ranking[feature, 0]
        mask = lanes_above(CENTRES, scores, thresholds, False) & there
        while mask != 0:
            lane = lowest_bit(mask)
            mask &= mask - uint64(1)
            if scores[lane] > best.ranking[feature, 0]:
                best.ranking[feature, 0], best.features[feature, 0] = scores[lane], first + lane


@compiled
def add_columns(columns: Columns, chosen: Integers, weights: Floats, sums: Floats) -> None:
    """Add every column, times its weight, to the sum of its group in sums [groups, m]."""
    for feature in range(chosen.size):
        for entry in range(columns.starts[feature], columns.starts[feature + 1]):
            sums[chosen[feature], columns.rows[entry]] += weights[feature] * columns.values[entry]
