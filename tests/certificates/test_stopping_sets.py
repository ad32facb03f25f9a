"""The search for small stopping sets: what it finds is one, has none inside, and is small where one is planted."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expander_sae.certificates.overlaps import overlaps
from expander_sae.certificates.progress import silent
from expander_sae.certificates.stopping_sets import smallest_stopping_set
from expander_sae.supports import Support
from tests.certificates.masks import is_stopping, small_masks, subsets
from tests.certificates.test_overlaps import whole


def search(mask, largest, restarts, seed, report):
    """The search, told what overlaps say."""
    return smallest_stopping_set(mask, overlaps(mask, 1, "", silent).covers, largest, restarts, seed, report)


@settings(deadline=None, max_examples=60)
@given(small_masks(), st.integers(0, 99))
def test_what_is_found_is_a_minimal_stopping_set(mask, seed):
    found = search(mask, mask.n, 5, seed, silent).tolist()
    assert found == sorted(set(found))
    if found:
        assert is_stopping(mask, found)
        assert not any(is_stopping(mask, subset) for subset in subsets(found) if len(subset) < len(found))


def test_the_search_finds_what_is_planted():
    assert search(whole(Support.make("shared", m=40, n=20, d=5)), 20, 1, 0, silent).size == 2
    # Two base columns of a cyclic support, shifted by each other's coordinates: 2 d features, always.
    cyclic = whole(Support.make("cyclic", m=128, n=512, d=5))
    found = search(cyclic, 128, 300, 0, silent)
    assert found.size == 10


def test_the_search_begins_where_a_feature_is_easily_covered():
    """One pair of equal columns among a thousand: random starts would hardly meet it."""
    rows = Support.make("uniform", m=400, n=1000, d=6).rows.numpy().copy()
    rows[777] = rows[123]
    assert search(whole(Support.from_rows(rows, 400)), 400, 1, 0, silent).tolist() == [123, 777]


def test_a_support_without_overlaps_has_none():
    apart = whole(Support.from_rows(np.arange(12).reshape(4, 3), 12))
    assert search(apart, 4, 5, 0, silent).size == 0


def test_the_same_seed_finds_the_same():
    mask = whole(Support.make("uniform", m=64, n=256, d=5))
    one, again = (search(mask, 64, 5, 7, silent).tolist() for _ in range(2))
    assert one == again


def test_larger_sets_than_asked_for_are_not_given():
    mask = whole(Support.make("uniform", m=64, n=256, d=5))
    size = search(mask, 64, 20, 0, silent).size
    assert size > 2
    assert search(mask, 2, 20, 0, silent).size == 0


@pytest.mark.parametrize("restarts", [1, 3])
def test_progress_is_told(restarts):
    told = []
    search(whole(Support.make("uniform", m=20, n=30, d=3)), 20, restarts, 0, lambda *stage: told.append(stage))
    assert told == [("stopping sets", done, restarts) for done in range(1, restarts + 1)]
