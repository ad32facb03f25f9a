"""Where batches come from: what the loop needs of a source, and the source that is a tensor in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, Self, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from expander_sae.activations.live import LiveActivations
from expander_sae.activations.store import Batches, Store
from expander_sae.distribution import Group, current_group
from expander_sae.errors import ExpanderError
from expander_sae.philox import generator_seed
from expander_sae.training.config import TrainConfig


@runtime_checkable
class BatchSource(Protocol):
    """Batches [tokens, m] of activations in an order that a small state pins down; a process gets its share of each."""

    def __iter__(self) -> Iterator[Float[Tensor, "tokens m"]]: ...

    def __next__(self) -> Float[Tensor, "tokens m"]: ...

    def state_dict(self) -> dict[str, Any]:
        """The cursor, as JSON: what comes next."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a cursor."""

    def close(self) -> None:
        """Let go of files and threads."""


class TensorBatches:
    """Batches of the rows of a tensor, without end; every pass is in another seeded order.

    A process of several sees its share of every batch: rows `rank`, `rank + world`, ... of it.
    """

    def __init__(
        self, x: Float[Tensor, "tokens m"], *, batch: int, seed: int = 0, rank: int = 0, world: int = 1
    ) -> None:
        if x.ndim != 2 or len(x) < batch:
            raise ExpanderError(f"Training needs a matrix of at least one batch of {batch} rows, not {list(x.shape)}.")
        self._x, self._seed, self._rank, self._world = x, seed, rank, world
        self._batch = batch
        self._epoch, self._position, self._order = 0, 0, self._order_of(0)

    def _order_of(self, epoch: int) -> Tensor:
        generator = torch.Generator().manual_seed(generator_seed(self._seed, epoch))
        return torch.randperm(len(self._x), generator=generator)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Float[Tensor, "tokens m"]:
        if self._position + self._batch > len(self._x):  # rows left over at the end of a pass are in the next ones
            self._epoch, self._position = self._epoch + 1, 0
            self._order = self._order_of(self._epoch)
        rows = self._order[self._position : self._position + self._batch][self._rank :: self._world]
        self._position += self._batch
        return self._x[rows]

    def state_dict(self) -> dict[str, Any]:
        """The pass and the position in it, and what order it is a position of."""
        return {"epoch": self._epoch, "position": self._position, "seed": self._seed, "shape": list(self._x.shape)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        here = self.state_dict()
        for name in ("seed", "shape"):
            if state.get(name) != here[name]:
                raise ExpanderError(
                    f"The position is of activations with {name} {state.get(name)}, not {here[name]}; resume with the "
                    "same ones or start anew in another folder."
                )
        self._epoch, self._position = int(state["epoch"]), int(state["position"])
        self._order = self._order_of(self._epoch)

    def close(self) -> None:
        """Nothing to let go of."""


@contextmanager
def open_source(
    source: Store | BatchSource | Float[Tensor, "tokens m"], config: TrainConfig, group: Group | None = None
) -> Iterator[BatchSource]:
    """Batches as the config wants them, closed at the end; a source that already is one is taken as it is."""
    if isinstance(source, BatchSource):
        yield source
        return
    group = current_group() if group is None else group
    batches: BatchSource
    if isinstance(source, Store):
        batches = Batches(source, batch=config.batch, seed=config.shuffle_seed, rank=group.rank, world=group.world)
    elif isinstance(source, Tensor):
        batches = TensorBatches(
            source, batch=config.batch, seed=config.shuffle_seed, rank=group.rank, world=group.world
        )
    else:
        raise ExpanderError(
            f"Training takes a store, a matrix of activations or a BatchSource, not {type(source).__name__}."
        )
    try:
        yield batches
    finally:
        batches.close()


def origin_of(source: object) -> dict[str, Any]:
    """Where the activations come from, as far as the source knows."""
    if isinstance(source, Store):
        norms = {"median_norm": source.norms.median, "massive_above": source.massive_above}
        store = {"store": source.path.name, "fingerprint": source.fingerprint, "tokens": source.tokens}
        return {**store, **norms, **source.origin}
    return source.origin if isinstance(source, LiveActivations) else {}
