"""The two constructions with proved uniqueness certificates: iid uniform subsets, and one uniform row per group."""

from __future__ import annotations

import numpy as np

from expander_sae.philox import Stream, bounded, word_pair
from expander_sae.supports.construction import Construction, Indices, Request, Rows
from expander_sae.supports.subsets import random_subsets


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
