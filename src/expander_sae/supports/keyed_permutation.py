"""A keyed permutation of 0 .. size-1 that is evaluated at single points: a Feistel network with cycle walking."""

from __future__ import annotations

import numpy as np

from expander_sae.philox import Stream, Words, word_pair

_ROUNDS = 8
LARGEST_DOMAIN = 2**62


def permute(values: Words, size: int, seed: int, stream: Stream) -> Words:
    """The images of `values` (all below size <= 2^62) under the permutation of this seed and stream."""
    half = np.uint64(max(1, ((size - 1).bit_length() + 1) // 2))
    images = _network(values, half, seed, stream)
    # The network permutes a power of four that may exceed the size: who lands outside walks on until inside again.
    outside = np.flatnonzero(images >= np.uint64(size))
    while outside.size:
        images[outside] = _network(images[outside], half, seed, stream)
        outside = outside[images[outside] >= np.uint64(size)]
    return images


def _network(values: Words, half: np.uint64, seed: int, stream: Stream) -> Words:
    mask = (np.uint64(1) << half) - np.uint64(1)
    left, right = values >> half, values & mask
    for block in range(_ROUNDS):
        left, right = right, left ^ (word_pair(seed, stream, right, block)[0] & mask)
    return (left << half) | right
