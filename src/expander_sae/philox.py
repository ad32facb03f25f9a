"""Philox4x32-10, the only source of a support's randomness: integer arithmetic, the same on every platform.

Beside it stands how one seed of a user becomes many of torch's generator, which training draws from.

A random word is a pure function of (seed, stream, index, draw), so that feature `index` is drawn without the others.
The arithmetic below runs unchanged on NumPy arrays and, compiled, on single words inside Numba loops.
"""

from __future__ import annotations

from enum import IntEnum

import numba
import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]

_MULTIPLIER_0 = np.uint64(0xD2511F53)
_MULTIPLIER_1 = np.uint64(0xCD9E8D57)
_WEYL_0 = np.uint64(0x9E3779B9)
_WEYL_1 = np.uint64(0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)
_ROUNDS = 10
_NETWORK_ROUNDS = 8
_APART = 2_654_435_761
"""An odd number by which seeds of a user lie apart in the 32 bits that torch's generator looks at."""
LARGEST_DOMAIN = 2**62
"""Most values that `permute` can take."""


class Stream(IntEnum):
    """One stream per purpose, so that no two draws share a word; numbers are part of the file format."""

    UNIFORM = 0
    PARTITIONED = 1
    BALANCED_EXTRAS = 2
    BALANCED_SHUFFLE = 3
    BALANCED_REPAIR = 4
    LINES = 5
    GREEDY = 6
    CYCLIC_BLOCKS = 7
    CYCLIC_ORDER = 8
    CLUSTERED_ORDER = 9
    CLUSTERED_CHOICE = 10
    CLUSTERED_ROWS = 11
    SHARED = 12
    BLOCK = 13
    ADVERSARY = 14


def philox4x32(
    c0: Words, c1: Words, c2: Words, c3: Words, k0: Words | np.uint64, k1: Words | np.uint64
) -> tuple[Words, Words, Words, Words]:
    """The four 32-bit outputs for a counter and a key; every 32-bit value sits in a 64-bit word."""
    for _ in range(_ROUNDS):
        product_0 = _MULTIPLIER_0 * c0
        product_1 = _MULTIPLIER_1 * c2
        c0, c1, c2, c3 = (
            (product_1 >> _32) ^ c1 ^ k0,
            product_1 & _LOW,
            (product_0 >> _32) ^ c3 ^ k1,
            product_0 & _LOW,
        )
        k0 = (k0 + _WEYL_0) & _LOW
        k1 = (k1 + _WEYL_1) & _LOW
    return c0, c1, c2, c3


def bounded(words: Words, bounds: Words | np.uint64) -> Words:
    """floor(word * bound / 2^64) for bounds below 2^32: uniform on [0, bound) up to a bias of bound / 2^64."""
    return ((words >> _32) * bounds + (((words & _LOW) * bounds) >> _32)) >> _32


def word_pair(seed: int, stream: Stream, indices: Words, block: int) -> tuple[Words, Words]:
    """The 64-bit words number `2 * block` and `2 * block + 1` of every index: one block of four 32-bit outputs."""
    c2 = np.full_like(indices, block)
    c3 = np.full_like(indices, int(stream))
    k0, k1 = np.uint64(seed & 0xFFFFFFFF), np.uint64(seed >> 32)
    o0, o1, o2, o3 = philox4x32(indices & _LOW, indices >> _32, c2, c3, k0, k1)
    return o0 | (o1 << _32), o2 | (o3 << _32)


_compiled_philox = numba.njit(inline="always")(philox4x32)
compiled_bounded = numba.njit(bounded)


@numba.njit(cache=True)
def compiled_word(seed: np.uint64, stream: int, index: int) -> np.uint64:
    """The same word as `word_pair(seed, stream, [index], 0)[0]`, for one index, inside compiled loops."""
    position = np.uint64(index)
    o0, o1, _, _ = _compiled_philox(
        position & _LOW, position >> _32, np.uint64(0), np.uint64(stream), seed & _LOW, seed >> _32
    )
    word: np.uint64 = o0 | (o1 << _32)
    return word


@numba.njit(cache=True)
def shuffle(values: NDArray[np.int64], seed: np.uint64, stream: int) -> None:
    """Fisher-Yates in place; position `i` uses the word of index `i`."""
    for i in range(values.size - 1, 0, -1):
        j = compiled_bounded(compiled_word(seed, stream, i), np.uint64(i + 1))
        values[i], values[j] = values[j], values[i]


def permutation(size: int, seed: int, stream: Stream) -> NDArray[np.int64]:
    """A uniformly random order of 0 .. size-1."""
    order = np.arange(size, dtype=np.int64)
    shuffle(order, np.uint64(seed), int(stream))
    return order


def permute(values: Words, size: int, seed: int, stream: Stream) -> Words:
    """The images of `values` (all below size <= 2^62) under the permutation of this seed and stream.

    It is evaluated at single points: a Feistel network with cycle walking.
    """
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
    for block in range(_NETWORK_ROUNDS):
        left, right = right, left ^ (word_pair(seed, stream, right, block)[0] & mask)
    return (left << half) | right


def generator_seed(seed: int, place: int) -> int:
    """A seed for the `torch.Generator` that draws at one place: a step, an epoch, a cell of a study.

    That generator looks at the low 32 bits of a seed alone, so both are mixed into them: to shift the user's seed above
    the place would lose it. Seeds beyond 32 bits are folded; seed 0 leaves the place as it is.
    """
    folded = (seed ^ (seed >> 32)) % 2**32
    return (place + _APART * folded) % 2**32
