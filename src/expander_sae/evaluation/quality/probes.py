"""Probes: how well single features, or eight of them together, tell tokens of one kind from all others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.sparse import csc_array

from expander_sae.evaluation.quality.reading import Halves

TOGETHER = 8
"""Features of a probe that may use several."""
LEAST_POSITIVES = 10
"""Tokens of a kind that each half must have, or there is no probe of it."""


@dataclass(frozen=True)
class Probe:
    """What a probe for one kind of token found on one half of the documents, and its F1 on the other."""

    label: str
    share: float
    """Of the tokens that are of this kind."""
    feature: int
    """The single feature that tells them best."""
    f1: float
    f1_together: float
    """Of a logistic probe on the eight features that tell them best."""


def word_probes(firings: csc_array, labels: Mapping[str, NDArray[np.bool_]], halves: Halves) -> dict[str, Probe | None]:
    """A probe for every label; None where a half has too few tokens with it or without it.

    Features are chosen and thresholds set on the first half, F1 is that on the other.
    """
    learn = _Sorted.of(_rows(firings, halves.first))
    test = _rows(firings, ~halves.first)
    return {name: _probe(name, learn, test, truth, halves) for name, truth in labels.items()}


def _rows(firings: csc_array, which: NDArray[np.bool_]) -> csc_array:
    return firings.tocsr()[which].tocsc()


@dataclass(frozen=True)
class _Sorted:
    """The firings of one half, those of every feature from strong to weak."""

    matrix: csc_array
    token: NDArray[np.int64]
    value: NDArray[np.float32]
    last: NDArray[np.bool_]
    """Whether a threshold may lie behind this firing: the next one of the feature is weaker, or of another."""
    rank: NDArray[np.int64]
    """Firings of the feature down to this one."""

    @classmethod
    def of(cls, matrix: csc_array) -> _Sorted:
        """Sort them once for all labels."""
        column = np.repeat(np.arange(matrix.shape[1]), np.diff(matrix.indptr))
        order = np.lexsort((-matrix.data, column))
        value = matrix.data[order]
        last = np.ones(len(order), dtype=bool)
        last[:-1] = (value[1:] != value[:-1]) | (column[1:] != column[:-1])
        rank = np.arange(len(order)) - matrix.indptr[column] + 1
        return cls(matrix, matrix.indices[order], value, last, rank)

    def best(self, truth: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """For every feature its highest F1, and the weakest firing that still counts then."""
        right = np.cumsum(truth[self.token])
        starts = self.matrix.indptr[:-1]
        before = np.concatenate([[0], right])[starts]
        counts = np.diff(self.matrix.indptr)
        f1 = 2 * (right - np.repeat(before, counts)) / (self.rank + truth.sum()) * self.last
        best, threshold = np.zeros(len(counts)), np.full(len(counts), np.inf, dtype=np.float32)
        firing = counts > 0
        if firing.any():
            best[firing] = np.maximum.reduceat(f1, starts[firing])
            at = np.flatnonzero(f1 == np.repeat(best, counts))
            column = np.repeat(np.arange(len(counts)), counts)[at]
            threshold[column[::-1]] = self.value[at[::-1]]  # the first one of each feature is written last
        return best, threshold


def _probe(name: str, learn: _Sorted, test: csc_array, truth: NDArray[np.bool_], halves: Halves) -> Probe | None:
    seen, unseen = truth[halves.first], truth[~halves.first]
    if min(min(half.sum(), (~half).sum()) for half in (seen, unseen)) < LEAST_POSITIVES:
        return None
    scores, thresholds = learn.best(seen)
    chosen = np.argsort(-scores, kind="stable")[:TOGETHER]
    best = int(chosen[0])
    single = test[:, [best]].toarray()[:, 0] >= thresholds[best]
    together = _logistic(learn.matrix[:, chosen].toarray(), seen, test[:, chosen].toarray())
    return Probe(name, float(truth.mean()), best, f1_of(single, unseen), f1_of(together, unseen))


def _logistic(x: NDArray[np.float32], truth: NDArray[np.bool_], unseen: NDArray[np.float32]) -> NDArray[np.bool_]:
    """What a logistic probe learned from x says of unseen tokens, at the threshold that is best for F1 on x."""
    scale = np.abs(x).max(axis=0).clip(min=1e-12)
    weights = fit_logistic(x / scale, truth)
    scores, found = (np.c_[part / scale, np.ones(len(part))] @ weights for part in (x, unseen))
    order = np.argsort(-scores, kind="stable")
    f1 = 2 * np.cumsum(truth[order]) / (np.arange(1, len(order) + 1) + truth.sum())
    return np.asarray(found >= scores[order[int(f1.argmax())]])


def fit_logistic(x: NDArray[np.floating], truth: NDArray[np.bool_], penalty: float = 1e-4) -> NDArray[np.float64]:
    """Weights of a logistic regression, that of the constant last; the loss has `penalty` times their squares added."""
    inputs = np.c_[x, np.ones(len(x))].astype(np.float64)
    signs = np.where(truth, 1.0, -1.0)

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        margin = signs * (inputs @ weights)
        slope = -signs / (1 + np.exp(np.minimum(margin, 500)))
        penalised = np.r_[weights[:-1], 0.0]
        value = float(np.logaddexp(0, -margin).mean() + penalty * penalised @ penalised)
        return value, inputs.T @ slope / len(inputs) + 2 * penalty * penalised

    found = minimize(loss, np.zeros(inputs.shape[1]), jac=True, method="L-BFGS-B")
    return np.asarray(found.x)


def f1_of(said: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Harmonic mean of precision and recall; 0 if nothing was found."""
    return float(2 * (said & truth).sum() / max(1, said.sum() + truth.sum()))
