"""NIHT and HTP: the error never rises, fits are fits, fixed points stay."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from expander_sae.coders import HTP, NIHT
from expander_sae.coders.thresholding import keep_largest
from expander_sae.kernels.refit import least_squares
from tests.coders.problems import (
    FAMILIES,
    from_matrix,
    gaussian,
    make_dictionary,
    matrix_of,
    plant,
    residual,
    support_of,
)

CODERS = (NIHT, HTP)
every_coder = pytest.mark.parametrize("coder", CODERS)
every_sign = pytest.mark.parametrize("signed", [False, True], ids=["non-negative", "signed"])


def hard_tokens(dictionary, seed=0):
    return torch.cat([plant(dictionary, 3, 5, seed=seed).x, gaussian(3, dictionary.m, seed=seed)])


@settings(deadline=None, max_examples=60)
@given(entries=st.lists(st.integers(-3, 3), min_size=3, max_size=7), k=st.integers(1, 3), signed=st.booleans())
def test_keep_largest_is_the_best_approximation_even_with_ties(entries, k, signed):
    dense = torch.tensor([entries], dtype=torch.float64)
    values, indices = keep_largest(dense, k, signed)
    kept = torch.zeros_like(dense).scatter(1, indices, values)
    assert len(set(indices[0].tolist())) == k
    best = min(
        sum(
            (entry - (entry if place in chosen and (signed or entry > 0) else 0)) ** 2
            for place, entry in enumerate(entries)
        )
        for chosen in itertools.combinations(range(len(entries)), k)
    )
    assert float((dense - kept).square().sum()) == best
    assert signed or (kept >= 0).all()


@settings(deadline=None, max_examples=8)
@given(family=st.sampled_from(FAMILIES), seed=st.integers(0, 1000), signed=st.booleans(), coder=st.sampled_from(CODERS))
def test_the_error_never_rises(family, seed, signed, coder):
    dictionary = make_dictionary(family, seed=seed)
    x = hard_tokens(dictionary, seed)
    errors = [x.square().sum(dim=1)]
    for iterations in range(1, 12):
        codes = coder(5, iterations=iterations, signed=signed)(dictionary, x)
        errors.append(residual(dictionary, codes, x).square().sum(dim=1))
        assert (errors[-1] <= errors[-2] * (1 + 1e-10)).all()
    assert (errors[-1] < errors[0]).all()


@settings(deadline=None, max_examples=8)
@given(family=st.sampled_from(FAMILIES), seed=st.integers(0, 1000))
def test_niht_ends_where_its_features_cannot_improve(family, seed):
    # A step that is too long must be shortened: giving up on it leaves some gradient on the support.
    dictionary = make_dictionary(family, seed=seed)
    dictionary.normalise_columns()
    x = gaussian(6, dictionary.m, seed=seed)
    codes = NIHT(3, iterations=1000, signed=True)(dictionary, x)
    slopes = dictionary.correlate_at(residual(dictionary, codes, x), codes.indices).detach()
    assert (slopes.abs() <= 1e-5 * x.norm(dim=1, keepdim=True)).all()


@pytest.mark.parametrize("family", FAMILIES)
@every_sign
def test_htp_is_a_fit_that_would_be_chosen_again(family, signed):
    dictionary = make_dictionary(family)
    x = hard_tokens(dictionary)
    codes = HTP(5, signed=signed)(dictionary, x)
    again = HTP(5, iterations=300, signed=signed)(dictionary, x)
    torch.testing.assert_close(codes.to_dense(), again.to_dense())
    for token in range(len(x)):
        features = support_of(codes, token)
        matrix = matrix_of(dictionary)[:, features]
        expected = np.linalg.lstsq(matrix, x[token].numpy(), rcond=None)[0]
        np.testing.assert_allclose(codes.to_dense()[token, features], expected, atol=1e-8)


@every_coder
@every_sign
def test_planted_codes_are_found_in_a_dense_dictionary(coder, signed):
    dictionary = make_dictionary("dense", m=60, n=80)
    planted = plant(dictionary, 10, 3, signed=signed)
    codes = coder(3, iterations=500, signed=signed)(dictionary, planted.x)
    torch.testing.assert_close(codes.to_dense(), planted.codes.to_dense(), atol=1e-6, rtol=0)


@every_coder
def test_the_scale_of_columns_does_not_matter(coder):
    matrix = gaussian(30, 50)
    scale = torch.logspace(-3, 3, 50, dtype=torch.float64)[
        torch.randperm(50, generator=torch.Generator().manual_seed(0))
    ]
    x = hard_tokens(from_matrix(matrix))
    plain = coder(5, signed=True)(from_matrix(matrix), x).to_dense()
    scaled = coder(5, signed=True)(from_matrix(matrix * scale), x).to_dense()
    torch.testing.assert_close(scaled * scale, plain, atol=1e-7, rtol=0)


@every_coder
def test_tolerance_stops_early(coder):
    dictionary = make_dictionary("dense", m=60, n=80)
    x = plant(dictionary, 10, 3).x
    rough = residual(dictionary, coder(3, tolerance=0.5)(dictionary, x), x).norm(dim=1)
    fine = residual(dictionary, coder(3, iterations=500)(dictionary, x), x).norm(dim=1)
    assert (rough <= 0.5 * x.norm(dim=1)).all()
    assert (fine < 1e-6).all()
    assert (rough > fine).any()


@every_coder
def test_equal_columns_are_survived(coder):
    column = gaussian(1, 10)[0]
    dictionary = from_matrix(torch.stack([column, column, -column, gaussian(1, 10, seed=1)[0]], dim=1))
    codes = coder(3, iterations=300, signed=True)(dictionary, column)
    assert codes.values.isfinite().all()
    assert float(residual(dictionary, codes, column).norm()) < 1e-6


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 100_000), width=st.integers(1, 8), signed=st.booleans(), repeat=st.booleans())
def test_least_squares_equals_scipy(seed, width, signed, repeat):
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(10, width, generator=generator, dtype=torch.float64)
    matrix = matrix / matrix.norm(dim=0)
    if repeat:
        matrix[:, -1] = matrix[:, 0]
    target = torch.randn(10, generator=generator, dtype=torch.float64)
    used = torch.rand(width, generator=generator) < 0.8
    start = torch.rand(width, generator=generator, dtype=torch.float64) * used
    codes = least_squares(
        (matrix.T @ matrix)[None],
        (matrix.T @ target)[None],
        start[None],
        used[None],
        signed=signed,
        dependent=1e-10,
    )[0]
    part = matrix[:, used].numpy()
    solve = (
        (lambda: np.linalg.lstsq(part, target.numpy(), rcond=None)[0]) if signed else (lambda: nnls(part, target)[0])
    )
    best = part @ solve() if used.any() else np.zeros(10)
    np.testing.assert_allclose((matrix @ codes).numpy(), best, atol=1e-7)
    assert not codes[~used].any()
    assert signed or (codes >= 0).all()
