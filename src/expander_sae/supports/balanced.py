"""Random supports in which every coordinate has the same number of features, give or take one."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from expander_sae.philox import Stream, compiled_bounded, compiled_word, permutation, shuffle
from expander_sae.supports.construction import Construction, Request, Rows


def balanced_rows(request: Request) -> Rows:
    """Shape [n, d], by stub matching and repair; above d = m/2 the complement of such a support."""
    m, n, d = request.m, request.n, request.d
    if 2 * d <= m:
        return _matched_rows(m, n, d, request.seed)
    touched = np.ones((n, m), dtype=np.bool_)
    np.put_along_axis(touched, _matched_rows(m, n, m - d, request.seed), False, axis=1)
    return np.nonzero(touched)[1].reshape(n, d)


def _matched_rows(m: int, n: int, d: int, seed: int) -> Rows:
    """Every coordinate in as many copies as its degree, shuffled, dealt out d to a feature, repeats swapped away."""
    degrees = np.full(m, n * d // m, dtype=np.int64)
    degrees[permutation(m, seed, Stream.BALANCED_EXTRAS)[: n * d % m]] += 1
    stubs = np.repeat(np.arange(m, dtype=np.int64), degrees)
    shuffle(stubs, np.uint64(seed), int(Stream.BALANCED_SHUFFLE))
    rows = stubs.reshape(n, d)
    _swap_repeats_away(rows, np.uint64(seed), int(Stream.BALANCED_REPAIR))
    return rows


@numba.njit(cache=True)
def _holds(line: NDArray[np.int64], coordinate: int, stop: int) -> bool:
    """Whether the coordinate is among the first `stop` entries."""
    return bool(np.any(line[:stop] == coordinate))


@numba.njit(cache=True)
def _swap_repeats_away(rows: NDArray[np.int64], seed: np.uint64, stream: int) -> None:
    """Swap each repeated entry with a random one that repeats in neither feature.

    Such a partner always exists when 2 d <= m: let F = floor(n d / m). The repeated coordinate has at most F + 1
    copies, two of them here, so at most F d entries are in features that hold it; and the more than d coordinates
    missing here have at least F copies each, more than F d entries in all. No swap makes a new repeat: one pass is
    enough.
    """
    n, d = rows.shape
    draws = 0
    for feature in range(n):
        for slot in range(1, d):
            while _holds(rows[feature], rows[feature, slot], slot):
                other = compiled_bounded(compiled_word(seed, stream, draws), np.uint64(n))
                other_slot = compiled_bounded(compiled_word(seed, stream, draws + 1), np.uint64(d))
                draws += 2
                mine, theirs = rows[feature, slot], rows[other, other_slot]
                if not _holds(rows[feature], theirs, d) and not _holds(rows[other], mine, d):
                    rows[feature, slot], rows[other, other_slot] = theirs, mine


BALANCED = Construction(
    name="balanced",
    summary="random, with the same number of features (give or take one) at every coordinate",
    all_rows=balanced_rows,
)
