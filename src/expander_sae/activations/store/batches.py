"""Batches of tokens for training: shuffled, exact across resume, and ready before they are asked for."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor

from expander_sae.activations.store.errors import StoreError
from expander_sae.activations.store.order import Order, Position
from expander_sae.activations.store.prefetch import Prefetched
from expander_sae.activations.store.reader import Store
from expander_sae.activations.store.stream import TokenStream

_BATCHES_AHEAD = 4


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
