"""OMP and matching pursuit against textbook loops, scikit-learn and the theory's promises."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls
from sklearn.linear_model import orthogonal_mp, orthogonal_mp_gram

from expander_sae.coders import OMP, MatchingPursuit
from expander_sae.dictionaries import DenseDictionary, ExpanderDictionary
from expander_sae.supports import Support
from tests.coders.problems import (
    FAMILIES,
    flat_dictionary,
    from_matrix,
    gaussian,
    make_dictionary,
    matrix_of,
    plant,
    residual,
    support_of,
)

PURSUITS = (OMP, MatchingPursuit)
every_family = pytest.mark.parametrize("family", FAMILIES)
every_pursuit = pytest.mark.parametrize("pursuit", PURSUITS)
every_sign = pytest.mark.parametrize("signed", [False, True], ids=["non-negative", "signed"])
problems = {
    "family": st.sampled_from(FAMILIES),
    "seed": st.integers(0, 10_000),
    "k": st.integers(1, 8),
}


def tokens_for(dictionary, seed=0):
    return torch.cat([plant(dictionary, 3, 5, seed=seed).x, gaussian(3, dictionary.m, seed=seed)])


def unit(dictionary):
    dictionary.normalise_columns()
    return dictionary


def textbook_omp(matrix, x, k):
    """Non-negative OMP: take the best column, solve non-negative least squares, drop what became zero, repeat."""
    directions = matrix / np.linalg.norm(matrix, axis=0)
    chosen, codes = [], np.zeros(matrix.shape[1])
    for _ in range(3 * k):
        scores = directions.T @ (x - matrix @ codes)
        scores[chosen] = -np.inf
        best = int(scores.argmax())
        if len(chosen) == k or scores[best] <= 1e-12 * np.linalg.norm(x):
            break
        chosen.append(best)
        values = nnls(matrix[:, chosen], x)[0]
        codes = np.zeros(matrix.shape[1])
        codes[chosen] = values
        chosen = [feature for feature in chosen if codes[feature] > 0]
    return codes


def textbook_matching_pursuit(matrix, x, steps, signed):
    """Matching pursuit; non-negative codes may also be cut back, but not below zero, where that helps more."""
    lengths = np.linalg.norm(matrix, axis=0)
    directions, codes = matrix / lengths, np.zeros(matrix.shape[1])
    for _ in range(steps):
        left = x - directions @ codes
        scores = directions.T @ left
        moves = scores if signed else np.maximum(scores, -codes)
        gains = moves * (2 * scores - moves)
        best = int(gains.argmax())
        if gains[best] <= 0:
            break
        codes[best] += moves[best]
    return codes / lengths


@settings(deadline=None, max_examples=30)
@given(**problems)
def test_signed_omp_is_scikit_learns(family, seed, k):
    dictionary = unit(make_dictionary(family, seed=seed))
    matrix, x = matrix_of(dictionary), tokens_for(dictionary, seed)[3:]
    found = OMP(k, signed=True)(dictionary, x).to_dense().numpy()
    np.testing.assert_allclose(found.T, orthogonal_mp(matrix, x.numpy().T, n_nonzero_coefs=k).reshape(-1, 3), atol=1e-8)
    by_gram = orthogonal_mp_gram(matrix.T @ matrix, matrix.T @ x.numpy().T, n_nonzero_coefs=k)
    np.testing.assert_allclose(found.T, by_gram.reshape(-1, 3), atol=1e-8)


@settings(deadline=None, max_examples=40)
@given(**problems)
def test_non_negative_omp_is_the_textbook_loop(family, seed, k):
    dictionary = make_dictionary(family, seed=seed)
    x = tokens_for(dictionary, seed)
    found = OMP(k)(dictionary, x).to_dense().numpy()
    expected = np.stack([textbook_omp(matrix_of(dictionary), token, k) for token in x.numpy()])
    np.testing.assert_allclose(found, expected, atol=1e-7)


@settings(deadline=None, max_examples=40)
@given(**problems, signed=st.booleans())
def test_matching_pursuit_is_the_textbook_loop(family, seed, k, signed):
    dictionary = make_dictionary(family, seed=seed)
    x = tokens_for(dictionary, seed)
    found = MatchingPursuit(k, signed=signed)(dictionary, x).to_dense().numpy()
    expected = [textbook_matching_pursuit(matrix_of(dictionary), token, k, signed) for token in x.numpy()]
    np.testing.assert_allclose(found, np.stack(expected), atol=1e-8)


@settings(deadline=None, max_examples=25)
@given(**problems)
def test_a_step_of_matching_pursuit_takes_off_its_correlation_squared(family, seed, k):
    dictionary = unit(make_dictionary(family, seed=seed))
    x = tokens_for(dictionary, seed)
    before, after = (
        residual(dictionary, MatchingPursuit(steps, signed=True)(dictionary, x), x) for steps in (k, k + 1)
    )
    best = dictionary.correlate(before).detach().abs().amax(dim=1)
    drop = before.square().sum(dim=1) - after.square().sum(dim=1)
    # A planted token may be finished before the last step.
    torch.testing.assert_close(drop, best.square(), atol=1e-9, rtol=1e-6)


@settings(deadline=None, max_examples=25)
@given(**problems, signed=st.booleans())
def test_omp_codes_are_the_fit_of_their_features(family, seed, k, signed):
    dictionary = make_dictionary(family, seed=seed)
    x = tokens_for(dictionary, seed)
    codes = OMP(k, signed=signed)(dictionary, x)
    left = residual(dictionary, codes, x)
    at = dictionary.correlate_at(left, codes.indices).detach()
    assert (at.abs()[codes.active] <= 1e-8).all()
    for token in range(len(x)):
        features = support_of(codes, token)
        assert len(set(features.tolist())) == len(features)
        fit = np.linalg.lstsq(matrix_of(dictionary)[:, features], x[token].numpy(), rcond=None)[0]
        np.testing.assert_allclose(codes.to_dense()[token, features], fit, atol=1e-7)


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10_000), pursuit=st.sampled_from(PURSUITS), family=st.sampled_from(FAMILIES))
def test_length_sign_and_order_of_columns_do_not_matter(seed, pursuit, family):
    dictionary = make_dictionary(family, seed=seed)
    matrix, x = dictionary.to_dense().detach(), gaussian(4, dictionary.m, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(dictionary.n, generator=generator)
    scale = 10 ** gaussian(1, dictionary.n, seed=seed)[0]
    flips = 2.0 * torch.randint(0, 2, (dictionary.n,), generator=generator) - 1
    plain = pursuit(5, signed=True)(dictionary, x).to_dense()
    changed = pursuit(5, signed=True)(from_matrix((matrix * scale * flips)[:, order]), x).to_dense()
    torch.testing.assert_close(changed * (scale * flips)[order], plain[:, order], atol=1e-7, rtol=0)
    positive = pursuit(5)(dictionary, x).to_dense()
    changed = pursuit(5)(from_matrix((matrix * scale)[:, order]), x).to_dense()
    torch.testing.assert_close(changed * scale[order], positive[:, order], atol=1e-7, rtol=0)


@every_pursuit
@every_family
@every_sign
def test_a_column_is_its_own_code(pursuit, family, signed):
    dictionary = make_dictionary(family)
    x = 2.5 * dictionary.to_dense().detach().T[[0, 3, 39]]
    codes = pursuit(4, signed=signed)(dictionary, x)
    expected = torch.zeros(3, 40, dtype=torch.float64)
    expected[torch.arange(3), [0, 3, 39]] = 2.5
    torch.testing.assert_close(codes.to_dense(), expected)
    assert (codes.l0 == 1).all()


@every_family
@pytest.mark.parametrize("tolerance", [0.1, 0.5, 0.9])
def test_tolerance_stops_at_the_first_step_that_meets_it(family, tolerance):
    dictionary = make_dictionary(family)
    x = gaussian(6, dictionary.m)
    codes = OMP(dictionary.m, tolerance=tolerance, signed=True)(dictionary, x)
    left = residual(dictionary, codes, x).norm(dim=1)
    assert (left <= tolerance * x.norm(dim=1)).all()
    for token, used in enumerate(codes.l0.tolist()):
        shorter = OMP(used - 1, signed=True)(dictionary, x[token]) if used > 1 else None
        before = x[token].norm() if shorter is None else residual(dictionary, shorter, x[token]).norm()
        assert before > tolerance * x[token].norm()


def repeated_columns(family):
    """Twelve columns of width 6, every one of them three times."""
    if family == "expander":
        support = Support.from_rows([[0, 1], [1, 2], [2, 3], [3, 4]] * 3, m=6)
        return ExpanderDictionary(support, gaussian(4, 2).repeat(3, 1))
    return from_matrix(gaussian(4, 6).repeat(3, 1).T)


@pytest.mark.parametrize("family", ["expander", "dense"])
@every_sign
def test_equal_columns_are_passed_over(family, signed):
    dictionary = repeated_columns(family)
    x = plant(dictionary, 5, 3, signed=signed).x
    codes = OMP(8, signed=signed)(dictionary, x)
    assert codes.values.isfinite().all()
    assert (codes.l0 <= 4).all()
    columns = codes.indices % 4
    for token in range(5):
        used = columns[token][codes.active[token]]
        assert len(used.unique()) == len(used)
    if signed:
        torch.testing.assert_close(residual(dictionary, codes, x), torch.zeros_like(x))


@every_family
@every_sign
def test_more_features_than_the_rank_stay_finite(family, signed):
    dictionary = make_dictionary(family, m=8, n=30, d=3)
    x = gaussian(5, 8)
    codes = OMP(20, signed=signed)(dictionary, x)
    assert codes.values.isfinite().all()
    assert (codes.l0 <= 8).all()
    if signed:
        assert residual(dictionary, codes, x).abs().max() < 1e-9


def exact_recovery_constant(matrix, features):
    """Tropp's constant: below 1, OMP recovers every code on these features."""
    others = np.setdiff1d(np.arange(matrix.shape[1]), features)
    return np.abs(np.linalg.pinv(matrix[:, features]) @ matrix[:, others]).sum(axis=0).max()


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 1000), k=st.integers(2, 6))
def test_recovery_under_tropps_condition_at_any_dynamic_range(seed, k):
    dictionary = flat_dictionary(m=91, n=150, d=7, seed=seed)
    matrix, generator = matrix_of(dictionary), np.random.default_rng(seed)
    features = generator.choice(150, k, replace=False)
    gram = np.abs(matrix.T @ matrix - np.eye(150))[:, features]
    inside = gram[features].sum(axis=1).max()
    outside = np.delete(gram, features, axis=0).sum(axis=1).max()
    condition = exact_recovery_constant(matrix, features) < 1 - 1e-9
    assert condition or inside + outside >= 1 - 1e-9, "the local Babel condition implies Tropp's"
    if condition:
        codes = np.zeros((50, 150))
        codes[:, features] = 10 ** generator.uniform(-3, 3, (50, k)) * generator.choice([-1, 1], (50, k))
        found = OMP(k, signed=True)(dictionary, torch.from_numpy(codes @ matrix.T)).to_dense().numpy()
        np.testing.assert_allclose(found, codes, atol=1e-7)


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 1000), k=st.integers(1, 3))
def test_recovery_of_non_negative_codes_below_the_babel_bound(seed, k):
    # Flat columns that share at most one of 7 coordinates: mu_1(k) = k / 7, so k = 3 is the last that is promised.
    dictionary = flat_dictionary(m=91, n=150, d=7, seed=seed)
    planted = plant(dictionary, 20, k, seed=seed)
    torch.testing.assert_close(OMP(k)(dictionary, planted.x).to_dense(), planted.codes.to_dense(), atol=1e-9, rtol=0)


def test_a_large_batch_on_a_dense_dictionary_takes_the_same_codes_as_a_small_one():
    # Enough tokens that a Gram matrix pays, which is another way to keep correlations.
    dictionary = DenseDictionary(20, 30, gaussian(30, 20))
    x = gaussian(200, 20)
    for pursuit in PURSUITS:
        together = pursuit(5, signed=True)(dictionary, x).to_dense()
        alone = torch.stack([pursuit(5, signed=True)(dictionary, token).to_dense() for token in x[:20]])
        torch.testing.assert_close(together[:20], alone, atol=1e-9, rtol=0)
