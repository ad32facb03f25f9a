"""Which of two features ranks higher, and cutting a list of candidates back to the best k.

A candidate is a score and a feature index in two parallel arrays. Scores descend; equal scores rank the lower index
first, so that no order of arrival can change a result.
"""

from __future__ import annotations

from typing import Any

import numba


@numba.njit(cache=True, nogil=True)
def ranks_before(score: float, index: int, other_score: float, other_index: int) -> bool:
    """Whether the first candidate comes before the second."""
    return score > other_score or (score == other_score and index < other_index)


@numba.njit(cache=True, nogil=True)
def _median_of_three(scores: Any, indices: Any, low: int, high: int) -> tuple[float, int]:
    """A pivot between low and high (exclusive) that sorted or constant input does not spoil."""
    first, middle, last = low, (low + high) // 2, high - 1
    if ranks_before(scores[middle], indices[middle], scores[first], indices[first]):
        first, middle = middle, first
    if ranks_before(scores[last], indices[last], scores[middle], indices[middle]):
        middle = last
        if ranks_before(scores[last], indices[last], scores[first], indices[first]):
            middle = first
    return scores[middle], indices[middle]


@numba.njit(cache=True, nogil=True)
def keep_best(scores: Any, indices: Any, count: int, k: int) -> float:
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


@numba.njit(cache=True, nogil=True)
def sort_best(scores: Any, indices: Any, k: int) -> None:
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
