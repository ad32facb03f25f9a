"""Where batches come from: what the loop needs of a source, and the source that is a tensor in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol, Self, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from expander_sae.errors import ExpanderError


@runtime_checkable
class BatchSource(Protocol):
    """Batches [tokens, width] of activations, in an order that a small state pins down."""

    @property
    def width(self) -> int:
        """Width of an activation."""

    @property
    def batch(self) -> int:
        """Tokens of a full batch, over all processes together."""

    def __iter__(self) -> Iterator[Float[Tensor, "tokens width"]]: ...

    def __next__(self) -> Float[Tensor, "tokens width"]: ...

    def state_dict(self) -> Mapping[str, Any]:
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
        self.batch, self.width = batch, x.shape[1]
        self._epoch, self._position, self._order = 0, 0, self._order_of(0)

    def _order_of(self, epoch: int) -> Tensor:
        generator = torch.Generator().manual_seed((self._seed << 20) + epoch)
        return torch.randperm(len(self._x), generator=generator)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Float[Tensor, "tokens m"]:
        if self._position + self.batch > len(self._x):  # rows left over at the end of a pass are in the next ones
            self._epoch, self._position = self._epoch + 1, 0
            self._order = self._order_of(self._epoch)
        rows = self._order[self._position : self._position + self.batch][self._rank :: self._world]
        self._position += self.batch
        return self._x[rows].float()

    def state_dict(self) -> dict[str, int]:
        """The pass and the position in it."""
        return {"epoch": self._epoch, "position": self._position}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self._epoch, self._position = int(state["epoch"]), int(state["position"])
        self._order = self._order_of(self._epoch)

    def close(self) -> None:
        """Nothing to let go of."""
