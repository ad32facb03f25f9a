"""One product with the dictionary, its largest entries kept: k of every token, or k a token over a whole batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from expander_sae.checks import SomeShare, at_least, check_fields
from expander_sae.coders.base import OneShotCoder, check_fits
from expander_sae.dictionaries import Codes, Dictionary
from expander_sae.dictionaries.base import flatten

FIRST_WIDTH = 4
"""Entries selected per token at first, as a multiple of k."""


@dataclass(frozen=True)
class TopK(OneShotCoder):
    """One-shot codes: the k largest correlations themselves, cut at zero unless signed.

    Costs one `select`, the cheapest there is. Differentiable, so it can be trained through. Needs columns (or an
    encoder) trained for it: on a given dictionary it finds fewer of the right features than a pursuit. Among a million
    features and more, `look` finds nearly the same codes in a fraction of the time (see docs/performance.md).
    """

    k: int
    """Features per token."""
    signed: bool = False
    """Keep the largest by magnitude, with their signs."""
    look: SomeShare | None = None
    """Share of the features that a token looks at, those in the groups whose mean column it correlates most with; by
    default all. Codes are exact, but features may be missing. For expander dictionaries on CPUs."""

    def __post_init__(self) -> None:
        at_least("k", self.k, 1)
        check_fields(self)

    def __call__(
        self, dictionary: Dictionary, x: Float[Tensor, "*batch m"], bias: Float[Tensor, " n"] | None = None
    ) -> Codes:
        if self.look is None:
            codes = dictionary.select(x, self.k, bias, self.signed)
        else:
            codes = dictionary.glance(x, self.k, self.look, bias, self.signed)
        return codes if self.signed else Codes(codes.values.relu(), codes.indices, codes.n)


class Entries(NamedTuple):
    """Entries in one list, grouped by token and descending within each."""

    values: Float[Tensor, " entries"]
    tokens: Int[Tensor, " entries"]
    features: Int[Tensor, " entries"]

    def where(self, mask: Tensor) -> Entries:
        """Some of the entries, by mask or by position."""
        return Entries(*(tensor[mask] for tensor in self))

    def followed_by(self, others: Entries) -> Entries:
        """These entries and then the others."""
        return Entries(*(torch.cat(pair) for pair in zip(self, others, strict=True)))

    def pack(self, batch: int, n: int) -> Codes:
        """The entries as codes, as wide as the busiest token needs."""
        entries = self.where(self.tokens.argsort(stable=True))
        counts = torch.bincount(entries.tokens, minlength=batch)
        width = max(1, int(counts.max())) if batch else 1
        position = torch.arange(len(entries.tokens), device=counts.device) - (counts.cumsum(0) - counts)[entries.tokens]
        at = entries.tokens, position
        values = entries.values.new_zeros(batch, width).index_put(at, entries.values)
        indices = entries.features.new_zeros(batch, width).index_put(at, entries.features)
        return Codes(values, indices, n)


@dataclass(frozen=True)
class BatchTopK(OneShotCoder):
    """One-shot codes: the k * batch largest correlations of the batch, cut at zero unless signed.

    Costs one `select` of 4 k entries per token, and wider ones for the few tokens that need more; never holds
    [batch, n]. Differentiable, so it can be trained through. A token's codes depend on its neighbours in the batch:
    after training, set `threshold` to what the smallest kept entry was on average, and they no longer do.
    """

    k: int
    """Features per token, on average over the batch."""
    signed: bool = False
    """Keep the largest by magnitude, with their signs."""
    threshold: float | None = None
    """Keep every entry above this instead, however many there are."""

    def __post_init__(self) -> None:
        at_least("k", self.k, 1)
        if self.threshold is not None:
            at_least("threshold", self.threshold, 0)

    def __call__(
        self, dictionary: Dictionary, x: Float[Tensor, "*batch m"], bias: Float[Tensor, " n"] | None = None
    ) -> Codes:
        flat = flatten(x, dictionary.m)
        check_fits(self.k, dictionary)
        candidates = self._candidates(dictionary, flat, bias)
        kept = candidates.where(self._kept(candidates.values.detach(), flat.shape[0]))
        return kept.pack(flat.shape[0], dictionary.n).reshape(*x.shape[:-1])

    def _candidates(
        self, dictionary: Dictionary, x: Float[Tensor, "batch m"], bias: Float[Tensor, " n"] | None
    ) -> Entries:
        """Entries of every token down to the cut at least.

        At most k * batch entries lie above the cut, so at most k * batch / width tokens have more than `width` of
        them, and doubling the width of those tokens never selects more than 2 k * batch entries at a time.
        """
        width = min(FIRST_WIDTH * self.k, dictionary.n)
        candidates, last = self._select(dictionary, x, width, bias, torch.arange(x.shape[0], device=x.device))
        while width < dictionary.n:
            unfinished = last > self._cut(candidates.values.detach(), x.shape[0])
            if not unfinished.any():
                break
            width = min(2 * width, dictionary.n)
            tokens = unfinished.nonzero()[:, 0]
            wider, last_of_wider = self._select(dictionary, x[tokens], width, bias, tokens)
            candidates = candidates.where(~unfinished[candidates.tokens]).followed_by(wider)
            last = last.index_copy(0, tokens, last_of_wider)
        return candidates

    def _select(
        self,
        dictionary: Dictionary,
        x: Float[Tensor, "batch m"],
        width: int,
        bias: Float[Tensor, " n"] | None,
        tokens: Int[Tensor, " batch"],
    ) -> tuple[Entries, Float[Tensor, " batch"]]:
        """The `width` largest entries of each token, and how large the last of them is."""
        codes = dictionary.select(x, width, bias, self.signed)
        numbers = tokens[:, None].expand(codes.indices.shape)
        candidates = Entries(codes.values.flatten(), numbers.flatten(), codes.indices.flatten())
        return candidates, self._size(codes.values[:, -1].detach())

    def _size(self, values: Float[Tensor, " entries"]) -> Float[Tensor, " entries"]:
        return values.abs() if self.signed else values

    def _cut(self, values: Float[Tensor, " entries"], batch: int) -> float | Tensor:
        """The size above which no entry may be missing."""
        if self.threshold is not None:
            return self.threshold
        if len(values) <= self.k * batch:
            return 0.0
        return self._size(values).topk(self.k * batch).values[-1].clamp(min=0)

    def _kept(self, values: Float[Tensor, " entries"], batch: int) -> Bool[Tensor, " entries"]:
        """Which entries are codes: those above the threshold, or exactly the k * batch largest above zero."""
        sizes = self._size(values)
        if self.threshold is not None:
            return sizes > self.threshold
        largest = sizes.topk(min(self.k * batch, len(sizes))).indices
        return torch.zeros_like(sizes, dtype=torch.bool).index_fill(0, largest, True) & (sizes > 0)
