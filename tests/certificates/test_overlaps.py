"""Masks and their overlaps: everything is compared with counting all sets of features."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expander_sae.certificates.matrix import Mask, present_above
from expander_sae.certificates.overlaps import overlaps
from expander_sae.certificates.progress import silent
from expander_sae.supports import Support, max_overlap, peel
from tests.certificates.masks import is_stopping, neighbours, sets_of, small_masks, subsets


def whole(support):
    """The mask of a support of which all values count."""
    rows = support.rows.numpy()
    return Mask.of(rows, np.ones(rows.shape, dtype=bool), support.m)


@settings(deadline=None, max_examples=60)
@given(small_masks(), st.data())
def test_peeling_leaves_the_largest_stopping_set(mask, data):
    chosen = sorted(data.draw(st.sets(st.integers(0, mask.n - 1), min_size=1)))
    stopping = [set(subset) for subset in subsets(chosen) if is_stopping(mask, subset)]
    assert mask.remaining(np.array(chosen)).tolist() == sorted(set().union(*stopping))


@settings(deadline=None, max_examples=60)
@given(small_masks(), st.integers(1, 10))
def test_overlaps_prove_what_counting_finds(mask, partners):
    found = overlaps(mask, partners, "overlaps", silent)
    for feature in range(mask.n):
        others = [features for features in subsets([other for other in range(mask.n) if other != feature])
                  if sets_of(mask, feature) <= neighbours(mask, features)]  # fmt: skip
        assert found.covers[feature] <= min(map(len, others), default=mask.n)
    for features in subsets(range(mask.n)):
        if len(features) <= found.generic_set:
            assert len(neighbours(mask, features)) >= len(features)
        if len(features) <= found.peelable_set:
            assert not is_stopping(mask, features)
        if len(features) <= partners + 1:
            values = sum(len(sets_of(mask, feature)) for feature in features)
            collided = (values - len(neighbours(mask, features))) / len(features)
            assert collided <= found.collisions(len(features), mask.d) + 1e-12


@settings(deadline=None, max_examples=60)
@given(small_masks(), st.integers(1, 10))
def test_overlap_sums_are_those_of_all_pairs(mask, partners):
    found = overlaps(mask, partners, "overlaps", silent)
    each = [sorted((len(sets_of(mask, one) & sets_of(mask, other)) for other in range(mask.n) if other != one),
                   reverse=True) for one in range(mask.n)]  # fmt: skip
    assert found.largest == max(line[0] for line in each)
    assert found.sums.tolist() == [max(sum(line[:taken]) for line in each) for taken in range(partners + 1)]


@pytest.mark.parametrize(("d", "generic"), [(7, 21), (9, 36), (16, 120)])
def test_supports_of_overlap_one_have_the_k_of_the_theory(d, generic):
    found = overlaps(whole(Support.make("lines", m=2048, n=16384, d=d)), 2 * generic, "overlaps", silent)
    assert found.largest == 1
    assert found.generic_k == generic == int((1 + d * (d - 1)) / 2)
    assert found.peelable_set == d  # the girth bound: a stopping set has at least d + 1 features


def test_whole_masks_agree_with_the_statistics_of_supports():
    support = Support.make("uniform", m=40, n=300, d=6, seed=3)
    mask = whole(support)
    assert overlaps(mask, 9, "overlaps", silent).largest == max_overlap(support)
    features = np.arange(120)
    assert mask.remaining(features).tolist() == peel(support, features).tolist()
    assert (mask.starts == support.row_lists.starts.numpy()).all()
    assert (mask.features == support.row_lists.features.numpy()).all()
    assert not mask.lost.any()


def test_the_sums_of_the_largest_losses_leave_empty_columns_out():
    rows = np.array([[0, 1, 2]] * 4, dtype=np.int32)
    present = np.array([[1, 1, 1], [0, 0, 0], [1, 0, 0], [1, 1, 0]], dtype=bool)
    mask = Mask.of(rows, present, 3)
    assert mask.degrees.tolist() == [3, 0, 1, 2]
    assert mask.lost.tolist() == [2, 3, 3]


def test_features_without_coordinates_change_nothing():
    rows = np.array([[0, 1], [2, 3], [0, 2]], dtype=np.int32)
    present = np.array([[True, True], [True, True], [False, False]])
    found = overlaps(Mask.of(rows, present, 4), 2, "overlaps", silent)
    assert (found.largest, found.generic_set, found.peelable_set) == (0, 3, 3)


def test_near_zero_is_a_share_of_the_columns_norm():
    values = np.array([[3.0, 4.0, 0.0], [300.0, 400.0, 5.0], [0.0, 0.0, 0.0]])
    assert present_above(values, 0.0).tolist() == [[True, True, False], [True, True, True], [False] * 3]
    assert present_above(values, 0.01).tolist() == [[True, True, False], [True, True, False], [False] * 3]
