"""Probes: how well single features, or eight of them together, tell tokens of one kind from all others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.sparse import csc_array
from scipy.stats import rankdata

from expander_sae.evaluation.bootstrap import Bootstrap, DocumentSums
from expander_sae.evaluation.results import Interval

TOGETHER = 8
"""Features of a probe that may use several."""
CANDIDATES = 16
"""Features whose logistic probes are tried for each label: those that correlate most with it."""
LEAST_POSITIVES = 10
"""Tokens of a kind that each half must have, or there is no probe of it."""
PENALTY = 1e-4
"""Times the squares of the weights, added to the mean logistic loss."""
STEPS = 12
"""Of Newton's method for a probe on a single feature."""

Mask = NDArray[np.bool_]
Labels = Mapping[str, Mask]
"""Of every token, whether it is of a kind."""


@dataclass(frozen=True)
class Counts:
    """What a probe said about the tokens that it was not learned from, in sums over documents."""

    right: DocumentSums
    """Tokens of the kind that it found."""
    said_and_true: DocumentSums
    """Tokens that it named, and tokens of the kind, counted together."""

    @classmethod
    def of(cls, said: Mask, truth: Mask, document: NDArray[np.int64], documents: int) -> Counts:
        """Counted for every document."""
        counts, where = cls(DocumentSums(documents), DocumentSums(documents)), torch.from_numpy(document)
        counts.right.add(torch.from_numpy(said & truth), where)
        counts.said_and_true.add(torch.from_numpy(said.astype(np.int64) + truth), where)
        return counts

    def f1(self, bootstrap: Bootstrap) -> Interval:
        """Harmonic mean of precision and recall."""
        return bootstrap.ratio(2 * self.right.sums, self.said_and_true.sums)


@dataclass(frozen=True)
class Probe:
    """Probes for one kind of token, learned on one half of the documents and tried on the other."""

    label: str
    share: float
    """Of the tokens that are of this kind."""
    feature: int
    """The single feature that tells them best by a threshold."""
    single: Counts
    """What that feature finds."""
    together: Counts
    """What a logistic probe on the eight features that tell them best finds."""
    loss: float
    """Of the best logistic probe on a single feature, in nats per token."""
    loss_without: float
    """Of a probe that knows no feature, only how frequent the kind is."""
    auc: float
    """Area under the ROC curve of the single feature of which it is farthest from one half where it is learned."""


@dataclass(frozen=True)
class ProbeTask:
    """Tokens, half of them to learn from, and the firings of features on them."""

    learn: Mask
    document: NDArray[np.int64]
    """Numbered from 0."""

    def probes(self, firings: csc_array, labels: Labels) -> dict[str, Probe | None]:
        """A probe for every label; None where a half has too few tokens with it or without it."""
        rows = firings.tocsr()
        known, unseen = _Sorted.of(rows[self.learn].tocsc()), rows[~self.learn].tocsc()
        return {name: self._probe(name, known, unseen, truth) for name, truth in labels.items()}

    def _probe(self, name: str, known: _Sorted, unseen: csc_array, truth: Mask) -> Probe | None:
        seen, hidden = truth[self.learn], truth[~self.learn]
        if min(min(half.sum(), (~half).sum()) for half in (seen, hidden)) < LEAST_POSITIVES:
            return None
        chosen = np.argsort(-known.best(seen), kind="stable")[:TOGETHER]
        best = int(chosen[0])
        single = unseen[:, [best]].toarray()[:, 0] >= known.threshold(best, seen)
        together = _logistic(known.matrix[:, chosen].toarray(), seen, unseen[:, chosen].toarray())
        document, documents = self.document[~self.learn], int(self.document.max()) + 1
        loss, without, auc = _tried(known.matrix, seen, unseen, hidden)
        return Probe(
            name,
            float(truth.mean()),
            best,
            Counts.of(single, hidden, document, documents),
            Counts.of(together, hidden, document, documents),
            loss,
            without,
            auc,
        )


@dataclass(frozen=True)
class _Sorted:
    """The firings of one half, those of every feature from strong to weak."""

    matrix: csc_array
    token: NDArray[np.int64]
    value: NDArray[np.float32]
    last: Mask
    """Whether a threshold may lie behind this firing: the next one of the feature is weaker, or of another."""
    rank: NDArray[np.float32]
    """Firings of the feature down to this one."""
    column: NDArray[np.int32]

    @classmethod
    def of(cls, matrix: csc_array) -> _Sorted:
        """Sort them once for all labels."""
        column = np.repeat(np.arange(matrix.shape[1], dtype=np.int32), np.diff(matrix.indptr))
        order = np.lexsort((-matrix.data, column))
        value = matrix.data[order]
        last = np.ones(len(order), dtype=bool)
        last[:-1] = (value[1:] != value[:-1]) | (column[1:] != column[:-1])
        rank = np.arange(len(order)) - matrix.indptr[column] + 1
        return cls(matrix, matrix.indices[order], value, last, rank.astype(np.float32), column)

    def best(self, truth: Mask) -> NDArray[np.float32]:
        """For every feature its highest F1 at any threshold; 0 for a silent one."""
        best, firing = np.zeros(self.matrix.shape[1], dtype=np.float32), np.diff(self.matrix.indptr) > 0
        if firing.any():
            best[firing] = np.maximum.reduceat(self._f1(truth, slice(None)), self.matrix.indptr[:-1][firing])
        return best

    def threshold(self, feature: int, truth: Mask) -> float:
        """The weakest firing of a feature that counts where its F1 is highest; infinite if it never fires."""
        place = slice(int(self.matrix.indptr[feature]), int(self.matrix.indptr[feature + 1]))
        return float(self.value[place][self._f1(truth, place).argmax()]) if place.stop > place.start else float("inf")

    def _f1(self, truth: Mask, place: slice) -> NDArray[np.float32]:
        """F1 of the features of these firings if each of them were the weakest that counts."""
        right = np.cumsum(truth[self.token[place]], dtype=np.int32)
        column = self.column[place]
        first = int(column[0]) if len(column) else 0
        starts = self.matrix.indptr[first:-1] - self.matrix.indptr[first]
        before = np.concatenate([[0], right]).astype(np.int32)[np.minimum(starts, len(right))]
        right -= before[column - first]
        f1: NDArray[np.float32] = 2 * right / (self.rank[place] + np.float32(truth.sum())) * self.last[place]
        return f1


def _logistic(x: NDArray[np.float32], truth: Mask, unseen: NDArray[np.float32]) -> Mask:
    """What a logistic probe learned from x says of unseen tokens, at the threshold that is best for F1 on x."""
    scale = np.abs(x).max(axis=0).clip(min=1e-12)
    weights = fit_logistic(x / scale, truth)
    scores, found = (np.c_[part / scale, np.ones(len(part))] @ weights for part in (x, unseen))
    order = np.argsort(-scores, kind="stable")
    f1 = 2 * np.cumsum(truth[order]) / (np.arange(1, len(order) + 1) + truth.sum())
    return np.asarray(found >= scores[order[int(f1.argmax())]])


def fit_logistic(x: NDArray[np.floating], truth: Mask, penalty: float = PENALTY) -> NDArray[np.float64]:
    """Weights of a logistic regression, that of the constant last and not penalised."""
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


def _tried(known: csc_array, seen: Mask, unseen: csc_array, hidden: Mask) -> tuple[float, float, float]:
    """On unseen tokens: the loss of the best logistic probe on a single feature, that of none, and the best AUC."""
    candidates = _most_correlated(known, seen)
    x, tried = known[:, candidates].toarray(), unseen[:, candidates].toarray()
    scale = np.abs(x).max(axis=0).clip(min=1e-12)
    slopes, constants = fit_single_probes(x / scale, seen)
    best = int(_losses(x / scale * slopes + constants, seen).argmin())
    share = float(seen.mean())
    without = -np.log(np.where(hidden, share, 1 - share)).mean()
    loss = _losses(tried[:, [best]] / scale[best] * slopes[best] + constants[best], hidden)[0]
    areas = np.array([auc_of(column, seen) for column in x.T]) - 0.5
    farthest = int(np.abs(areas).argmax())
    area = auc_of(tried[:, farthest], hidden)
    return float(loss), float(without), area if areas[farthest] >= 0 else 1 - area


def auc_of(scores: NDArray[np.floating], truth: Mask) -> float:
    """The chance that a token of the kind scores higher than another one, ties counted half."""
    positives = int(truth.sum())
    ranks = rankdata(scores)[truth].sum() - positives * (positives + 1) / 2
    return float(ranks / (positives * (len(truth) - positives)))


def _most_correlated(known: csc_array, truth: Mask) -> NDArray[np.int64]:
    """The features whose activation correlates most with the label, whatever the sign."""
    count = len(truth)
    means = np.asarray(known.sum(axis=0)) / count
    squares = np.asarray(known.multiply(known).sum(axis=0)) / count
    covariance = truth.astype(np.float64) @ known / count - means * truth.mean()
    correlation = np.abs(covariance) / np.sqrt((squares - means**2).clip(min=1e-12))
    return np.argsort(-correlation, kind="stable")[:CANDIDATES]


def fit_single_probes(x: NDArray[np.floating], truth: Mask) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Slope and constant of a logistic regression on every column by itself, by Newton's method."""
    share = truth.mean()
    slope, constant = np.zeros(x.shape[1]), np.full(x.shape[1], np.log(share / (1 - share)))
    for _ in range(STEPS):
        p = 1 / (1 + np.exp(-(x * slope + constant).clip(-50, 50)))
        error, weight = p - truth[:, None], p * (1 - p)
        g0, g1 = error.mean(axis=0), (error * x).mean(axis=0) + 2 * PENALTY * slope
        h00, h01 = weight.mean(axis=0) + 1e-12, (weight * x).mean(axis=0)
        h11 = (weight * x * x).mean(axis=0) + 2 * PENALTY
        determinant = h00 * h11 - h01**2
        # A step is cut short where the curvature is nearly nought, which would throw it far away.
        slope -= ((h00 * g1 - h01 * g0) / determinant).clip(-5, 5)
        constant -= ((h11 * g0 - h01 * g1) / determinant).clip(-5, 5)
    return slope, constant


def _losses(scores: NDArray[np.floating], truth: Mask) -> NDArray[np.float64]:
    """Of every column, the mean logistic loss in nats."""
    signs = np.where(truth, 1.0, -1.0)[:, None]
    return np.asarray(np.logaddexp(0, -signs * scores).mean(axis=0))
