"""The best of a list of scores, found and sorted by counting.

To compare 64 scores with a number and count the bits takes a few instructions and no branch, less than one wrongly
guessed branch of a quicksort, which guesses at every comparison. A list is two arrays, of scores and of the features
they belong to; features ascend, so that of equal scores the first is the lowest feature. Scores exceed the least number
of their type, and none is a negative zero. Both arrays are as long as `list_length` says, since whole vectors of them
are read.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import int64, uint64

from expander_sae.kernels.cpu.columns import Floats, Integers, compiled, inlined
from expander_sae.kernels.cpu.numbers import count_bits, extreme_of, halfway, lowest_bit
from expander_sae.kernels.cpu.vectors import places_above, places_equal

Score = np.number[Any]
WIDTH = 64
"""Scores compared at a time: what the bits of a mask can tell of."""


def list_length(capacity: int, k: int) -> int:
    """How long the arrays of a list of so many scores must be for its best k, or up to 64, to be sorted."""
    return -(-max(capacity, 2 * k, 2 * WIDTH) // WIDTH) * WIDTH


@inlined
def _lowest_bits(count: int) -> int:
    """A mask of the first `count` of 64 places."""
    return ~uint64(0) if count >= WIDTH else (uint64(1) << uint64(count)) - uint64(1)


@inlined
def count_above(scores: Floats, count: int, bound: float) -> int:
    """How many of the first `count` scores exceed the bound."""
    total = int64(0)
    for start in range(0, count, WIDTH):
        total += count_bits(places_above(WIDTH, scores, start, bound) & _lowest_bits(count - start))
    return total


@inlined
def _bound_of_best(scores: Floats, count: int, k: int) -> tuple[Score, int]:
    """A number that at most k of count >= k scores exceed, and how many of those equal to it complete the k."""
    low, high = extreme_of(scores, -1), extreme_of(scores, 1)
    if count == k:
        return low, int64(0)
    above_high = int64(0)
    while True:
        middle = halfway(low, high)
        if middle == low:  # no number lies between the two
            return high, k - above_high
        above = count_above(scores, count, middle)
        if above == k:
            return middle, int64(0)
        if above > k:
            low = middle
        else:
            high, above_high = middle, above


@inlined
def _lowered(bound: Score, margin: int, scores: Floats) -> Score:
    """A bound less a margin, or the least there is."""
    least = extreme_of(scores, -1)
    return scores.dtype.type(bound - margin) if bound > least + margin else least


@compiled
def keep_best(scores: Floats, features: Integers, count: int, k: int, margin: int) -> tuple[Score, int]:
    """Move the best k of the first `count` scores to the front, in their order, and all less than a margin below them.

    Gives back a number that none of these is below and all the others are at most, and how many these are. Without a
    margin they are k, the first of equal ones.
    """
    bound, equal = _bound_of_best(scores, count, k)
    if margin > 0:
        bound, equal = _lowered(bound, margin, scores), int64(0)
    kept = int64(0)
    for start in range(0, count, WIDTH):
        present = _lowest_bits(count - start)
        keep = places_above(WIDTH, scores, start, bound) & present
        if equal > 0:
            ties = places_equal(WIDTH, scores, start, bound) & present
            while equal > 0 and ties != 0:
                keep |= ties & (~ties + uint64(1))
                ties &= ties - uint64(1)
                equal -= 1
        for _ in range(count_bits(keep)):
            place = start + lowest_bit(keep)
            keep &= keep - uint64(1)
            scores[kept], features[kept] = scores[place], features[place]
            kept += 1
    return bound, kept


@inlined
def _sort_run(scores: Floats, features: Integers, start: int, size: int, to: int) -> None:
    """Write at most 64 scores from `start` on, best first, to places from `to` on."""
    present, taken = _lowest_bits(size), uint64(0)
    for place in range(start, start + size):
        score = scores[place]
        rank = count_bits(places_above(WIDTH, scores, start, score) & present)
        while taken >> uint64(rank) & uint64(1):  # by an equal score that comes first
            rank += 1
        taken |= uint64(1) << uint64(rank)
        scores[to + rank], features[to + rank] = score, features[place]


@inlined
def _merge(scores: Floats, features: Integers, start: int, middle: int, stop: int, to: int) -> None:
    """Write two sorted runs, start..middle and middle..stop, as one to places from `to` on."""
    one, other = start, middle
    for place in range(to, to + stop - start):
        first = one < middle and (other >= stop or scores[one] >= scores[other])
        source = one if first else other
        scores[place], features[place] = scores[source], features[source]
        one += first
        other += not first


@compiled
def sort_best(scores: Floats, features: Integers, k: int) -> int:
    """Sort the first k scores, best first; gives back the place where they are then, 0 or k."""
    for start in range(0, k, WIDTH):
        _sort_run(scores, features, start, min(WIDTH, k - start), k + start)
    at, size = int64(k), int64(WIDTH)
    while size < k:
        for start in range(0, k, 2 * size):
            middle, stop = min(start + size, k), min(start + 2 * size, k)
            _merge(scores, features, at + start, at + middle, at + stop, k - at + start)
        at, size = k - at, 2 * size
    return at
