"""Probes find the feature that was put there, and their thresholds are the best there are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csc_array

from expander_sae.evaluation.quality.probes import _Sorted, f1_of, fit_logistic, word_probes
from expander_sae.evaluation.quality.reading import Halves


@given(st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=40)
def test_no_threshold_is_better_than_the_one_that_is_found(seed: int) -> None:
    generator = np.random.default_rng(seed)
    dense = generator.integers(0, 4, (30, 4)) * (generator.random((30, 4)) < 0.7)
    truth = generator.random(30) < 0.3
    scores, thresholds = _Sorted.of(csc_array(dense.astype(np.float32))).best(truth)
    for column, values in enumerate(dense.T):
        possible = [f1_of(values >= level, truth) for level in (1, 2, 3) if (values >= level).any()]
        assert scores[column] == pytest.approx(max(possible, default=0))
        assert f1_of(values >= thresholds[column], truth) == pytest.approx(scores[column])


def test_a_feature_that_stands_for_a_label_is_found() -> None:
    generator = np.random.default_rng(0)
    truth = generator.random(2000) < 0.1
    noise = generator.random((2000, 20)) * (generator.random((2000, 20)) < 0.2)
    dense = np.c_[noise, truth * generator.integers(1, 3, 2000)]
    halves = Halves.of(np.repeat(np.arange(20), 100), 0)
    probe = word_probes(csc_array(dense), {"kind": truth}, halves)["kind"]
    assert probe is not None
    assert probe.feature == 20
    assert probe.f1 == 1.0
    assert probe.f1_together > 0.98
    assert probe.share == pytest.approx(truth.mean())


def test_eight_features_tell_what_no_single_one_does() -> None:
    generator = np.random.default_rng(1)
    parts = generator.random((4000, 8)) < 0.03
    dense = np.c_[parts * 1.0, generator.random((4000, 10)) * (generator.random((4000, 10)) < 0.1)]
    halves = Halves.of(np.repeat(np.arange(40), 100), 0)
    probe = word_probes(csc_array(dense), {"any of them": parts.any(axis=1)}, halves)["any of them"]
    assert probe is not None
    assert probe.f1 < 0.4
    assert probe.f1_together == 1.0


def test_a_label_that_never_or_always_holds_has_no_probe() -> None:
    firings, halves = csc_array(np.ones((100, 2))), Halves.of(np.repeat(np.arange(10), 10), 0)
    labels = {"never": np.zeros(100, dtype=bool), "always": np.ones(100, dtype=bool), "once": np.arange(100) == 3}
    assert word_probes(firings, labels, halves) == dict.fromkeys(labels)


@given(st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=20)
def test_the_gradient_vanishes_where_the_logistic_loss_is_least(seed: int) -> None:
    generator = np.random.default_rng(seed)
    x, truth = generator.normal(size=(50, 3)), generator.random(50) < 0.4
    weights = fit_logistic(x, truth, penalty=0.01)
    p = 1 / (1 + np.exp(-(x @ weights[:-1] + weights[-1])))
    slope = np.c_[x, np.ones(50)].T @ (p - truth) / 50 + 0.02 * np.r_[weights[:-1], 0]
    assert np.abs(slope).max() < 1e-4
