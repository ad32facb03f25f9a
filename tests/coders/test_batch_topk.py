"""BatchTopK against the plain definition on all [batch, n] scores."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from expander_sae.coders import BatchTopK
from expander_sae.dictionaries import Codes, DenseDictionary
from tests.coders.problems import FAMILIES, gaussian, make_dictionary

every_dictionary = pytest.mark.parametrize("family", FAMILIES)


def scores_of(dictionary, x, bias=None):
    scores = x @ dictionary.to_dense().to(x.dtype)
    return scores if bias is None else scores + bias


def oracle(scores, k, signed=False, threshold=None):
    """All n codes of every token, from all scores at once."""
    size = scores.abs() if signed else scores
    if threshold is not None:
        return torch.where(size > threshold, scores, 0.0)
    kept = torch.zeros_like(size.flatten()).index_fill(0, size.flatten().topk(k * len(scores)).indices, 1.0)
    return torch.where((kept.reshape(size.shape) > 0) & (size > 0), scores, 0.0)


@settings(deadline=None, max_examples=40)
@given(
    family=st.sampled_from(FAMILIES),
    batch=st.integers(1, 9),
    k=st.integers(1, 12),
    signed=st.booleans(),
    biased=st.booleans(),
    loudest=st.sampled_from([1.0, 5.0, 1000.0]),
    threshold=st.sampled_from([None, 0.0, 0.7, 50.0]),
)
def test_equals_the_dense_oracle(family, batch, k, signed, biased, loudest, threshold):
    dictionary = make_dictionary(family, seed=batch)
    x = gaussian(batch, dictionary.m, seed=k)
    # A loud token takes the places of its neighbours, far more than were selected at first.
    x[0] *= loudest
    bias = gaussian(1, dictionary.n, seed=k)[0] if biased else None
    codes = BatchTopK(k, signed, threshold)(dictionary, x, bias)
    torch.testing.assert_close(codes.to_dense(), oracle(scores_of(dictionary, x, bias), k, signed, threshold))
    sizes = codes.values.abs()
    assert (sizes[:, 1:] <= sizes[:, :-1]).all()
    if threshold is None and signed:
        assert int(codes.l0.sum()) == k * batch


def test_one_token_may_take_everything():
    dictionary = make_dictionary("expander")
    x = gaussian(20, dictionary.m)
    x[7] *= 1e4
    codes = BatchTopK(2, signed=True)(dictionary, x)
    assert codes.l0[7] == dictionary.n
    assert int(codes.l0.sum()) == 40


def test_all_leading_dimensions_are_one_batch():
    dictionary = make_dictionary("expander")
    x = gaussian(6, dictionary.m)
    grid = BatchTopK(2)(dictionary, x.reshape(2, 3, -1)).to_dense()
    torch.testing.assert_close(grid.reshape(6, -1), BatchTopK(2)(dictionary, x).to_dense())


def test_with_a_threshold_neighbours_do_not_matter():
    dictionary = make_dictionary("union")
    x = gaussian(6, dictionary.m)
    coder = BatchTopK(1, threshold=0.3)
    together = coder(dictionary, x)
    for token in range(6):
        torch.testing.assert_close(together.to_dense()[token], coder(dictionary, x[token]).to_dense())


def test_nothing_above_zero_gives_no_codes():
    dictionary = DenseDictionary(3, 5, -torch.ones(5, 3))
    codes = BatchTopK(2)(dictionary, torch.ones(4, 3))
    assert not codes.active.any()
    assert codes.values.shape[0] == 4


def test_equal_scores_still_give_exactly_k_per_token():
    dictionary = DenseDictionary(3, 30, torch.ones(30, 3))
    codes = BatchTopK(2)(dictionary, torch.ones(4, 3))
    assert int(codes.l0.sum()) == 8


@every_dictionary
@pytest.mark.parametrize("loudest", [1.0, 100.0])
def test_gradients_are_those_of_the_kept_entries(family, loudest):
    dictionary = make_dictionary(family)
    x = gaussian(5, dictionary.m)
    x[2] *= loudest
    bias = gaussian(1, dictionary.n)[0].requires_grad_()
    weights = gaussian(5, dictionary.n, seed=3)
    inputs = [x.requires_grad_(), bias, *dictionary.parameters()]
    codes = BatchTopK(3)(dictionary, x, bias)
    found = torch.autograd.grad((codes.to_dense() * weights).sum(), inputs)
    scores = scores_of(dictionary, x, bias)
    kept = codes.to_dense().detach() != 0
    expected = torch.autograd.grad((torch.where(kept, scores, 0.0) * weights).sum(), inputs)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_result_is_codes_of_the_dictionary():
    dictionary = make_dictionary("dense", dtype=torch.float32)
    codes = BatchTopK(3)(dictionary, gaussian(5, dictionary.m, dtype=torch.float32))
    assert isinstance(codes, Codes)
    assert codes.values.dtype == torch.float32
