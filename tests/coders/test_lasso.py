"""The lasso coders: duality gap, optimality, agreement with each other and with scikit-learn."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls
from sklearn.linear_model import Lasso

from expander_sae.coders import FISTA, CoordinateDescent
from expander_sae.coders.fista import largest_eigenvalue
from expander_sae.coders.lasso import duality_gap, largest_penalty, soft_threshold
from tests.coders.problems import FAMILIES, from_matrix, gaussian, make_dictionary, matrix_of, plant, support_of

SOLVERS = (FISTA, CoordinateDescent)
every_solver = pytest.mark.parametrize("solver", SOLVERS)
every_sign = pytest.mark.parametrize("signed", [False, True], ids=["non-negative", "signed"])


def tokens_for(dictionary, tokens=4, seed=0):
    """Half of them planted with noise, half without any structure."""
    planted = plant(dictionary, tokens // 2, 4, seed=seed).x
    noise = gaussian(tokens, dictionary.m, seed=seed)
    return torch.cat([planted + 0.1 * noise[: tokens // 2], noise[tokens // 2 :]])


def penalties_of(dictionary, x, share, signed):
    return share * largest_penalty(dictionary.correlate(x).detach(), signed)


def objective(dictionary, x, dense, penalty):
    error = x - dense @ dictionary.to_dense().detach().T
    return error.square().sum(dim=1) / 2 + penalty * dense.abs().sum(dim=1)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10_000), signed=st.booleans(), share=st.floats(0.01, 1.0), density=st.floats(0.0, 1.0))
def test_gap_bounds_the_distance_to_the_optimum(seed, signed, share, density):
    dictionary = make_dictionary("dense", m=8, n=12, seed=seed)
    x = tokens_for(dictionary, seed=seed)
    penalty = penalties_of(dictionary, x, share, signed)
    best = CoordinateDescent(share, gap=1e-6, signed=signed)(dictionary, x).to_dense()
    generator = torch.Generator().manual_seed(seed)
    codes = best + 0.3 * torch.randn(best.shape, generator=generator, dtype=best.dtype)
    codes = codes * (torch.rand(best.shape, generator=generator) < density)
    codes = codes if signed else codes.clamp(min=0)
    residual = x - codes @ dictionary.to_dense().detach().T
    gap = duality_gap(residual.square().sum(dim=1), dictionary.correlate(residual).detach(), codes, penalty, signed)
    distance = objective(dictionary, x, codes, penalty) - objective(dictionary, x, best, penalty)
    assert (gap >= 0).all()
    assert (distance <= gap + 1e-9).all()


@settings(deadline=None, max_examples=25)
@given(family=st.sampled_from(FAMILIES), seed=st.integers(0, 1000), signed=st.booleans(), share=st.floats(0.03, 0.9))
def test_both_solvers_and_scikit_learn_agree(family, seed, signed, share):
    dictionary = make_dictionary(family, m=12, n=16, d=3, seed=seed)
    x = tokens_for(dictionary, seed=seed)
    penalty = penalties_of(dictionary, x, share, signed)
    values = []
    for solver in SOLVERS:
        codes = solver(share, iterations=20_000, gap=1e-8, signed=signed)(dictionary, x).to_dense()
        values.append(objective(dictionary, x, codes, penalty))
    matrix = matrix_of(dictionary)
    reference = []
    for token, size in zip(x.numpy(), penalty.numpy(), strict=True):
        model = Lasso(size / len(token), fit_intercept=False, positive=not signed, tol=1e-10, max_iter=100_000)
        reference.append(model.fit(matrix, token).coef_)
    expected = objective(dictionary, x, torch.from_numpy(np.stack(reference)), penalty)
    energy = x.square().sum(dim=1) / 2
    for value in values:
        assert ((value - expected).abs() <= 1e-7 * energy).all()


@every_solver
@every_sign
def test_optimality_conditions(solver, signed):
    dictionary = make_dictionary("expander")
    x = tokens_for(dictionary, tokens=8)
    codes = solver(0.1, iterations=20_000, gap=1e-12, signed=signed)(dictionary, x).to_dense()
    slopes = dictionary.correlate(x - codes @ dictionary.to_dense().T).detach()
    penalty = penalties_of(dictionary, x, 0.1, signed)[:, None].expand_as(slopes)
    active = codes != 0
    assert active.any(dim=1).all()
    torch.testing.assert_close(slopes[active], (penalty * codes.sign())[active], atol=1e-4, rtol=0)
    assert ((slopes.abs() if signed else slopes) <= penalty + 1e-4).all()
    assert signed or (codes >= 0).all()


@every_solver
@every_sign
@pytest.mark.parametrize("family", FAMILIES)
def test_the_gap_asked_for_is_met(solver, signed, family):
    dictionary = make_dictionary(family)
    x = tokens_for(dictionary)
    energy, penalty = x.square().sum(dim=1) / 2, penalties_of(dictionary, x, 0.1, signed)
    best = objective(dictionary, x, CoordinateDescent(0.1, gap=1e-11, signed=signed)(dictionary, x).to_dense(), penalty)
    for gap in (1e-1, 1e-3, 1e-5):
        codes = solver(0.1, iterations=20_000, gap=gap, signed=signed)(dictionary, x).to_dense()
        assert (objective(dictionary, x, codes, penalty) - best <= gap * energy + 1e-9).all()


@every_solver
@every_sign
def test_the_largest_penalty_gives_zero_and_a_smaller_one_does_not(solver, signed):
    dictionary = make_dictionary("expander")
    x = tokens_for(dictionary)
    assert not solver(1.0, signed=signed)(dictionary, x).active.any()
    assert solver(0.95, gap=1e-8, signed=signed)(dictionary, x).active.any(dim=-1).all()


@every_solver
def test_a_token_that_no_column_helps_has_zero_codes(solver):
    dictionary = from_matrix(torch.ones(3, 4, dtype=torch.float64))
    codes = solver(0.1)(dictionary, -torch.ones(2, 3, dtype=torch.float64))
    assert not codes.active.any()


@every_solver
def test_the_penalty_is_a_share_so_scale_does_not_matter(solver):
    dictionary = make_dictionary("expander")
    x = tokens_for(dictionary)
    small, large = (solver(0.1, gap=1e-10)(dictionary, scale * x).to_dense() for scale in (1.0, 1e3))
    torch.testing.assert_close(large, 1e3 * small, atol=1e-1, rtol=0)


@every_solver
def test_k_keeps_the_largest_codes(solver):
    dictionary = make_dictionary("expander")
    x = tokens_for(dictionary)
    whole = solver(0.1, gap=1e-8)(dictionary, x).to_dense()
    codes = solver(0.1, gap=1e-8, k=2)(dictionary, x)
    torch.testing.assert_close(codes.values, whole.topk(2, dim=1).values)
    assert solver(0.9, k=30)(dictionary, x).values.shape == (4, 30)


@every_solver
@every_sign
def test_refit_is_least_squares_on_the_kept_features(solver, signed):
    dictionary = make_dictionary("expander")
    x = tokens_for(dictionary)
    kept, refitted = (solver(0.1, k=3, refit=refit, signed=signed)(dictionary, x) for refit in (False, True))
    for token in range(len(x)):
        features = support_of(kept, token)
        matrix, target = matrix_of(dictionary)[:, features], x[token].numpy()
        expected = np.linalg.lstsq(matrix, target, rcond=None)[0] if signed else nnls(matrix, target)[0]
        np.testing.assert_allclose(refitted.to_dense()[token, features], expected, atol=1e-9)


@every_solver
def test_refit_survives_equal_columns(solver):
    column = gaussian(1, 6)[0]
    dictionary = from_matrix(torch.stack([column, column, gaussian(1, 6, seed=1)[0]], dim=1))
    codes = solver(0.01, k=3, refit=True, signed=True)(dictionary, column)
    assert codes.values.isfinite().all()
    torch.testing.assert_close(dictionary.synthesize(codes).detach(), column)


@every_solver
def test_single_precision_columns_meet_a_double_precision_gap(solver):
    dictionary = make_dictionary("expander", dtype=torch.float32)
    x = tokens_for(dictionary).double()
    codes = solver(0.1, iterations=2000, gap=1e-10)(dictionary, x).to_dense()
    residual = x - codes @ dictionary.to_dense().detach().double().T
    slopes, penalty = dictionary.correlate(residual).detach(), penalties_of(dictionary, x, 0.1, False)
    gap = duality_gap(residual.square().sum(dim=1), slopes, codes, penalty, False)
    assert (gap <= 1.01e-10 * x.square().sum(dim=1) / 2).all()


def test_iterations_bound_the_work():
    dictionary = make_dictionary("union")
    x = tokens_for(dictionary)
    penalty = penalties_of(dictionary, x, 0.01, False)
    short, long = (
        objective(dictionary, x, FISTA(0.01, iterations=count, gap=1e-9)(dictionary, x).to_dense(), penalty)
        for count in (2, 2000)
    )
    assert (long < short).all()


@settings(deadline=None, max_examples=20)
@given(family=st.sampled_from(FAMILIES), seed=st.integers(0, 1000))
def test_power_iteration_comes_close_from_below(family, seed):
    dictionary = make_dictionary(family, seed=seed)
    found = float(largest_eigenvalue(dictionary, torch.float64).detach())
    exact = np.linalg.norm(matrix_of(dictionary), 2) ** 2
    assert 0.8 * exact <= found <= exact * (1 + 1e-9)


def test_fista_recovers_from_a_curvature_that_is_too_small(monkeypatch):
    dictionary = make_dictionary("dense")
    x = tokens_for(dictionary)
    monkeypatch.setattr("expander_sae.coders.fista.SAFETY", 0.05)
    codes = FISTA(0.1, iterations=5000, gap=1e-6)(dictionary, x).to_dense()
    best = CoordinateDescent(0.1, gap=1e-9)(dictionary, x).to_dense()
    penalty = penalties_of(dictionary, x, 0.1, False)
    gain = objective(dictionary, x, codes, penalty) - objective(dictionary, x, best, penalty)
    assert (gain <= 1e-6 * x.square().sum(dim=1)).all()


def test_soft_threshold_minimises_its_problem():
    values, threshold = torch.linspace(-3, 3, 25, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64)
    grid = torch.linspace(-4, 4, 8001, dtype=torch.float64)
    for signed in (False, True):
        allowed = grid if signed else grid[grid >= 0]
        loss = (values[:, None] - allowed).square() / 2 + threshold * allowed.abs()
        torch.testing.assert_close(
            soft_threshold(values, threshold, signed), allowed[loss.argmin(dim=1)], atol=2e-3, rtol=0
        )
