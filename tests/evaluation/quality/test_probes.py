"""Probes find the feature that was put there, and their thresholds are the best there are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.sparse import csc_array
from sklearn.metrics import roc_auc_score

from expander_sae.evaluation.bootstrap import Bootstrap
from expander_sae.evaluation.quality.probes import (
    PENALTY,
    Probe,
    ProbeTask,
    _Sorted,
    auc_of,
    fit_logistic,
    fit_single_probes,
)
from expander_sae.evaluation.quality.reading import Halves


def f1_of(said: np.ndarray, truth: np.ndarray) -> float:
    """Harmonic mean of precision and recall; 0 if nothing was found."""
    return float(2 * (said & truth).sum() / max(1, said.sum() + truth.sum()))


@given(st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=40)
def test_no_threshold_is_better_than_the_one_that_is_found(seed: int) -> None:
    generator = np.random.default_rng(seed)
    dense = generator.integers(0, 4, (30, 4)) * (generator.random((30, 4)) < 0.7)
    truth = generator.random(30) < 0.3
    ordered = _Sorted.of(csc_array(dense.astype(np.float32)))
    scores = ordered.best(truth)
    for column, values in enumerate(dense.T):
        possible = [f1_of(values >= level, truth) for level in (1, 2, 3) if (values >= level).any()]
        assert scores[column] == pytest.approx(max(possible, default=0))
        assert f1_of(values >= ordered.threshold(column, truth), truth) == pytest.approx(scores[column])


def probe_of(dense: NDArray[np.float64], truth: NDArray[np.bool_]) -> Probe:
    """A probe for one label; documents have a hundred tokens each."""
    document = np.arange(len(truth)) // 100
    found = ProbeTask(Halves.of(document, 0).first, document).probes(csc_array(dense), {"kind": truth})["kind"]
    assert found is not None
    return found


def test_a_feature_that_stands_for_a_label_is_found() -> None:
    generator = np.random.default_rng(0)
    truth = generator.random(2000) < 0.1
    noise = generator.random((2000, 20)) * (generator.random((2000, 20)) < 0.2)
    dense = np.c_[noise, truth * generator.integers(1, 3, 2000)]
    probe = probe_of(dense, truth)
    assert probe.feature == 20
    bootstrap = Bootstrap(20)
    assert probe.single.f1(bootstrap).value == 1.0
    assert probe.together.f1(bootstrap).value > 0.98
    assert probe.auc == 1.0
    assert probe.loss < 0.05 < 0.3 < probe.loss_without
    assert probe.share == pytest.approx(truth.mean())


def test_eight_features_tell_what_no_single_one_does() -> None:
    generator = np.random.default_rng(1)
    parts = generator.random((4000, 8)) < 0.03
    dense = np.c_[parts * 1.0, generator.random((4000, 10)) * (generator.random((4000, 10)) < 0.1)]
    probe = probe_of(dense, parts.any(axis=1))
    bootstrap = Bootstrap(40)
    assert probe.single.f1(bootstrap).value < 0.4
    assert probe.together.f1(bootstrap).value == 1.0


def test_a_label_that_never_or_always_holds_has_no_probe() -> None:
    document = np.repeat(np.arange(10), 10)
    task = ProbeTask(Halves.of(document, 0).first, document)
    labels = {"never": np.zeros(100, dtype=bool), "always": np.ones(100, dtype=bool), "once": np.arange(100) == 3}
    assert task.probes(csc_array(np.ones((100, 2))), labels) == dict.fromkeys(labels)


@given(st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=20)
def test_the_gradient_vanishes_where_the_logistic_loss_is_least(seed: int) -> None:
    generator = np.random.default_rng(seed)
    x, truth = generator.normal(size=(50, 3)), generator.random(50) < 0.4
    weights = fit_logistic(x, truth, penalty=0.01)
    p = 1 / (1 + np.exp(-(x @ weights[:-1] + weights[-1])))
    slope = np.c_[x, np.ones(50)].T @ (p - truth) / 50 + 0.02 * np.r_[weights[:-1], 0]
    assert np.abs(slope).max() < 1e-4


@given(st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=20)
def test_a_probe_on_one_feature_is_the_logistic_regression_on_it(seed: int) -> None:
    generator = np.random.default_rng(seed)
    x = generator.random((80, 3)) * (generator.random((80, 3)) < 0.5)
    truth = generator.random(80) < 0.2 + 0.6 * (x[:, 0] > 0)
    truth[:2] = [False, True]
    slopes, constants = fit_single_probes(x, truth)
    for column in range(3):
        p = 1 / (1 + np.exp(-(x[:, column] * slopes[column] + constants[column])))
        assert abs((p - truth).mean()) < 1e-5
        assert abs(((p - truth) * x[:, column]).mean() + 2 * PENALTY * slopes[column]) < 1e-5


@given(st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=20)
def test_the_area_under_the_curve_is_that_of_sklearn(seed: int) -> None:
    generator = np.random.default_rng(seed)
    scores, truth = generator.integers(0, 5, 40).astype(np.float64), generator.random(40) < 0.4
    truth[:2] = [False, True]
    assert auc_of(scores, truth) == pytest.approx(roc_auc_score(truth, scores))
