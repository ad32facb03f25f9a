"""What a feature's firings tell a reader: the token it stands for, and what its strongest contexts have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

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
"""Groups of contexts whose predictions are made together: the output embedding is read once for all of them."""

Tokens = NDArray[np.int64]
"""Numbers of tokens, or one number for every token."""


@dataclass(frozen=True)
class Halves:
    """Documents in two halves: what is learned on one is tried on the other."""

    first: NDArray[np.bool_]
    """For every token, whether its document is in the half that is learned from."""

    @classmethod
    def of(cls, document: Tokens, seed: int) -> Halves:
        """Half the documents, drawn at random."""
        numbers = np.unique(document)
        chosen = np.random.default_rng(seed).permutation(numbers)[: (len(numbers) + 1) // 2]
        return cls(np.isin(document, chosen))


def token_r2(firings: csc_array, token: Tokens, halves: Halves) -> NDArray[np.float64]:
    """For every column, the share of its variance that the identity of the token explains; nan for a silent one.

    Means per token come from one half of the documents, shrunk towards the mean of all by one pseudo-count; their
    squared error is that on the other half.
    """
    kinds, kind = np.unique(token, return_inverse=True)
    learn, test = (_sums(firings, kind, len(kinds), half) for half in (halves.first, ~halves.first))
    overall = learn.sums.sum(axis=0) / max(1.0, learn.counts.sum())
    predicted = (learn.sums + overall) / (learn.counts + 1)[:, None]
    squares = firings.multiply(firings).tocsr()[~halves.first].sum(axis=0)
    error = squares - 2 * (predicted * test.sums).sum(axis=0) + test.counts @ predicted**2
    variation = squares - test.sums.sum(axis=0) ** 2 / max(1.0, test.counts.sum())
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(variation > 0, 1 - error / variation, np.nan)


@dataclass(frozen=True)
class _Sums:
    """Sums per kind of token."""

    sums: NDArray[np.float64]
    counts: NDArray[np.float64]


def _sums(firings: csc_array, kind: Tokens, kinds: int, half: NDArray[np.bool_]) -> _Sums:
    where = np.flatnonzero(half)
    members = csr_array((np.ones(len(where)), (kind[where], where)), shape=(kinds, len(kind)))
    return _Sums(
        (members @ firings.astype(np.float64)).toarray(), np.bincount(kind[where], minlength=kinds).astype(np.float64)
    )


def strongest_contexts(firings: csc_array, document: Tokens, feature: int, wanted: int = CONTEXTS) -> Tokens:
    """The tokens on which a feature fires most strongly, strongest first, each of another document."""
    tokens, values = _column(firings, feature)
    return _one_a_document(tokens[np.argsort(-np.abs(values), kind="stable")], document, wanted)


def drawn_contexts(
    firings: csc_array, document: Tokens, feature: int, generator: np.random.Generator, wanted: int = CONTEXTS
) -> Tokens:
    """Tokens on which a feature fires, drawn at random, each of another document."""
    tokens, _ = _column(firings, feature)
    return _one_a_document(generator.permutation(tokens), document, wanted)


def random_contexts(document: Tokens, generator: np.random.Generator, wanted: int = CONTEXTS) -> Tokens:
    """Tokens drawn at random, each of another document: what a feature without any meaning would show."""
    return _one_a_document(generator.permutation(len(document)), document, wanted)


def _column(firings: csc_array, feature: int) -> tuple[Tokens, NDArray[np.float32]]:
    place = slice(firings.indptr[feature], firings.indptr[feature + 1])
    return firings.indices[place].astype(np.int64), firings.data[place]


def _one_a_document(tokens: Tokens, document: Tokens, wanted: int) -> Tokens:
    """The first `wanted` of these tokens that are of different documents."""
    _, first = np.unique(document[tokens], return_index=True)
    return tokens[np.sort(first)[:wanted]]


def purity(folded: Tokens, contexts: Sequence[Tokens]) -> NDArray[np.float64]:
    """For every group of contexts the share of its commonest token, letter case apart; nan for an empty group.

    `folded` gives tokens that differ only in letter case the same number.
    """
    return np.array([np.unique(folded[each], return_counts=True)[1].max() / len(each) if len(each) else np.nan
                     for each in contexts])  # fmt: skip


def coherence_of_activations(centred: Float[Tensor, "tokens m"], contexts: Sequence[Tokens]) -> NDArray[np.float64]:
    """For every group of contexts the mean cosine of the centred activations of two of them."""
    return _means_of_pairs(contexts, lambda tokens: torch.nn.functional.normalize(centred[tokens]))


def coherence_of_predictions(predictions: Predictions, contexts: Sequence[Tokens]) -> NDArray[np.float64]:
    """For every group of contexts the mean affinity `sum sqrt(p q)` of the model's predictions at two of them."""
    return _means_of_pairs(contexts, predictions.roots)


def _means_of_pairs(contexts: Sequence[Tokens], unit_vectors: Callable[[Tensor], Tensor]) -> NDArray[np.float64]:
    """For every group the mean inner product of the unit vectors of two of its tokens; nan if there are no two."""
    means = []
    for start in range(0, len(contexts), GROUPS_AT_ONCE):
        groups = contexts[start : start + GROUPS_AT_ONCE]
        vectors = unit_vectors(torch.from_numpy(np.concatenate(groups)))
        for group, own in zip(groups, torch.split(vectors, [len(group) for group in groups]), strict=True):
            count = len(group)
            together, alone = (float(each.double()) for each in (own.sum(dim=0).square().sum(), own.square().sum()))
            means.append((together - alone) / (count * (count - 1)) if count > 1 else np.nan)
    return np.array(means)
