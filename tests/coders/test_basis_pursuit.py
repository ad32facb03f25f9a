"""Basis pursuit: recovers what the theorem says, at the cost it says, and refuses what cannot be met."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from expander_sae.coders import BasisPursuit
from expander_sae.dictionaries import ExpanderDictionary
from expander_sae.errors import ExpanderError
from expander_sae.supports import Support, max_overlap
from tests.coders.problems import (
    FAMILIES,
    flat_dictionary,
    from_matrix,
    gaussian,
    make_dictionary,
    plant,
    residual,
)

signs = pytest.mark.parametrize("signed", [False, True], ids=["non-negative", "signed"])


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 1000), k=st.integers(1, 3), signed=st.booleans())
def test_recovers_where_the_theorem_holds(seed, k, signed):
    # Any two columns share at most one of d coordinates, so eps_t <= (t - 1) / (2 d) and 2 eps_k + 4 eps_2k < 1.
    d = 16
    dictionary = flat_dictionary(m=304, n=360, d=d, seed=seed)
    assert int(max_overlap(dictionary.support)) <= 1
    assert 2 * (k - 1) / (2 * d) + 4 * (2 * k - 1) / (2 * d) < 1
    planted = plant(dictionary, 2, k, signed=signed, seed=seed)
    found = BasisPursuit(signed=signed)(dictionary, planted.x)
    torch.testing.assert_close(found.to_dense(), planted.codes.to_dense(), atol=1e-6, rtol=0)


def test_badly_scaled_columns_need_the_weighted_cost():
    dictionary = flat_dictionary(m=304, n=360, d=16)
    # Features that a combination of the others can stand in for, on columns so short that their codes must be large.
    exchange = torch.linalg.svd(dictionary.to_dense().detach()).Vh[-1]
    features = exchange.abs().topk(3).indices
    scale = torch.ones(360, dtype=torch.float64).index_fill(0, features, 1e-3)
    with torch.no_grad():
        dictionary.values.mul_(scale[:, None])
    truth = torch.zeros(360, dtype=torch.float64).index_copy(0, features, exchange[features].sign() / 1e-3)
    x = dictionary.to_dense().detach() @ truth
    weighted, plain = (BasisPursuit(choice, signed=True)(dictionary, x).to_dense() for choice in (True, False))
    torch.testing.assert_close(weighted * scale, truth * scale, atol=1e-6, rtol=0)
    assert not torch.allclose(plain * scale, truth * scale, atol=1e-2)


def test_plain_and_weighted_cost_choose_differently():
    # Half a large column or five times a small one: the plain cost likes the large, the weighted one the sparse way.
    matrix = torch.tensor([[10.0, 10.0, 1.0], [10.0, -10.0, 0.0]], dtype=torch.float64)
    x = torch.tensor([5.0, 0.0], dtype=torch.float64)
    plain, weighted = (BasisPursuit(choice)(from_matrix(matrix), x).to_dense() for choice in (False, True))
    torch.testing.assert_close(plain, torch.tensor([0.25, 0.25, 0.0], dtype=torch.float64))
    torch.testing.assert_close(weighted, torch.tensor([0.0, 0.0, 5.0], dtype=torch.float64))


@settings(deadline=None, max_examples=15)
@given(family=st.sampled_from(FAMILIES), seed=st.integers(0, 1000), signed=st.booleans(), weighted=st.booleans())
def test_meets_the_equations_at_no_more_than_the_planted_cost(family, seed, signed, weighted):
    dictionary = make_dictionary(family, seed=seed)
    planted = plant(dictionary, 3, 8, signed=signed, seed=seed)
    codes = BasisPursuit(weighted, signed=signed)(dictionary, planted.x)
    assert residual(dictionary, codes, planted.x).abs().max() < 1e-6
    cost = dictionary.to_dense().detach().abs().sum(dim=0) if weighted else torch.ones(dictionary.n).double()
    assert (codes.to_dense().abs() @ cost <= planted.codes.to_dense().abs() @ cost + 1e-6).all()
    assert (codes.l0 <= dictionary.m).all()
    assert signed or (codes.values >= 0).all()


@signs
def test_a_token_out_of_reach_is_named(signed):
    dictionary = from_matrix(torch.tensor([[1.0, 2.0], [0.0, 0.0]], dtype=torch.float64))
    x = torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    with pytest.raises(ExpanderError, match=r"Token 2 is not a combination of the columns"):
        BasisPursuit(signed=signed)(dictionary, x)


def test_a_negative_token_needs_signed_codes():
    dictionary = from_matrix(torch.eye(2, dtype=torch.float64))
    x = torch.tensor([1.0, -1.0], dtype=torch.float64)
    with pytest.raises(ExpanderError, match="Token 0 is not a combination of the columns with non-negative codes"):
        BasisPursuit()(dictionary, x)
    torch.testing.assert_close(BasisPursuit(signed=True)(dictionary, x).to_dense(), x)


@signs
def test_rounding_of_single_precision_is_no_obstacle(signed):
    dictionary = make_dictionary("expander", m=64, n=100, d=5, dtype=torch.float32)
    planted = plant(dictionary, 6, 4, signed=signed)
    codes = BasisPursuit(signed=signed)(dictionary, planted.x)
    torch.testing.assert_close(codes.to_dense(), planted.codes.to_dense(), atol=1e-4, rtol=0)


def test_large_dictionaries_are_refused():
    dictionary = ExpanderDictionary(Support.make("uniform", m=4, n=20_001, d=1, seed=0))
    with pytest.raises(ExpanderError, match="at most 20000 features, not 20001"):
        BasisPursuit()(dictionary, gaussian(1, 4))
