"""Voting: accepted codes are exact, and it succeeds exactly where peeling does."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from expander_sae.coders import VotingDecoder
from expander_sae.coders.voting import longest_run
from expander_sae.dictionaries import Codes, ExpanderDictionary
from expander_sae.supports import Support
from tests.coders.problems import from_matrix, gaussian, make_dictionary, plant, residual


def peels(rows, agree):
    """Whether repeatedly removing features that are alone on `agree` coordinates removes all of them."""
    left = [set(feature) for feature in rows]
    while left:
        alone = [
            feature
            for feature in left
            if len(feature - set().union(*(other for other in left if other is not feature))) >= agree
        ]
        if not alone:
            return False
        left = [feature for feature in left if all(feature is not gone for gone in alone)]
    return True


def crowded(seed, signed, k=8, tokens=5, overlap_one=False, binary=False):
    """A planted problem in which about half of the tokens can be peeled."""
    construction = "greedy" if overlap_one else "uniform"
    support = Support.make(construction, m=30, n=40, d=4, seed=seed)
    values = gaussian(40, 4, seed=seed)
    dictionary = ExpanderDictionary(support, torch.ones_like(values) if binary else values)
    return dictionary, plant(dictionary, tokens, k, signed=signed, seed=seed)


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10_000), signed=st.booleans(), agree=st.integers(2, 3), k=st.integers(1, 10))
def test_succeeds_exactly_where_peeling_does_and_never_errs(seed, signed, agree, k):
    dictionary, planted = crowded(seed, signed, k)
    truth = planted.codes.to_dense()
    found = VotingDecoder(k, agree, signed=signed)(dictionary, planted.x).to_dense()
    # Partial results too: what was accepted is exact.
    accepted = found != 0
    torch.testing.assert_close(found[accepted], truth[accepted], atol=1e-9, rtol=0)
    for token in range(len(truth)):
        complete = bool((accepted[token] == (truth[token] != 0)).all())
        possible = peels(dictionary.rows[planted.codes.indices[token]].tolist(), agree)
        assert complete or not possible
        # What cannot be peeled is not found, unless the best of the rounds is all there is to see.
        assert possible or not complete


def test_both_outcomes_of_peeling_occur():
    outcomes = set()
    for seed in range(20):
        dictionary, planted = crowded(seed, signed=True)
        outcomes |= {peels(dictionary.rows[indices].tolist(), 2) for indices in planted.codes.indices}
    assert outcomes == {True, False}


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), k=st.integers(1, 8))
def test_equal_weights_are_safe_where_columns_share_at_most_one_coordinate(seed, k):
    dictionary, planted = crowded(seed, signed=False, k=k, overlap_one=True, binary=True)
    found = VotingDecoder(k)(dictionary, planted.x).to_dense()
    for token, indices in enumerate(planted.codes.indices):
        if peels(dictionary.rows[indices].tolist(), 2):
            torch.testing.assert_close(found[token], planted.codes.to_dense()[token], atol=1e-9, rtol=0)


@pytest.mark.parametrize("signed", [False, True], ids=["non-negative", "signed"])
def test_equal_weights_with_two_shared_coordinates_fool_two_votes_but_not_three(signed):
    support = Support.from_rows([[0, 1, 2, 3], [2, 3, 4, 5]], m=6)
    dictionary = ExpanderDictionary(support, torch.ones(2, 4, dtype=torch.float64))
    truth = torch.tensor([[1.5, 0.0]], dtype=torch.float64)
    x = truth @ dictionary.to_dense().detach().T
    fooled = VotingDecoder(2, agree=2, signed=signed)(dictionary, x).to_dense()
    assert not torch.allclose(fooled, truth)
    torch.testing.assert_close(VotingDecoder(2, agree=3, signed=signed)(dictionary, x).to_dense(), truth)


def test_a_column_of_a_dense_dictionary_is_recognised():
    dictionary = from_matrix(gaussian(12, 20))
    x = 2.5 * dictionary.to_dense().detach()[:, 7]
    codes = VotingDecoder(1)(dictionary, x)
    torch.testing.assert_close(codes.values, torch.tensor([2.5], dtype=torch.float64))
    assert codes.indices.tolist() == [7]


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000), signed=st.booleans())
def test_single_precision_with_three_votes(seed, signed):
    support = Support.make("uniform", m=60, n=80, d=7, seed=seed)
    dictionary = ExpanderDictionary(support, gaussian(80, 7, seed=seed, dtype=torch.float32))
    planted = plant(dictionary, 5, 4, signed=signed, seed=seed)
    found = VotingDecoder(4, agree=3, signed=signed)(dictionary, planted.x).to_dense()
    for token, indices in enumerate(planted.codes.indices):
        if peels(dictionary.rows[indices].tolist(), 3):
            torch.testing.assert_close(found[token], planted.codes.to_dense()[token], atol=1e-3, rtol=0)


def test_more_features_than_k_is_not_forced_into_k():
    dictionary = make_dictionary("expander", m=60, n=80, d=5)
    planted = plant(dictionary, 8, 4)
    codes = VotingDecoder(2)(dictionary, planted.x)
    assert (codes.l0 <= 2).all()
    assert (residual(dictionary, codes, planted.x).norm(dim=1) <= planted.x.norm(dim=1)).all()


def test_noise_ends_the_agreement():
    dictionary = make_dictionary("expander", m=60, n=80, d=5)
    x = plant(dictionary, 8, 4).x + 0.01 * gaussian(8, 60)
    strict, lenient = VotingDecoder(4)(dictionary, x), VotingDecoder(4, tolerance=0.05)(dictionary, x)
    assert not strict.active.any()
    assert lenient.active.any()


@settings(deadline=None, max_examples=100)
@given(gaps=st.lists(st.booleans(), max_size=9))
def test_longest_run(gaps):
    count, last = longest_run(torch.tensor(gaps, dtype=torch.bool))
    runs = [
        stop - begin
        for begin in range(len(gaps) + 1)
        for stop in range(begin + 1, len(gaps) + 2)
        if all(gaps[begin : stop - 1])
    ]
    assert int(count) == max(runs)
    assert int(count) == 1 or all(gaps[int(last) - int(count) + 1 : int(last)])


def test_result_is_codes_of_the_dictionary():
    dictionary = make_dictionary("union")
    codes = VotingDecoder(3)(dictionary, gaussian(4, dictionary.m))
    assert isinstance(codes, Codes)
    assert codes.n == dictionary.n
