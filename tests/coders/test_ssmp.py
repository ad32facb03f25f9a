"""SSMP: the weighted median, the descent that the theory promises, and robustness to gross errors."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from expander_sae.coders import OMP, SSMP
from expander_sae.coders.ssmp import weighted_median
from expander_sae.dictionaries import Codes
from tests.coders.problems import FAMILIES, gaussian, make_dictionary, matrix_of, plant, residual

entries = st.tuples(st.integers(-5, 5), st.integers(0, 4))


def absolute(x):
    return x.abs().sum(dim=-1)


@settings(deadline=None, max_examples=200)
@given(pairs=st.lists(entries, min_size=1, max_size=8).filter(lambda pairs: any(weight for _, weight in pairs)))
def test_weighted_median_minimises_absolute_deviations(pairs):
    points, weights = torch.tensor(pairs, dtype=torch.float64).T

    def loss(z):
        return float((weights * (points - z).abs()).sum())

    found = float(weighted_median(points, weights))
    assert loss(found) == min(loss(point) for point in points[weights > 0])
    assert found in points[weights > 0]


def test_weighted_median_of_many_at_once():
    points, weights = gaussian(12, 5).reshape(3, 4, 5), gaussian(12, 5, seed=1).abs().reshape(3, 4, 5)
    together = weighted_median(points, weights)
    assert together.shape == (3, 4)
    assert together[2, 1] == weighted_median(points[2, 1], weights[2, 1])


def textbook(matrix, x, steps, signed):
    """The plain loop: of all features and all values that bring a coordinate to zero, the best, and so on."""
    codes, left = np.zeros(matrix.shape[1]), x.copy()
    for _ in range(steps):
        best_gain, best_step, best_feature = 1e-12, 0.0, 0
        for feature, column in enumerate(matrix.T):
            rows = np.flatnonzero(column)
            for step in [*(left[rows] / column[rows]), -codes[feature]]:
                allowed = step if signed else max(step, -codes[feature])
                gain = np.abs(left).sum() - np.abs(left - allowed * column).sum()
                if gain > best_gain + 1e-12:
                    best_gain, best_step, best_feature = gain, allowed, feature
        codes[best_feature] += best_step
        left -= best_step * matrix[:, best_feature]
    return codes


@settings(deadline=None, max_examples=15)
@given(family=st.sampled_from(FAMILIES), seed=st.integers(0, 1000), signed=st.booleans())
def test_one_round_is_the_textbook_loop(family, seed, signed):
    dictionary = make_dictionary(family, m=10, n=14, d=3, seed=seed)
    x = gaussian(2, 10, seed=seed)
    codes = SSMP(6, rounds=1, steps=1, signed=signed)(dictionary, x).to_dense()
    for token in range(2):
        expected = textbook(matrix_of(dictionary), x[token].numpy(), 6, signed)
        np.testing.assert_allclose(codes[token].numpy(), expected, atol=1e-9)


@settings(deadline=None, max_examples=6)
@given(family=st.sampled_from(FAMILIES), seed=st.integers(0, 1000), signed=st.booleans())
def test_the_sum_of_absolute_residuals_never_rises(family, seed, signed):
    dictionary = make_dictionary(family, seed=seed)
    x = torch.cat([plant(dictionary, 2, 4, seed=seed).x, gaussian(2, dictionary.m, seed=seed)])
    # With one round and one step per feature nothing is dropped, so k counts the steps.
    errors = [absolute(x)]
    for steps in range(1, 8):
        errors.append(absolute(residual(dictionary, SSMP(steps, rounds=1, steps=1, signed=signed)(dictionary, x), x)))
    for rounds in range(1, 5):
        errors.append(absolute(residual(dictionary, SSMP(7, rounds=rounds, steps=2, signed=signed)(dictionary, x), x)))
    steps, rounds = torch.stack(errors[:8]), torch.stack([errors[0], *errors[8:]])
    for series in (steps, rounds):
        assert (series.diff(dim=0) <= 1e-9).all()
    assert (steps[-1] < steps[0]).all()


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10_000), k=st.integers(1, 5))
def test_one_step_descends_as_much_as_the_lemma_says(seed, k):
    dictionary = make_dictionary("expander", m=60, n=30, d=5, seed=seed)
    planted = plant(dictionary, 1, k, signed=True, seed=seed)
    # Mass of the columns on every coordinate, largest code first: what comes after the first entry collides with it.
    order = planted.codes.values[0].abs().argsort(descending=True)
    mass = (matrix_of(dictionary)[:, planted.codes.indices[0, order]] * planted.codes.values[0, order].numpy()).T
    mass = np.abs(mass)
    first = (np.cumsum(mass > 0, axis=0) == 1) & (mass > 0)
    promised = (mass.sum() - 4 * (mass * ~first).sum()) / k
    step = SSMP(1, rounds=1, steps=1, signed=True)(dictionary, planted.x)
    gained = absolute(planted.x) - absolute(residual(dictionary, step, planted.x))
    assert float(gained) >= promised - 1e-9


@pytest.mark.parametrize("signed", [False, True], ids=["non-negative", "signed"])
def test_planted_codes_survive_gross_errors_that_spoil_least_squares(signed):
    dictionary = make_dictionary("expander", m=200, n=300, d=12)
    planted = plant(dictionary, 8, 3, signed=signed)
    spoiled = planted.x.clone()
    spoiled[:, :3] += 1000.0
    codes = SSMP(3, signed=signed)(dictionary, spoiled)
    torch.testing.assert_close(codes.to_dense(), planted.codes.to_dense(), atol=1e-9, rtol=0)
    fitted = OMP(3, signed=signed)(dictionary, spoiled).to_dense()
    assert not torch.isclose(fitted, planted.codes.to_dense(), atol=1e-2).all()


def test_tolerance_is_a_share_of_the_sum_of_absolute_values():
    dictionary = make_dictionary("expander", m=60, n=80)
    x = plant(dictionary, 10, 4).x
    rough = SSMP(4, tolerance=0.5)(dictionary, x)
    assert (absolute(residual(dictionary, rough, x)) <= 0.5 * absolute(x)).all()
    assert int(rough.l0.sum()) < int(SSMP(4)(dictionary, x).l0.sum())


def test_the_scale_of_columns_does_not_matter():
    dictionary = make_dictionary("expander", m=60, n=80)
    x = gaussian(5, 60)
    plain = SSMP(4, signed=True)(dictionary, x).to_dense()
    scale = torch.logspace(-3, 3, 80, dtype=torch.float64)
    with torch.no_grad():
        dictionary.values.mul_(scale[:, None])
    torch.testing.assert_close(SSMP(4, signed=True)(dictionary, x).to_dense() * scale, plain, atol=1e-8, rtol=0)


def test_codes_are_k_wide_when_nothing_helps():
    dictionary = make_dictionary("expander")
    codes = SSMP(4)(dictionary, torch.zeros(2, dictionary.m))
    assert isinstance(codes, Codes)
    assert codes.values.shape == (2, 4)
