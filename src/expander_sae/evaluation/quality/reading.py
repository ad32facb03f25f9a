"""What a feature's firings tell a reader: the token it stands for, and what its strongest contexts have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.sparse import csc_array, csr_array
from torch import Tensor

from expander_sae.evaluation.quality.predictions import Predictions

CONTEXTS = 10
"""Contexts of a feature that are compared with each other."""
GROUPS_AT_ONCE = 16
"""Features whose contexts' predictions are made together: the output embedding is read once for all of them."""

Tokens = NDArray[np.signedinteger[Any]]
"""Numbers of tokens, or one number for every token."""
Mask = NDArray[np.bool_]
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Halves:
    """Documents in two halves: what is learned on one is tried on the other."""

    first: Mask
    """For every token, whether its document is in the half that is learned from."""

    @classmethod
    def of(cls, document: Tokens, seed: int) -> Halves:
        """Half the documents, drawn at random."""
        numbers = np.unique(document)
        chosen = np.random.default_rng(seed).permutation(numbers)[: (len(numbers) + 1) // 2]
        return cls(np.isin(document, chosen))


def token_r2(firings: csc_array, token: Tokens, learn: Mask, test: Mask) -> Values:
    """For every column, the share of its variance that the identity of the token explains; nan for a silent one.

    Means per token come from the tokens to learn from, shrunk towards the mean of all by one pseudo-count; their
    squared error is that on the tokens to test on.
    """
    kinds, kind = np.unique(token, return_inverse=True)
    known, unseen = (_Sums.of(firings, kind, len(kinds), which) for which in (learn, test))
    overall = known.sums.sum(axis=0) / max(1.0, known.counts.sum())
    # The mean of a kind is predicted as (overall + its sum) / (its count + 1); a sum is nought for most kinds.
    share = 1 / (known.counts + 1)
    together = overall * (share @ unseen.sums) + known.sums.multiply(unseen.sums).T @ share
    weight = unseen.counts * share**2
    predicted = overall**2 * weight.sum() + 2 * overall * (weight @ known.sums) + known.sums.power(2).T @ weight
    squares = firings.multiply(firings).T @ test.astype(np.float64)
    error = squares - 2 * together + predicted
    variation = squares - unseen.sums.sum(axis=0) ** 2 / max(1.0, unseen.counts.sum())
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(variation > 0, 1 - error / variation, np.nan)


@dataclass(frozen=True)
class _Sums:
    """Sums over the tokens of a kind."""

    sums: csr_array
    """Of the activations of every feature `[kinds, features]`."""
    counts: Values

    @classmethod
    def of(cls, firings: csc_array, kind: Tokens, kinds: int, which: Mask) -> Self:
        """Over these tokens."""
        where = np.flatnonzero(which)
        members = csr_array((np.ones(len(where)), (kind[where], where)), shape=(kinds, len(kind)))
        return cls(members @ firings, np.bincount(kind[where], minlength=kinds).astype(np.float64))


def strongest_first(firings: csc_array, document: Tokens, feature: int) -> Tokens:
    """The tokens on which a feature fires, strongest first, of each document only its strongest one."""
    tokens, values = _column(firings, feature)
    return _one_a_document(tokens[np.argsort(-np.abs(values), kind="stable")], document)


def in_random_order(firings: csc_array, document: Tokens, feature: int, generator: np.random.Generator) -> Tokens:
    """Tokens on which a feature fires, drawn at random, one of each document."""
    return _one_a_document(generator.permutation(_column(firings, feature)[0]), document)


def any_tokens(document: Tokens, generator: np.random.Generator) -> Tokens:
    """Tokens drawn at random, one of each document: what a feature without any meaning would show."""
    return _one_a_document(generator.permutation(len(document)), document)


def _column(firings: csc_array, feature: int) -> tuple[Tokens, NDArray[np.float32]]:
    place = slice(firings.indptr[feature], firings.indptr[feature + 1])
    return firings.indices[place].astype(np.int64), firings.data[place]


def _one_a_document(tokens: Tokens, document: Tokens) -> Tokens:
    """The first of these tokens that is of a document, for every document."""
    _, first = np.unique(document[tokens], return_index=True)
    return tokens[np.sort(first)]


@dataclass(frozen=True)
class Contexts:
    """The contexts of a feature that are compared, and those that would be if other documents had been read."""

    tokens: Tokens
    """All that any choice below needs."""
    choices: Sequence[Tokens]
    """Places in `tokens`: the first ten, then for every part of the documents the first ten without it."""

    @classmethod
    def of(cls, ordered: Tokens, part: Tokens, parts: int) -> Contexts:
        """Out of one token for each document, in the order in which they are taken; `part` is that of every token."""
        chosen = [np.arange(len(ordered))[:CONTEXTS]]
        chosen += [np.flatnonzero(part[ordered] != number)[:CONTEXTS] for number in range(parts)]
        used = np.unique(np.concatenate(chosen))
        return cls(ordered[used], [np.searchsorted(used, choice) for choice in chosen])

    @property
    def first(self) -> Tokens:
        """The ten."""
        return self.tokens[self.choices[0]]


def purity(folded: Tokens, contexts: Sequence[Contexts]) -> Values:
    """For every feature and choice of its contexts the share of the commonest token, letter case apart.

    `folded` gives tokens that differ only in letter case the same number.
    """
    return np.array(
        [[_share_of_commonest(folded[each.tokens][choice]) for choice in each.choices] for each in contexts]
    )


def _share_of_commonest(kinds: Tokens) -> float:
    return float(np.unique(kinds, return_counts=True)[1].max() / len(kinds)) if len(kinds) else np.nan


def coherence_of_activations(centred: Float[Tensor, "tokens m"], contexts: Sequence[Contexts]) -> Values:
    """For every feature and choice of its contexts the mean cosine of the centred activations of two of them."""
    return _means_of_pairs(contexts, lambda tokens: torch.nn.functional.normalize(centred[tokens]))


def coherence_of_predictions(predictions: Predictions, contexts: Sequence[Contexts]) -> Values:
    """For every feature and choice of contexts the mean affinity `sum sqrt(p q)` of the predictions at two of them."""
    return _means_of_pairs(contexts, predictions.roots)


def _means_of_pairs(contexts: Sequence[Contexts], unit_vectors: Callable[[Tensor], Tensor]) -> Values:
    """For every feature and choice the mean inner product of the unit vectors of two contexts."""
    means = []
    for start in range(0, len(contexts), GROUPS_AT_ONCE):
        groups = contexts[start : start + GROUPS_AT_ONCE]
        vectors = unit_vectors(torch.from_numpy(np.concatenate([group.tokens for group in groups])))
        for group, own in zip(groups, torch.split(vectors, [len(group.tokens) for group in groups]), strict=True):
            products = (own @ own.T).double().numpy()
            means.append([_mean_off_diagonal(products[np.ix_(choice, choice)]) for choice in group.choices])
    return np.array(means)


def _mean_off_diagonal(products: Values) -> float:
    """Of a square matrix; nan if it has no two rows."""
    count = len(products)
    return float(products.sum() - np.trace(products)) / (count * (count - 1)) if count > 1 else np.nan
