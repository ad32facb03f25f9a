"""Batches of tokens for training: shuffled, exact across resume, and ready before they are asked for.

At most two windows of a store are in memory, the one given out and the next, filling up. Gathering and converting must
not enter torch's thread pool, which the training step uses at the same time: waiting for each other's threads made a
batch 100 times slower on a busy machine. Rows are therefore moved as 16-bit words by NumPy.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from expander_sae.activations.store.order import Order, Position
from expander_sae.activations.store.prefetch import Prefetched
from expander_sae.activations.store.reader import Store
from expander_sae.activations.store.shards import StoreError

_BATCHES_AHEAD = 4

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


class Batches:
    """Iterates over `[batch, m]` activations, every token of the store once per epoch, in an order set by the seed.

    At most two windows and a few batches are in memory. `state_dict` and `load_state_dict` resume bit by bit. A batch
    goes over the end of an epoch into the next one; only the last one of all is short.
    """

    def __init__(
        self,
        store: Store,
        *,
        batch: int,
        seed: int,
        skip_massive: bool = True,
        window_tokens: int = 65536,
        epochs: int | None = None,
        dtype: torch.dtype = torch.float32,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        """`batch` is that of all ranks together, of which this one gets its `1 / world`; no `epochs` means forever.

        The tokens of `window_tokens / 32` in a row, from 32 places of the store, are mixed with each other.
        """
        _check_sizes(batch, seed, window_tokens, epochs, rank, world)
        self.store = store
        self.tokens_per_epoch = store.norms.count if skip_massive else store.tokens
        """Tokens that an epoch visits."""
        if not self.tokens_per_epoch:
            raise StoreError(f"{store.path} has only massive tokens; read it with skip_massive=False or harvest more.")
        order = Order(store.shard_tokens, min(window_tokens, store.tokens), seed)
        self._stream = TokenStream(store, order, batch, skip_massive, epochs, dtype, rank, world)
        self._identity = {
            "store": store.fingerprint,
            "seed": seed,
            "window_tokens": order.window_tokens,
            "skip_massive": skip_massive,
        }
        self._position = Position()
        self._ahead: Prefetched[tuple[Tensor, Position]] | None = None
        self._finalizer: weakref.finalize[Any, Any] | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Float[Tensor, "batch m"]:
        if self._ahead is None:
            self._ahead = Prefetched(self._stream.batches(self._position), _BATCHES_AHEAD)
            # The thread must end with this object, and before the interpreter does, also if nobody calls close.
            self._finalizer = weakref.finalize(self, self._ahead.close)
        activations, self._position = next(self._ahead)
        return activations

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop reading ahead; the next batch, if one is asked for, is still the one after the last."""
        if self._finalizer is not None:
            self._finalizer()
        self._ahead = self._finalizer = None

    def state_dict(self) -> dict[str, Any]:
        """The position after the last batch, and what order it is a position of; the same on every rank."""
        return {**asdict(self._position), "order": self._identity}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on after the batch that was the last one when the state was taken."""
        there = state.get("order")
        if there != self._identity:
            known = there if isinstance(there, Mapping) else {}
            differing = ", ".join(name for name, value in self._identity.items() if known.get(name) != value)
            raise StoreError(
                f"The position is that of another order of tokens ({differing or 'more entries'} differs from what "
                f"is read here, {self.store.path}); resume with the same store and settings, or start anew."
            )
        numbers = [state.get(name) for name in ("epoch", "window", "offset")]
        whole = [number for number in numbers if type(number) is int and number >= 0]
        if len(whole) < len(numbers):
            raise StoreError("The position is not one that state_dict() gave; resume from another checkpoint.")
        self.close()
        self._position = Position(*whole)


def _check_sizes(batch: int, seed: int, window_tokens: int, epochs: int | None, rank: int, world: int) -> None:
    """Refuse what no order can be made of."""
    for name, value in (("batch", batch), ("window_tokens", window_tokens), ("epochs", epochs), ("world", world)):
        if value is not None and value < 1:
            raise StoreError(f"{name} must be at least 1, not {value}.")
    if not 0 <= seed < 2**64:
        raise StoreError(f"The seed must be from 0 to 2^64 - 1, not {seed}.")
    if not 0 <= rank < world:
        raise StoreError(f"The rank must be from 0 to {world - 1} (world is {world}), not {rank}.")
    if batch % world:
        raise StoreError(f"A batch of {batch} tokens cannot be split evenly over {world} ranks; take a multiple of it.")
