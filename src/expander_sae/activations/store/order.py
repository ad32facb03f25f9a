"""The order in which tokens are visited: a pure function of the seed and the shards' sizes, the same everywhere.

An epoch visits every block (a run of consecutive tokens of one shard) once, in random order; the blocks of a window
are mixed token by token. All randomness is Philox words, so the order of a run can be repeated by any later release.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from expander_sae.philox import compiled_word, shuffle

BLOCKS_PER_WINDOW = 32
"""More would mix more distant tokens, at the price of more shards to open and verify before the first batch."""


class Stream(IntEnum):
    """Purposes of words, apart from those of `philox.Stream`."""

    BLOCKS_OF_EPOCH = 64
    TOKENS_OF_WINDOW = 65
    TOKENS_OF_TEXT = 66


@dataclass(frozen=True)
class Position:
    """A place in the order: the token of number `offset` among those of a window of an epoch."""

    epoch: int = 0
    window: int = 0
    offset: int = 0


class Order:
    """Which blocks are mixed in which window of an epoch, and the order of the tokens in it."""

    def __init__(self, shard_tokens: Sequence[int], window_tokens: int, seed: int) -> None:
        self.window_tokens, self.seed = window_tokens, seed
        block_tokens = max(1, window_tokens // BLOCKS_PER_WINDOW)
        self._blocks = _blocks(shard_tokens, block_tokens)
        self.windows = -(-len(self._blocks) // (window_tokens // block_tokens))
        """Windows of an epoch, as many blocks in each, give or take one."""

    def blocks(self, epoch: int, window: int) -> NDArray[np.int64]:
        """Begin and end of every block of a window, [blocks, 2]; together at most `window_tokens` tokens."""
        order = permutation(len(self._blocks), self.seed, Stream.BLOCKS_OF_EPOCH, epoch)
        begin, end = (len(order) * edge // self.windows for edge in (window, window + 1))
        return self._blocks[order[begin:end]]

    def tokens(self, epoch: int, window: int, count: int) -> NDArray[np.int64]:
        """The order in which the `count` tokens of a window are visited."""
        return permutation(count, self.seed, Stream.TOKENS_OF_WINDOW, (epoch << 32) | window)

    def after(self, position: Position) -> Position:
        """The beginning of the window after the one of this position."""
        if position.window + 1 < self.windows:
            return Position(position.epoch, position.window + 1)
        return Position(position.epoch + 1)


def _blocks(shard_tokens: Sequence[int], block_tokens: int) -> NDArray[np.int64]:
    """Begin and end of every block, [blocks, 2]; a shard is cut into blocks of as equal a size as possible."""
    parts, begin = [], 0
    for tokens in shard_tokens:
        count = -(-tokens // block_tokens)
        edges = begin + np.arange(count + 1, dtype=np.int64) * tokens // count
        parts.append(np.stack([edges[:-1], edges[1:]], axis=1))
        begin += tokens
    return np.concatenate(parts)


@lru_cache(maxsize=4)
def permutation(size: int, seed: int, stream: Stream, index: int) -> NDArray[np.int64]:
    """A random order of 0 .. size-1, one for each seed, stream and index; read-only because it is kept."""
    order = np.arange(size, dtype=np.int64)
    key = np.uint64(compiled_word(np.uint64(seed), int(stream), index))
    shuffle(order, key, int(stream))
    order.flags.writeable = False
    return order
