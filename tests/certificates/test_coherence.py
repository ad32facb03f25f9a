"""Coherence and Babel function without a Gram matrix, and that pursuit does find what they certify."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import expander_sae as xs
from expander_sae.certificates.coherence import Coherence, dense_coherence, sparse_coherence
from expander_sae.certificates.matrix import Mask, present_above
from expander_sae.certificates.progress import silent
from tests.certificates.masks import small_masks


def unit_values(mask, seed):
    """Random unit columns on a mask, zero where it has no value."""
    values = np.random.default_rng(seed).standard_normal(mask.rows.shape) * (mask.rows >= 0)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def dense_of(mask, values):
    """The columns [n, m]."""
    dense = np.zeros((mask.n, mask.m))
    for feature, line in enumerate(mask.rows):
        dense[feature, line[line >= 0]] = values[feature][line >= 0]
    return dense


def babel_of(dense, partners):
    """The definition."""
    gram = np.abs(dense @ dense.T)
    np.fill_diagonal(gram, 0.0)
    most = -np.sort(-gram, axis=1)[:, :partners]
    sums = np.cumsum(np.pad(most, ((0, 0), (0, partners - most.shape[1]))), axis=1)
    return np.concatenate([[0.0], sums.max(axis=0)])


@settings(deadline=None, max_examples=60)
@given(small_masks(), st.integers(1, 10), st.integers(0, 99))
def test_streamed_and_blocked_babel_functions_are_the_definition(mask, partners, seed):
    values = unit_values(mask, seed)
    dense = dense_of(mask, values)
    exact = babel_of(dense, partners)
    assert sparse_coherence(values, mask, partners, silent) == pytest.approx(exact, abs=1e-12)
    assert dense_coherence(dense, partners, silent) == pytest.approx(exact, abs=1e-12)


def test_columns_that_cancel_are_counted_right():
    """Equal supports whose products sum to zero on the way and in the end."""
    rows = np.array([[0, 1, 2, 3]] * 3, dtype=np.int32)
    values = np.array([[1.0, 1, 1, 1], [1, -1, 1, -1], [1, -1, 1, 1]]) / 2
    mask = Mask.of(rows, present_above(values, 0.0), 4)
    assert sparse_coherence(values, mask, 2, silent).tolist() == [0.0, 0.5, 1.0]


def test_the_order_of_features_does_not_matter():
    support = xs.Support.make("uniform", m=60, n=400, d=5)
    values = np.random.default_rng(0).standard_normal((400, 5))
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    order = np.random.default_rng(1).permutation(400)
    found = []
    for each in (np.arange(400), order):
        mask = Mask.of(support.rows.numpy()[each], np.ones((400, 5), dtype=bool), 60)
        found.append(sparse_coherence(values[each], mask, 12, silent))
    assert found[0] == pytest.approx(found[1], abs=1e-12)


@pytest.mark.parametrize(("d", "k"), [(7, 3), (9, 4), (16, 8)])
def test_flat_columns_of_overlap_one_stop_strictly_below_half_of_d_plus_1(d, k):
    """mu_1(k) = k / d there, so at d = 7 the sum for k = 4 is exactly 1, which is not enough."""
    support = xs.Support.make("lines", m=2048, n=16384, d=d)
    signs = np.where(np.random.default_rng(0).random((16384, d)) < 0.5, -1.0, 1.0)
    mask = Mask.of(support.rows.numpy(), np.ones((16384, d), dtype=bool), 2048)
    coherence = Coherence(sparse_coherence(signs / d**0.5, mask, 32, silent), 2048, 16384)
    assert coherence.mu == pytest.approx(1 / d)
    assert coherence.babel[: d + 1] == pytest.approx(np.arange(d + 1) / d)
    assert coherence.babel_k == coherence.coherence_k == k


def test_welch_is_a_bound_with_the_numbers_of_the_theory():
    for m, n, k in ((2048, 16384, 24), (576, 4608, 13)):
        assert Coherence(np.zeros(2), m, n).welch_k == k
    assert Coherence(np.zeros(2), 8, 8).welch_k is None
    # Three vectors at 120 degrees attain it.
    angles = np.arange(3) * 2 * np.pi / 3
    triple = Coherence(dense_coherence(np.stack([np.cos(angles), np.sin(angles)], axis=1), 2, silent), 2, 3)
    assert triple.mu == pytest.approx(triple.welch_mu) == pytest.approx(0.5)
    assert (triple.babel_k, triple.coherence_k, triple.welch_k) == (1, 1, 1)


def test_orthogonal_columns_are_certified_as_far_as_was_looked():
    assert Coherence(dense_coherence(np.eye(6), 4, silent), 6, 6).babel_k == 4


@pytest.mark.parametrize("signed", [True, False])
def test_pursuit_finds_every_code_that_babel_certifies(signed):
    """Also without signs, where the codes are not negative; over six orders of magnitude."""
    support = xs.Support.make("lines", m=128, n=256, d=7)
    generator = torch.Generator().manual_seed(0)
    dictionary = xs.ExpanderDictionary(support, dtype=torch.float64, generator=generator)
    indices = torch.stack([torch.randperm(256, generator=generator)[:3] for _ in range(200)])
    values = 10 ** (6 * torch.rand(200, 3, generator=generator, dtype=torch.float64))
    if signed:
        values *= torch.randint(0, 2, values.shape, generator=generator) * 2 - 1
    codes = xs.Codes(values, indices, 256)
    found = xs.OMP(k=3, signed=signed)(dictionary, dictionary.synthesize(codes))
    assert torch.equal(found.indices.sort(dim=1).values, indices.sort(dim=1).values)
    assert torch.allclose(found.to_dense(), codes.to_dense(), rtol=1e-6)
