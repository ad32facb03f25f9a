"""Sets of features that fail to expand: a greedy search for small neighbourhoods, and exact peeling of a given set."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
import torch
from jaxtyping import Float64, Int64
from numpy.typing import NDArray
from torch import Tensor

from expander_sae.philox import Stream, compiled_bounded, compiled_word
from expander_sae.supports.construction import SupportError, integer
from expander_sae.supports.support import IntegerArray, Support


@dataclass(frozen=True)
class BadSets:
    """The worst sets a search found; each is a checkable witness, so `epsilon` bounds the true values from below."""

    epsilon: Float64[Tensor, "largest"]
    """Entry t-1: the largest 1 - |N(T)| / (d |T|) found over sets T of at most t features; never decreasing. Where
    features differ in degree, d |T| stands for the sum of their degrees."""
    _witnesses: tuple[Int64[Tensor, "size"], ...]

    def witness(self, size: int) -> Int64[Tensor, "features"]:
        """A set of at most `size` features, ascending, that attains `epsilon[size - 1]`."""
        if not 1 <= integer("size", size) <= len(self._witnesses):
            raise SupportError(f"The search looked at sets of 1 to {len(self._witnesses)} features, not {size}.")
        return self._witnesses[size - 1]


def adversarial_expansion(support: Support, largest: int, restarts: int = 100, seed: int = 0) -> BadSets:
    """Bad sets of up to `largest` features: from a random feature, always add one with the fewest new coordinates."""
    if not 1 <= integer("largest", largest) <= support.n:
        raise SupportError(f"largest must be between 1 and n = {support.n}, not {largest}.")
    if integer("restarts", restarts) < 1:
        raise SupportError(f"restarts must be at least 1, not {restarts}.")
    if not 0 <= integer("seed", seed) < 2**64:
        raise SupportError(f"seed must be between 0 and 2**64 - 1, not {seed}.")
    lists = support.row_lists
    chosen, neighbours = _search(
        support.rows.numpy(),
        lists.starts.numpy(),
        lists.features.numpy(),
        largest,
        restarts,
        np.uint64(seed),
        int(Stream.ADVERSARY),
    )
    edges = support.degrees.numpy()[chosen].cumsum(axis=1)
    shares = (edges - neighbours) / edges
    best_restart = shares.argmax(axis=0)
    epsilon: list[float] = []
    witnesses: list[Tensor] = []
    for size in range(1, largest + 1):
        restart = best_restart[size - 1]
        found = float(shares[restart, size - 1])
        if epsilon and found <= epsilon[-1]:
            found, witness = epsilon[-1], witnesses[-1]
        else:
            witness = torch.from_numpy(np.sort(chosen[restart, :size]))
        epsilon.append(found)
        witnesses.append(witness)
    return BadSets(torch.tensor(epsilon, dtype=torch.float64), tuple(witnesses))


def peel(support: Support, features: IntegerArray) -> Int64[Tensor, "remaining"]:
    """The largest subset in which no coordinate has exactly one feature, ascending; empty if W is injective on the set.

    Features that own a coordinate alone are taken away until none does, in any order, O(d |features|).
    """
    columns = support.columns(features).cpu().numpy()
    candidates = np.asarray(features.cpu() if isinstance(features, Tensor) else features, dtype=np.int64).reshape(-1)
    unique, first = np.unique(candidates, return_index=True)
    return torch.from_numpy(unique[remaining_of(columns.reshape(-1, support.d)[first])])


@numba.njit(cache=True)
def _least_new(hits: NDArray[np.int32], word: np.uint64) -> int:
    """A feature with the most coordinates already in the set, a random one of them."""
    most = hits.max()
    count = np.sum(hits == most)
    remaining = np.int64(compiled_bounded(word, np.uint64(count)))
    for feature in range(hits.size):
        if hits[feature] == most:
            if remaining == 0:
                return feature
            remaining -= 1
    return -1


@numba.njit(cache=True)
def _search(
    rows: NDArray[np.int32],
    starts: NDArray[np.int64],
    features: NDArray[np.int32],
    largest: int,
    restarts: int,
    seed: np.uint64,
    stream: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Shapes [restarts, largest]: the features in the order taken, and how many coordinates they touch so far."""
    n = rows.shape[0]
    chosen = np.empty((restarts, largest), dtype=np.int64)
    neighbours = np.empty((restarts, largest), dtype=np.int64)
    for restart in range(restarts):
        hits = np.zeros(n, dtype=np.int32)
        covered = np.zeros(starts.size - 1, dtype=np.bool_)
        total = 0
        for step in range(largest):
            feature = _least_new(hits, compiled_word(seed, stream, restart * largest + step))
            for coordinate in rows[feature]:
                if coordinate >= 0 and not covered[coordinate]:
                    covered[coordinate] = True
                    total += 1
                    for position in range(starts[coordinate], starts[coordinate + 1]):
                        hits[features[position]] += 1
            # All its coordinates are covered, so nothing raises its hits again: it is never taken twice.
            hits[feature] = -1
            chosen[restart, step] = feature
            neighbours[restart, step] = total
    return chosen, neighbours


@numba.njit(cache=True, nogil=True)
def remaining_of(rows: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Which of some features remain, given their rows [features, d], -1 where there is none; one without rows does not.

    Coordinates keep the sum of their features' numbers: with one left, that is its name.
    """
    size, d = rows.shape
    owners = np.unique(rows)  # compact numbers of the coordinates; -1, if there, is the first
    places = np.searchsorted(owners, rows.flatten()).reshape(rows.shape)
    degrees = np.zeros(owners.size, dtype=np.int64)
    sums = np.zeros(owners.size, dtype=np.int64)
    remaining = np.zeros(size, dtype=np.bool_)
    for feature in range(size):
        for slot in range(d):
            if rows[feature, slot] >= 0:
                degrees[places[feature, slot]] += 1
                sums[places[feature, slot]] += feature
                remaining[feature] = True
    # A coordinate enters the queue when its degree becomes one, which happens once.
    queue = np.empty(owners.size, dtype=np.int64)
    end = 0
    for coordinate in range(owners.size):
        if degrees[coordinate] == 1:
            queue[end] = coordinate
            end += 1
    start = 0
    while start < end:
        alone = queue[start]
        start += 1
        if degrees[alone] == 0:
            continue
        feature = sums[alone]
        remaining[feature] = False
        for slot in range(d):
            if rows[feature, slot] >= 0:
                coordinate = places[feature, slot]
                degrees[coordinate] -= 1
                sums[coordinate] -= feature
                if degrees[coordinate] == 1:
                    queue[end] = coordinate
                    end += 1
    return remaining
