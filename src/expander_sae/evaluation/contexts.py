"""What features fire on: their strongest tokens in a store, with the text around them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from expander_sae.activations.store import Store, Tokens
from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.dictionaries import Codes
from expander_sae.errors import ExpanderError

TOKENS_AT_ONCE = 4096
"""Tokens that are read and encoded together."""
SPARE = 4
"""How many times more documents are looked at than contexts are wanted, since some repeat each other."""


@dataclass(frozen=True)
class Context:
    """A token that a feature fires on, and its neighbours in the text."""

    token_ids: list[int]
    """In the order of the text."""
    activations: list[float]
    """The code of the feature at every token; 0 where it is silent."""
    peak: int
    """Which of these tokens the context was chosen for."""
    document: int
    """Number of the document."""
    position: int
    """The position of the chosen token in its document."""


def firing_counts(sae: SparseAutoencoder, store: Store) -> Int[Tensor, " n"]:
    """On how many tokens of the store every feature fires; massive tokens are left out, as in training."""
    counts = torch.zeros(sae.n, dtype=torch.int64)
    for _, tokens in _chunks(store):
        codes = _encode(sae, tokens)
        counts += torch.bincount(codes.indices[codes.active], minlength=sae.n)
    return counts


def spread_over_frequency(counts: Int[Tensor, " n"], wanted: int, *, least: int = 20) -> list[int]:
    """At most `wanted` features from rare to frequent, evenly spaced in rank among those that fired `least` times."""
    if wanted < 1 or least < 1:
        raise ExpanderError(f"wanted and least must be at least 1, not {wanted} and {least}.")
    features = (counts >= least).nonzero()[:, 0]
    ranked = features[torch.argsort(counts[features], stable=True)]
    if len(ranked) <= wanted:
        return [int(feature) for feature in ranked]
    places = (torch.arange(wanted, dtype=torch.float64) + 0.5) * len(ranked) / wanted
    return [int(feature) for feature in ranked[places.long()]]


def top_contexts(
    sae: SparseAutoencoder, store: Store, features: Sequence[int], *, per_feature: int = 5, around: int = 12
) -> dict[int, list[Context]]:
    """The contexts in which every feature fires most strongly, strongest first, of other documents and other words."""
    if per_feature < 1 or around < 0:
        raise ExpanderError(f"per_feature must be at least 1 and around at least 0, not {per_feature} and {around}.")
    chosen = list(dict.fromkeys(features))
    wrong = [feature for feature in chosen if not 0 <= feature < sae.n]
    if wrong:
        raise ExpanderError(f"There is no feature {wrong[0]}; they are numbered from 0 to {sae.n - 1}.")
    strongest = _Strongest(chosen, sae.n, SPARE * per_feature)
    for start, tokens in _chunks(store):
        strongest.look_at(_encode(sae, tokens), tokens, start)
    return {
        feature: _different(
            (_context(sae, store, feature, token, around) for token in strongest.tokens_of(place)), per_feature
        )
        for place, feature in enumerate(chosen)
    }


def _different(contexts: Iterable[Context], wanted: int) -> list[Context]:
    """The first contexts that are not word for word one that came before: many documents share a licence or a note."""
    found: dict[tuple[int, ...], Context] = {}
    for context in contexts:
        found.setdefault(tuple(context.token_ids), context)
        if len(found) == wanted:
            break
    return list(found.values())


class _Strongest:
    """The strongest tokens seen so far of some features, at most one in a document."""

    def __init__(self, features: list[int], n: int, wanted: int) -> None:
        self._wanted = wanted
        self._place = torch.full((n,), -1)
        self._place[features] = torch.arange(len(features))
        # Columns: place of the feature in the list, document, token of the store; and how strongly it fires there.
        self._found: NDArray[np.int64] = np.empty((0, 3), dtype=np.int64)
        self._strength: NDArray[np.float64] = np.empty(0)

    def look_at(self, codes: Codes, tokens: Tokens, start: int) -> None:
        """Take in a chunk of which the first token has the number `start` in the store."""
        places = torch.where(codes.active, self._place[codes.indices], -1)
        token, entry = (places >= 0).nonzero(as_tuple=True)
        found = torch.stack([places[token, entry], tokens.document.long()[token], token + start], dim=1)
        strength = np.concatenate([self._strength, codes.values[token, entry].abs().double().numpy()])
        self._keep(np.concatenate([self._found, found.numpy()]), strength)

    def _keep(self, found: NDArray[np.int64], strength: NDArray[np.float64]) -> None:
        place, document, token = found.T
        order = np.lexsort((token, -strength, document, place))
        order = order[_first_of(found[order, :2])]  # the strongest of each document
        order = order[np.lexsort((token[order], -strength[order], place[order]))]
        begin = np.flatnonzero(_first_of(found[order, :1]))
        rank = np.arange(len(order)) - np.repeat(begin, np.diff([*begin, len(order)]))
        order = order[rank < self._wanted]
        self._found, self._strength = found[order], strength[order]

    def tokens_of(self, place: int) -> list[int]:
        """Numbers of the tokens that were kept for a feature, strongest first."""
        return [int(token) for token in self._found[self._found[:, 0] == place, 2]]


def _first_of(keys: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which rows of sorted keys differ from the row before."""
    first = np.ones(len(keys), dtype=bool)
    first[1:] = (keys[1:] != keys[:-1]).any(axis=1)
    return first


def _context(sae: SparseAutoencoder, store: Store, feature: int, token: int, around: int) -> Context:
    """The tokens around one: neighbours in the store, as far as they are neighbours in the text."""
    start = max(0, token - around)
    window = store[start : token + around + 1]
    peak = token - start
    steps = torch.arange(len(window.position)) - peak
    together = (window.document == window.document[peak]) & (window.position - window.position[peak] == steps)
    apart = (~together).nonzero()[:, 0]
    first = int(apart[apart < peak].max()) + 1 if (apart < peak).any() else 0
    end = int(apart[apart > peak].min()) if (apart > peak).any() else len(window.position)
    codes = _encode(sae, window)
    activations = torch.where(codes.indices == feature, codes.values, 0).sum(dim=-1)
    return Context(
        token_ids=window.token_ids[first:end].tolist(),
        activations=activations[first:end].tolist(),
        peak=peak - first,
        document=int(window.document[peak]),
        position=int(window.position[peak]),
    )


def _chunks(store: Store) -> Iterator[tuple[int, Tokens]]:
    """The whole store, a little at a time, with the number of the first token of each piece."""
    for start in range(0, store.tokens, TOKENS_AT_ONCE):
        yield start, store[start : start + TOKENS_AT_ONCE]


@torch.no_grad()
def _encode(sae: SparseAutoencoder, tokens: Tokens) -> Codes:
    """Codes of every token on the CPU; massive tokens, which an autoencoder is not asked about, use no feature."""
    x: Float[Tensor, "tokens m"] = tokens.activations.to(sae.pre_bias.device, torch.float32)
    codes = sae.encode(x).to("cpu")
    return Codes(codes.values * ~tokens.massive[:, None], codes.indices, codes.n)
