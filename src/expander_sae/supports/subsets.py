"""Uniformly random d-subsets, one per feature, by Floyd's algorithm."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from expander_sae.philox import Stream, bounded, word_pair
from expander_sae.supports.construction import Indices, Request, Rows


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
