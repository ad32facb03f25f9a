"""Which features fire together, and which instead of each other: counts of all pairs, compared with chance."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from expander_sae.features.shards import Block
from expander_sae.kernels.cpu.columns import allocating, compiled

LEAST = 3
"""Tokens on which two features must both fire to be listed as firing together."""
CLEAR = 3.0
"""How far a count must be from chance to be listed, in units of the square root of what chance gives."""


def pairs(block: Block, fired: NDArray[np.int64], tokens: int, wanted: int) -> dict[str, Any]:
    """The columns `together` and `instead` of the table of features.

    `fired` counts the firings of all features, on the `tokens` tokens that are not massive. Counts are exact. Features
    are listed by how far their count is from what independent features of the same densities would have, in units of
    its square root.
    """
    frequent = np.argsort(-fired, kind="stable")[: np.count_nonzero(fired)]
    shape = (block.count, wanted)
    together = np.full(shape, -1, np.int32), np.zeros(shape, np.int64), np.full(shape, -np.inf, np.float32)
    instead = np.full(shape, -1, np.int32), np.zeros(shape, np.int64), np.full(shape, np.inf, np.float32)
    _count(block.first, block.starts, block.order, block.companions, fired, frequent, tokens, together, instead)
    return {
        "together": together[0], "together_count": together[1], "together_z": together[2],
        "instead": instead[0], "instead_count": instead[1], "instead_z": instead[2],
    }  # fmt: skip


@allocating
def _count(
    first: Any, starts: Any, order: Any, companions: Any, fired: Any, frequent: Any, tokens: Any,
    together: Any, instead: Any,
) -> None:  # fmt: skip
    """Fill the lists of every feature, best first; unused places stay -1."""
    counts = np.zeros(fired.size, np.int64)
    touched = np.empty(fired.size, np.int64)
    for feature in range(starts.size - 1):
        own = first + feature
        known = 0
        for firing in range(starts[feature], starts[feature + 1]):
            row = order[firing]
            for slot in range(companions.shape[1]):
                other = companions[row, slot]
                if other >= 0 and other != own:
                    if counts[other] == 0:
                        touched[known] = other
                        known += 1
                    counts[other] += 1
        share = fired[own] / tokens
        for place in range(known):
            other = touched[place]
            expected = share * fired[other]
            z = (counts[other] - expected) / np.sqrt(expected)
            if counts[other] >= LEAST and z >= CLEAR:
                _insert(together[0][feature], together[1][feature], together[2][feature], other, counts[other], z, 1)
        last = instead[2].shape[1] - 1
        for place in range(frequent.size if share > 0 else 0):
            other = frequent[place]
            expected = share * fired[other]
            # Features come from frequent to rare: none that follows can be further below its expectation than this.
            if -np.sqrt(expected) > -CLEAR or -np.sqrt(expected) >= instead[2][feature, last]:
                break
            z = (counts[other] - expected) / np.sqrt(expected)
            if other != own and z <= -CLEAR:
                _insert(instead[0][feature], instead[1][feature], instead[2][feature], other, counts[other], z, -1)
        for place in range(known):
            counts[touched[place]] = 0


@compiled
def _insert(features: Any, counts: Any, scores: Any, feature: Any, count: Any, z: Any, sign: Any) -> None:
    """Put a feature into a list that is sorted from the best score down (sign 1) or up (sign -1)."""
    place = scores.size
    while place > 0 and sign * (np.float32(z) - scores[place - 1]) > 0:
        place -= 1
    for later in range(scores.size - 1, place, -1):
        features[later], counts[later], scores[later] = features[later - 1], counts[later - 1], scores[later - 1]
    if place < scores.size:
        features[place], counts[place], scores[place] = feature, count, z
