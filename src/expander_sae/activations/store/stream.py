"""From windows of a store to batches: at most two windows are in memory, the one given out and the next, filling up.

Gathering and converting must not enter torch's thread pool, which the training step uses at the same time: waiting for
each other's threads made a batch 100 times slower on a busy machine. Rows are therefore moved as 16-bit words by NumPy.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from expander_sae.activations.store.order import Order, Position
from expander_sae.activations.store.reader import Store

Rows = NDArray[np.uint16]

# torch converts fewer values than this without its thread pool.
_VALUES_AT_ONCE = 32000


class Window:
    """The tokens of one window that training uses, read block by block into a given buffer."""

    def __init__(self, stream: TokenStream, position: Position, buffer: Rows) -> None:
        self.position, self.count = position, 0
        self._stream, self._buffer = stream, buffer
        self._blocks = stream.order.blocks(position.epoch, position.window)
        self._loaded = 0

    def load(self, share: float = 1.0) -> None:
        """Read on until this share of the blocks is there."""
        while self._loaded < share * len(self._blocks):
            begin, end = self._blocks[self._loaded]
            rows = self._stream.read(int(begin), int(end))
            self._buffer[self.count : self.count + len(rows)] = rows
            self.count += len(rows)
            self._loaded += 1

    def gather(self, offset: int, count: int) -> Rows:
        """A copy of at most `count` rows from `offset` on in the window's random order."""
        order = self._stream.order.tokens(self.position.epoch, self.position.window, self.count)
        rows: Rows = np.take(self._buffer, order[offset : offset + count], axis=0)
        return rows


@dataclass(frozen=True)
class TokenStream:
    """Every token of the store once per epoch, in the order of a seed, cut into global batches."""

    store: Store
    order: Order
    batch: int
    """Tokens of a global batch, over all ranks."""
    skip_massive: bool
    epochs: int | None
    """None goes on forever."""
    dtype: torch.dtype
    rank: int
    world: int

    def batches(self, position: Position) -> Iterator[tuple[Float[Tensor, "batch m"], Position]]:
        """This rank's part of every global batch from a position on, each with the position after it.

        A batch may begin in one window or epoch and end in the next; only the very last one may be short.
        """
        buffers = [np.empty((self.order.window_tokens, self.store.width), dtype=np.uint16) for _ in range(2)]
        window, parts, held = self._window(position, buffers[0]), list[Rows](), 0
        offset = position.offset
        while window is not None:
            window.load()
            buffers.reverse()
            upcoming = self._window(self.order.after(window.position), buffers[0])
            while offset < window.count:
                part = window.gather(offset, self.batch - held)
                parts, held, offset = [*parts, part], held + len(part), offset + len(part)
                position = Position(window.position.epoch, window.position.window, offset)
                if held == self.batch:
                    yield self._part_of_rank(parts), position
                    parts, held = [], 0
                    if upcoming is not None:
                        upcoming.load(offset / window.count)
            window, offset = upcoming, 0
        if parts:
            yield self._part_of_rank(parts), position

    def read(self, begin: int, end: int) -> Rows:
        """The rows of these tokens, without massive ones if those are skipped."""
        tokens = self.store[begin:end]
        rows: Rows = tokens.activations.view(torch.uint16).numpy()
        return rows[~tokens.massive.numpy()] if self.skip_massive and tokens.massive.any() else rows

    def _window(self, position: Position, buffer: Rows) -> Window | None:
        """The window of a position, not loaded yet; None after the last epoch."""
        return Window(self, position, buffer) if self.epochs is None or position.epoch < self.epochs else None

    def _part_of_rank(self, parts: list[Rows]) -> Float[Tensor, "batch m"]:
        rows = parts[0] if len(parts) == 1 else np.concatenate(parts)
        begin, end = (len(rows) * edge // self.world for edge in (self.rank, self.rank + 1))
        return _converted(torch.from_numpy(rows[begin:end]).view(self.store.dtype), self.dtype)


def _converted(rows: Float[Tensor, "batch m"], dtype: torch.dtype) -> Float[Tensor, "batch m"]:
    """A copy in another dtype."""
    result = torch.empty(rows.shape, dtype=dtype)
    rows_at_once = max(1, _VALUES_AT_ONCE // rows.shape[1])
    for begin in range(0, len(rows), rows_at_once):
        result[begin : begin + rows_at_once] = rows[begin : begin + rows_at_once]
    return result
