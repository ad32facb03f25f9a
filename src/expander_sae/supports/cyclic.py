"""Quasi-cyclic supports: a few base blocks and all their shifts, so that a gather is a roll; overlap at most one.

Feature j has block j // m and shift j % m; its rows are order[(block + shift) % m], `order` one random permutation.
"""

from __future__ import annotations

from functools import lru_cache

import numba
import numpy as np
from numpy.typing import NDArray

from expander_sae.philox import Stream, compiled_bounded, compiled_word, permutation
from expander_sae.supports.construction import Construction, Indices, Request, Rows, SupportError

_RESTARTS = 16
_ATTEMPTS = 64
"""Tries for one block before the search starts over without any."""


def most_blocks(m: int, d: int) -> int:
    """How many blocks at most have different differences: d (d-1) each of the m-1, without the self-opposite m/2."""
    return (m - 2 + m % 2) // (d * (d - 1))


@lru_cache(maxsize=16)
def base_blocks(m: int, count: int, d: int, seed: int) -> NDArray[np.int64]:
    """Blocks [count or fewer, d] whose differences modulo m are all different; as many as the search found."""
    blocks: NDArray[np.int64] = _search(m, count, d, np.uint64(seed), int(Stream.CYCLIC_BLOCKS))
    blocks.setflags(write=False)
    return blocks


@lru_cache(maxsize=16)
def coordinate_order(m: int, seed: int) -> NDArray[np.int64]:
    """The permutation [m] from cyclic positions to coordinates."""
    order = permutation(m, seed, Stream.CYCLIC_ORDER)
    order.setflags(write=False)
    return order


def check(request: Request) -> None:
    """Refuse more blocks than there are differences for, and those that the search does not find."""
    m, d = request.m, request.d
    blocks = -(-request.n // m)
    if d > 1 and blocks > most_blocks(m, d):
        raise SupportError(
            f"Construction 'cyclic' has at most {most_blocks(m, d) * m} features at m = {m}, d = {d}, not {request.n}: "
            f"each block of m features uses d (d-1) different differences."
        )
    found = len(base_blocks(m, blocks, d, request.seed))
    if found < blocks:
        raise SupportError(
            f"Construction 'cyclic' found {found} of {blocks} blocks with different differences at m = {m}, d = {d}; "
            f"ask for at most {found * m} features, or for a smaller degree."
        )


def cyclic_rows(request: Request, indices: Indices) -> Rows:
    """Each feature a shifted base block, in the random order of coordinates."""
    blocks, shifts = np.divmod(indices.astype(np.int64), request.m)
    base = base_blocks(request.m, -(-request.n // request.m), request.d, request.seed)
    return coordinate_order(request.m, request.seed)[(base[blocks] + shifts[:, None]) % request.m]


@numba.njit(cache=True)
def _fits(candidate: int, block: NDArray[np.int64], size: int, used: NDArray[np.bool_]) -> bool:
    """Whether all differences to the block's elements so far are unused and none is the opposite of another."""
    m = used.size
    for i in range(size):
        difference = (candidate - block[i]) % m
        if used[difference]:
            return False
        for other in range(i):
            if (difference + candidate - block[other]) % m == 0:
                return False
    return True


@numba.njit(cache=True)
def _mark(block: NDArray[np.int64], size: int, used: NDArray[np.bool_], value: bool) -> None:
    """Set the marks of all differences, both ways, of the block's first `size` elements."""
    for i in range(size):
        for j in range(size):
            if i != j:
                used[(block[i] - block[j]) % used.size] = value


@numba.njit(cache=True)
def _extend(block: NDArray[np.int64], used: NDArray[np.bool_], seed: np.uint64, stream: int, draws: int) -> int:
    """Fill a block from element 0 on, each the first that fits after a random start; return how many there are."""
    m = used.size
    block[0] = 0
    size = 1
    while size < block.size:
        start = np.int64(compiled_bounded(compiled_word(seed, stream, draws + size), np.uint64(m)))
        found = False
        for step in range(m):
            candidate = (start + step) % m
            if _fits(candidate, block, size, used):
                block[size] = candidate
                found = True
                break
        if not found:
            return size
        size += 1
        _mark(block, size, used, True)
    return size


@numba.njit(cache=True)
def _search(m: int, count: int, d: int, seed: np.uint64, stream: int) -> NDArray[np.int64]:
    """Random greedy search with restarts; the largest family of blocks found, at most `count`."""
    best = np.zeros((0, d), dtype=np.int64)
    blocks = np.zeros((count, d), dtype=np.int64)
    draws = 0
    for _ in range(_RESTARTS):
        used = np.zeros(m, dtype=np.bool_)
        used[0] = True
        # A difference of m/2 is its own opposite: its block would meet its own shift by m/2 twice.
        if m % 2 == 0:
            used[m // 2] = True
        found, failures = 0, 0
        # What is tried must not depend on `count`: then a request for as many blocks as were found succeeds.
        while failures < _ATTEMPTS:
            size = _extend(blocks[found], used, seed, stream, draws)
            draws += d
            if size < d:
                _mark(blocks[found], size, used, False)
                failures += 1
                continue
            found, failures = found + 1, 0
            if found == count:
                return blocks
        if found > best.shape[0]:
            best = blocks[:found].copy()
    return best


CYCLIC = Construction(
    name="cyclic",
    summary="quasi-cyclic, overlap at most 1: gathers become rolls, but some sets of 2d features never expand",
    rows_of=cyclic_rows,
    check=check,
)
