"""Searching for small stopping sets: witnesses that no certificate can contradict."""

from __future__ import annotations

import numba
import numpy as np
from jaxtyping import Int64
from numpy.typing import NDArray

from expander_sae.certificates.matrix import Mask
from expander_sae.certificates.progress import Progress


def smallest_stopping_set(
    mask: Mask, covers: Int64[np.ndarray, " n"], largest: int, restarts: int, seed: int, report: Progress
) -> Int64[np.ndarray, " features"]:
    """The smallest stopping set found with at most `largest` features, ascending; empty if none was found.

    From a feature on, every other time one whose coordinates fewest others can cover, else a random one, the feature is
    added that leaves the fewest coordinates with a single one; what peeling keeps of that is made minimal.
    """
    generator = np.random.default_rng(seed)
    candidates = np.flatnonzero(mask.degrees)
    largest, best = min(largest, candidates.size), np.empty(0, dtype=np.int64)
    shuffled = generator.permutation(candidates)
    endangered = shuffled[np.argsort(covers[shuffled], kind="stable")]
    for restart in range(restarts):
        # Half of the time it may grow past what was found: what is minimal inside is often smaller.
        limit = best.size - 1 if best.size and restart % 4 > 1 else largest
        start = endangered[restart // 2 % endangered.size] if restart % 2 == 0 else int(generator.choice(candidates))
        grown = _grow(mask.rows, mask.starts, mask.features, start, limit, int(generator.integers(1 << 31)))
        remaining = mask.remaining(np.sort(grown))
        if remaining.size:
            found = _minimal(mask, remaining, generator)
            best = found if best.size == 0 or found.size < best.size else best
        report("stopping sets", restart + 1, restarts)
    return best


def _minimal(
    mask: Mask, features: Int64[np.ndarray, " features"], generator: np.random.Generator
) -> Int64[np.ndarray, " fewer"]:
    """A stopping set inside this one that has no stopping set inside it."""
    for feature in generator.permutation(features):
        without = features[features != feature]
        if feature in features and without.size:
            remaining = mask.remaining(without)
            features = remaining if remaining.size else features
    return features


@numba.njit(cache=True)
def _grow(
    rows: NDArray[np.int32],
    starts: NDArray[np.int64],
    features: NDArray[np.int32],
    start: int,
    limit: int,
    seed: int,
) -> NDArray[np.int64]:
    """Features from `start` on, until no coordinate has a single one, or there are `limit`; ties fall at random."""
    np.random.seed(seed)
    n = rows.shape[0]
    owners = np.zeros(starts.size - 1, dtype=np.int32)
    # What a feature would add to the number of coordinates with one feature: one for each that has none, minus one for
    # each that has one.
    change = np.zeros(n, dtype=np.int32)
    for feature in range(n):
        for coordinate in rows[feature]:
            change[feature] += coordinate >= 0
        if change[feature] == 0:
            change[feature] = rows.shape[1] + 1
    chosen = np.empty(limit, dtype=np.int64)
    size, single, feature = 0, 0, start
    while size < limit:
        chosen[size] = feature
        size += 1
        single += change[feature]
        for coordinate in rows[feature]:
            if coordinate >= 0:
                step = -2 if owners[coordinate] == 0 else (1 if owners[coordinate] == 1 else 0)
                owners[coordinate] += 1
                if step != 0:
                    for position in range(starts[coordinate], starts[coordinate + 1]):
                        change[features[position]] += step
        change[feature] = rows.shape[1] + 1  # it has no coordinate without a feature, so this never falls again
        if single == 0:
            break
        least, ties = change[0], 0
        for other in range(n):
            if change[other] < least:
                least, ties, feature = change[other], 1, other
            elif change[other] == least:
                ties += 1
                if np.random.randint(ties) == 0:
                    feature = other
    return chosen[:size]
