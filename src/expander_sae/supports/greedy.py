"""Supports of overlap at most one, built feature by feature from the least used coordinates."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from expander_sae.philox import Stream, compiled_bounded, compiled_word
from expander_sae.supports.construction import Construction, Request, Rows, SupportError

_ATTEMPTS = 64
"""How often a feature is begun anew before the search counts as stalled."""


def packing_bound(m: int, d: int) -> int:
    """The most features of degree d >= 2 that can pairwise share at most one of m coordinates (Johnson)."""
    return m * ((m - 1) // (d - 1)) // d


def check(request: Request) -> None:
    """Refuse more features than the packing bound."""
    m, n, d = request.m, request.n, request.d
    if d > 1 and n > packing_bound(m, d):
        raise SupportError(
            f"No support with overlap at most 1 has {n} features at m = {m}, d = {d}: "
            f"the packing bound floor(m/d * floor((m-1)/(d-1))) is {packing_bound(m, d)}."
        )


def greedy_rows(request: Request) -> Rows:
    """Shape [n, d]; an error says how many features were reached when the search stalls."""
    m, n, d = request.m, request.n, request.d
    rows: Rows
    rows, reached = _build(m, n, d, np.uint64(request.seed), int(Stream.GREEDY))
    if reached < n:
        raise SupportError(
            f"Construction 'greedy' stalled after {reached} of {n} features at m = {m}, d = {d} "
            f"(the packing bound floor(m/d * floor((m-1)/(d-1))) is {packing_bound(m, d)}); "
            f"ask for fewer, or for 'lines', which may hold more."
        )
    return rows


@numba.njit(cache=True)
def _choose(degrees: NDArray[np.int64], closed: NDArray[np.int64], attempt: int, least: bool, word: np.uint64) -> int:
    """A random coordinate not closed to this attempt, among the least used if asked; -1 if none is left."""
    lowest, count = np.int64(1 << 62), np.int64(0)
    for coordinate in range(degrees.size):
        if closed[coordinate] != attempt:
            level = degrees[coordinate] if least else np.int64(0)
            if level < lowest:
                lowest, count = level, np.int64(1)
            elif level == lowest:
                count += 1
    if count == 0:
        return -1
    remaining = np.int64(compiled_bounded(word, np.uint64(count)))
    for coordinate in range(degrees.size):
        if closed[coordinate] != attempt and (not least or degrees[coordinate] == lowest):
            if remaining == 0:
                return coordinate
            remaining -= 1
    return -1


@numba.njit(cache=True)
def _close_neighbours(
    coordinate: int,
    rows: NDArray[np.int64],
    heads: NDArray[np.int64],
    links: NDArray[np.int64],
    closed: NDArray[np.int64],
    attempt: int,
) -> None:
    """Close the coordinate, and all that share a feature with it: taking one of those would make an overlap of two."""
    closed[coordinate] = attempt
    entry = heads[coordinate]
    while entry >= 0:
        for neighbour in rows[entry // rows.shape[1]]:
            closed[neighbour] = attempt
        entry = links[entry]


@numba.njit(cache=True)
def _build(m: int, n: int, d: int, seed: np.uint64, stream: int) -> tuple[NDArray[np.int64], int]:
    """Rows and the number of features placed; a coordinate's features are a linked list of entries f * d + slot."""
    rows = np.zeros((n, d), dtype=np.int64)
    heads = np.full(m, -1, dtype=np.int64)
    links = np.full(n * d, -1, dtype=np.int64)
    degrees = np.zeros(m, dtype=np.int64)
    closed = np.zeros(m, dtype=np.int64)
    attempt, draws = 0, 0
    for feature in range(n):
        placed = 0
        for trial in range(_ATTEMPTS):
            attempt += 1
            placed = 0
            # The least used coordinates give balance; where they have become a dead end, any coordinate may.
            least = trial < _ATTEMPTS // 2
            while placed < d:
                coordinate = _choose(degrees, closed, attempt, least, compiled_word(seed, stream, draws))
                draws += 1
                if coordinate < 0:
                    break
                rows[feature, placed] = coordinate
                placed += 1
                _close_neighbours(coordinate, rows, heads, links, closed, attempt)
            if placed == d:
                break
        if placed < d:
            return rows, feature
        for slot in range(d):
            coordinate = rows[feature, slot]
            entry = feature * d + slot
            links[entry] = heads[coordinate]
            heads[coordinate] = entry
            degrees[coordinate] += 1
    return rows, n


GREEDY = Construction(
    name="greedy",
    summary="overlap at most 1 from the least used coordinates; the best measured expansion",
    all_rows=greedy_rows,
    check=check,
)
