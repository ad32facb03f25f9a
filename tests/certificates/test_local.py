"""Single sets of features: everything against its definition, and pursuit where Tropp's condition promises it."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import expander_sae as xs
from expander_sae.certificates.local import DenseSets, SparseSets
from expander_sae.certificates.matrix import Mask, present_above
from expander_sae.certificates.samples import Rate, random_sets
from tests.certificates.masks import small_masks
from tests.certificates.test_coherence import dense_of, unit_values


def sparse_sets(dictionary, tau=0.0):
    """The decider of an expander dictionary."""
    values = dictionary.values.detach().double().numpy()
    units = values / np.linalg.norm(values, axis=1, keepdims=True)
    rows, m = dictionary.support.rows.numpy(), dictionary.m
    return SparseSets(
        values, units, Mask.of(rows, present_above(values, 0.0), m), Mask.of(rows, present_above(values, tau), m)
    )


@settings(deadline=None, max_examples=60)
@given(small_masks(), st.integers(0, 99), st.data())
def test_one_set_is_decided_as_defined(mask, seed, data):
    features = np.array(sorted(data.draw(st.sets(st.integers(0, mask.n - 1), min_size=1, max_size=4))))
    units = unit_values(mask, seed)
    dense = dense_of(mask, units)
    singular = np.linalg.svd(dense[features].T, compute_uv=False)
    smallest = singular[-1] if features.size <= mask.m else 0.0
    assume(smallest > 1e-3 or smallest < 1e-9)  # nearly dependent columns magnify rounding
    outside = np.setdiff1d(np.arange(mask.n), features)
    erc = np.inf
    if smallest > 1e-3:
        erc = np.abs(np.linalg.pinv(dense[features].T) @ dense[outside].T).sum(axis=0).max(initial=0.0)
    decide = SparseSets(units, units, mask, mask)
    for found in (decide(features), decide(features), DenseSets(dense)(features)):  # scratch is left clean
        assert found.size == features.size
        assert found.erc == pytest.approx(erc, rel=1e-8, abs=1e-12)
        assert found.smallest_singular_value == pytest.approx(smallest, abs=1e-9)
    assert decide(features).remaining == mask.remaining(features).size
    if decide(features).remaining == 0:
        assert smallest > 0  # what peels is independent
    if decide(features).spreading > 0:
        assert smallest > 0


@settings(deadline=None, max_examples=60)
@given(small_masks(), st.integers(0, 99), st.data())
def test_local_babel_implies_tropps_condition(mask, seed, data):
    features = np.array(sorted(data.draw(st.sets(st.integers(0, mask.n - 1), min_size=1, max_size=4))))
    units = unit_values(mask, seed)
    gram = np.abs(dense_of(mask, units) @ dense_of(mask, units).T)
    np.fill_diagonal(gram, 0.0)
    outside = np.setdiff1d(np.arange(mask.n), features)
    across = gram[np.ix_(outside, features)].sum(axis=1).max(initial=0.0)
    within = gram[np.ix_(features, features)].sum(axis=1).max()
    if across + within < 1 - 1e-6:
        assert SparseSets(units, units, mask, mask)(features).recovers


def test_pursuit_finds_every_code_on_sets_with_tropps_condition():
    """Fifty codes on each, over six orders of magnitude."""
    generator = torch.Generator().manual_seed(0)
    dictionary = xs.ExpanderDictionary(
        xs.Support.make("uniform", m=96, n=200, d=6), dtype=torch.float64, generator=generator
    )
    decide, tried = sparse_sets(dictionary), 0
    for features in random_sets(np.arange(200), 4, 60, seed=1):
        if decide(features).recovers:
            tried += 1
            indices = torch.from_numpy(features).expand(50, -1)
            signs = torch.randint(0, 2, indices.shape, generator=generator) * 2 - 1
            values = signs * 10 ** (6 * torch.rand(indices.shape, generator=generator, dtype=torch.float64))
            codes = xs.Codes(values, indices, 200)
            found = xs.OMP(k=4, signed=True)(dictionary, dictionary.synthesize(codes))
            assert torch.equal(found.indices.sort(dim=1).values, indices)
            assert torch.allclose(found.to_dense(), codes.to_dense(), rtol=1e-6)
    assert 5 < tried < 60


@pytest.mark.parametrize(
    ("construction", "flat", "k", "stated", "of"),
    [
        ("uniform", True, 16, 0.51, 200), ("uniform", True, 8, 0.995, 200),
        ("uniform", False, 16, 0.11, 200), ("lines", True, 16, 0.60, 200),
    ],
)  # fmt: skip
def test_the_rates_of_the_theory(construction, flat, k, stated, of):
    """m=576, n=4608, d=7: both samples are of 200 sets, so their intervals meet."""
    generator = torch.Generator().manual_seed(0)
    support = xs.Support.make(construction, m=576, n=4608, d=7)
    values = None if flat else torch.randn(4608, 7, generator=generator)
    decide = sparse_sets(xs.ExpanderDictionary(support, values, generator=generator))
    rate = Rate.of(decide(features).recovers for features in random_sets(np.arange(4608), k, of, seed=0))
    theirs = Rate.of([True] * round(stated * of) + [False] * round((1 - stated) * of))
    assert rate.low <= theirs.high
    assert theirs.low <= rate.high


def test_values_near_zero_are_peeled_without():
    """Two features on three coordinates: only the small value tells the first from the second."""
    support = xs.Support.from_rows([[0, 1], [1, 2], [3, 4]], 5)
    dictionary = xs.ExpanderDictionary(support, torch.tensor([[1e-4, 1.0], [1.0, 1e-4], [1.0, 1.0]]))
    found = sparse_sets(dictionary, tau=0.01)(np.array([0, 1]))
    assert (found.remaining, found.remaining_effective) == (0, 2)
    assert sparse_sets(dictionary, tau=0.01)(np.array([0, 2])).remaining_effective == 0
