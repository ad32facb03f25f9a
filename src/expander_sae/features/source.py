"""Where the activations come from that features are looked at on: a store, or a language model that reads a text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch
from jaxtyping import Float
from torch import Tensor

from expander_sae.activations.distributed import activations_of
from expander_sae.activations.harvest import TextConfig, origin_at, text_batches
from expander_sae.activations.hookpoints import Hookpoint
from expander_sae.activations.models import LanguageModel
from expander_sae.activations.store import Store, Tokens
from expander_sae.activations.store.manifest import MASSIVE_MULTIPLE
from expander_sae.activations.texts import Batch

TOKENS_PER_SHARD = 1 << 16
"""Tokens of a file of codes, at most: what a killed pass loses of a store, and nearly so of a text."""
TOKENS_AT_ONCE = 4096
"""Tokens that are read and encoded together."""


class Source(Protocol):
    """A text with its activations, cut into shards that are the same every time."""

    @property
    def width(self) -> int: ...

    @property
    def tokens(self) -> int:
        """How many there are, at most."""

    def origin(self) -> dict[str, Any]:
        """What the text is and where its activations are from."""

    def pieces(self, first: int) -> Iterator[tuple[int, Tokens]]:
        """The tokens from shard number `first` on, a little at a time, each time with the number of its shard."""


@dataclass(frozen=True)
class StoredText:
    """The first tokens of a store."""

    store: Store
    tokens: int

    @property
    def width(self) -> int:
        return self.store.width

    def origin(self) -> dict[str, Any]:
        return {**self.store.origin, "store": self.store.path.name, "fingerprint": self.store.fingerprint}

    def pieces(self, first: int) -> Iterator[tuple[int, Tokens]]:
        for begin in range(first * TOKENS_PER_SHARD, self.tokens, TOKENS_PER_SHARD):
            end = min(begin + TOKENS_PER_SHARD, self.tokens)
            for start in range(begin, end, TOKENS_AT_ONCE):
                yield begin // TOKENS_PER_SHARD, self.store[start : min(start + TOKENS_AT_ONCE, end)]


@dataclass(frozen=True)
class ReadText:
    """The first tokens of a text, as a language model reads them; a shard is made of whole batches."""

    language_model: LanguageModel
    hookpoint: Hookpoint
    text: TextConfig
    tokens: int
    width: int
    massive_above: float

    @classmethod
    def of(
        cls, language_model: LanguageModel, hookpoint: Hookpoint, text: TextConfig, tokens: int, above: float | None
    ) -> Self:
        """Tokens are massive above this norm, or above 4 times the median norm of the first batch."""
        first = next(text_batches(language_model, text))
        x = activations_of(language_model, [hookpoint], first)[hookpoint]
        above = MASSIVE_MULTIPLE * float(_norms(x).median()) if above is None else above
        return cls(language_model, hookpoint, text, tokens, x.shape[1], above)

    def origin(self) -> dict[str, Any]:
        return {**origin_at(self.language_model, self.hookpoint, self.text), "massive_above": self.massive_above}

    def pieces(self, first: int) -> Iterator[tuple[int, Tokens]]:
        per_shard = max(1, TOKENS_PER_SHARD // self.text.tokens_per_batch)
        left = self.tokens
        for number, batch in enumerate(text_batches(self.language_model, self.text)):
            if left < 1:
                return
            if number // per_shard >= first:
                yield number // per_shard, self._read(batch, min(left, batch.tokens))
            left -= batch.tokens

    def _read(self, batch: Batch, tokens: int) -> Tokens:
        mask = batch.mask
        x = activations_of(self.language_model, [self.hookpoint], batch)[self.hookpoint][:tokens]
        document = batch.document[:, None].expand(mask.shape)
        ids, document, position = (each[mask][:tokens].int() for each in (batch.ids, document, batch.position))
        return Tokens(x, ids, document, position, (_norms(x) > self.massive_above).cpu())


def _norms(x: Float[Tensor, "tokens m"]) -> Float[Tensor, " tokens"]:
    return torch.linalg.vector_norm(x, dim=1, dtype=torch.promote_types(x.dtype, torch.float32))
