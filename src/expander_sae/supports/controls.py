"""Constructions that provably lose uniqueness: what an experiment compares a good support with."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from expander_sae.philox import Stream, bounded, permutation, word_pair
from expander_sae.supports.construction import Construction, Indices, Parameter, Request, Rows, SupportError
from expander_sae.supports.uniform import random_subsets


def _starts(m: int, parts: int) -> NDArray[np.int64]:
    """Shape [parts + 1]: where each of the parts of 0 .. m-1, as equal as possible, begins."""
    return np.arange(parts + 1, dtype=np.int64) * m // parts


@lru_cache(maxsize=16)
def _clustered_order(m: int, seed: int) -> NDArray[np.int64]:
    order = permutation(m, seed, Stream.CLUSTERED_ORDER)
    order.setflags(write=False)
    return order


def check_clustered(request: Request) -> None:
    """A cluster must have room for a feature and fit in m."""
    size = request.integer("cluster_size")
    if not request.d <= size <= request.m:
        raise SupportError(f"cluster_size must be between d = {request.d} and m = {request.m}, not {size}.")


def clustered_rows(request: Request, indices: Indices) -> Rows:
    """Each feature a uniform d-subset of one uniform cluster; clusters are parts of one random order of coordinates."""
    clusters = request.m // request.integer("cluster_size")
    starts = _starts(request.m, clusters)
    chosen = word_pair(request.seed, Stream.CLUSTERED_CHOICE, indices, 0)[0]
    cluster = bounded(chosen, np.uint64(clusters)).astype(np.int64)
    sizes = (starts[cluster + 1] - starts[cluster]).astype(np.uint64)
    inside = random_subsets(request, Stream.CLUSTERED_ROWS, indices, sizes)
    rows: Rows = _clustered_order(request.m, request.seed)[starts[cluster][:, None] + inside]
    return rows


def shared_rows(request: Request, indices: Indices) -> Rows:
    """Every feature the same uniform d-subset."""
    only = random_subsets(request, Stream.SHARED, np.zeros(1, dtype=np.uint64), request.m)
    return np.repeat(only, indices.size, axis=0)


def check_block(request: Request) -> None:
    """Every block must have room for a feature."""
    blocks = request.integer("blocks")
    if not 1 <= blocks <= request.m // request.d:
        raise SupportError(
            f"blocks must be between 1 and floor(m / d) = {request.m // request.d}, so that each holds d coordinates, "
            f"not {blocks}."
        )


def block_rows(request: Request, indices: Indices) -> Rows:
    """Coordinates and features are split evenly into blocks; each feature a uniform d-subset of its block."""
    blocks = request.integer("blocks")
    starts = _starts(request.m, blocks)
    block = indices.astype(np.int64) * blocks // request.n
    sizes = (starts[block + 1] - starts[block]).astype(np.uint64)
    return starts[block][:, None] + random_subsets(request, Stream.BLOCK, indices, sizes)


def banded_rows(request: Request, indices: Indices) -> Rows:
    """Feature j the d coordinates from floor(j m / n) on, around the end."""
    start = indices.astype(np.int64) * request.m // request.n
    return (start[:, None] + np.arange(request.d, dtype=np.int64)) % request.m


CLUSTERED = Construction(
    name="clustered",
    summary="control: every feature inside one of a few clusters of coordinates; spark at most cluster size + 1",
    rows_of=clustered_rows,
    check=check_clustered,
    parameters={"cluster_size": Parameter(64, "coordinates of a cluster; a few more where m is not a multiple")},
)
SHARED = Construction(
    name="shared",
    summary="control: all features on the same d coordinates; spark at most d + 1",
    rows_of=shared_rows,
)
BLOCK = Construction(
    name="block",
    summary="control: block-diagonal; spark at most the block's size + 1",
    rows_of=block_rows,
    check=check_block,
    parameters={"blocks": Parameter(8, "number of blocks on the diagonal")},
)
BANDED = Construction(
    name="banded",
    summary="control: contiguous windows, evenly spread; neighbours share nearly all",
    rows_of=banded_rows,
)
