"""Uniformly random subsets, and the two constructions of them that have proved uniqueness certificates."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from expander_sae.philox import Stream, bounded, word_pair
from expander_sae.supports.construction import Construction, Indices, Request, Rows


def random_subsets(request: Request, stream: Stream, indices: Indices, sizes: NDArray[np.uint64] | int) -> Rows:
    """Shape [len(indices), d]: for each feature a uniform d-subset of 0 .. size-1, where `sizes` may differ by feature.

    Floyd: draw number i is uniform on 0 .. size-d+i; a value met before is replaced by size-d+i, which cannot be there.
    """
    d = request.d
    first_bounds = np.asarray(sizes, dtype=np.uint64) - np.uint64(d - 1)
    # Draws are the slow axis while filling: every step reads and writes whole lines.
    chosen = np.empty((d, indices.size), dtype=np.int64)
    pair: tuple[NDArray[np.uint64], NDArray[np.uint64]]
    for draw in range(d):
        if draw % 2 == 0:
            pair = word_pair(request.seed, stream, indices, draw // 2)
        bounds = first_bounds + np.uint64(draw)
        values = bounded(pair[draw % 2], bounds).astype(np.int64)
        seen = (chosen[:draw] == values).any(axis=0)
        chosen[draw] = np.where(seen, (bounds - np.uint64(1)).astype(np.int64), values)
    return chosen.T


def uniform_rows(request: Request, indices: Indices) -> Rows:
    """Each feature an independent uniform d-subset of the m coordinates."""
    return random_subsets(request, Stream.UNIFORM, indices, request.m)


def partitioned_rows(request: Request, indices: Indices) -> Rows:
    """Each feature one uniform coordinate from each of d contiguous groups, as equal as possible."""
    starts = np.arange(request.d + 1, dtype=np.int64) * request.m // request.d
    rows = np.empty((indices.size, request.d), dtype=np.int64)
    for group in range(request.d):
        if group % 2 == 0:
            pair = word_pair(request.seed, Stream.PARTITIONED, indices, group // 2)
        size = np.uint64(starts[group + 1] - starts[group])
        rows[:, group] = starts[group] + bounded(pair[group % 2], size).astype(np.int64)
    return rows


UNIFORM = Construction(
    name="uniform",
    summary="independent uniform d-subsets; has the proved uniqueness certificate",
    rows_of=uniform_rows,
)
PARTITIONED = Construction(
    name="partitioned",
    summary="one uniform coordinate from each of d equal groups of neighbours; has an exact certificate",
    rows_of=partitioned_rows,
)
