"""Lists cut back and sorted by counting, against sorting by (score, place)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expander_sae.kernels.cpu.ranking import keep_best, list_length, sort_best
from expander_sae.kernels.cpu.select import aligned


@st.composite
def lists(draw):
    """Scores of either precision, with ties, infinity, and the smallest and largest numbers; and how many to keep."""
    dtype = np.dtype(draw(st.sampled_from([np.float32, np.float64])))
    limits = np.finfo(dtype)
    special = [np.inf, limits.max, -limits.max, limits.smallest_subnormal, -limits.smallest_subnormal, 0.0, 1.0]
    number = st.one_of(st.sampled_from(special), st.integers(-3, 3), st.floats(-10, 10, width=32))
    scores = np.array(draw(st.lists(number, min_size=1, max_size=300)), dtype) + dtype.type(0)  # no negative zero
    return scores, draw(st.integers(1, len(scores)))


@settings(deadline=None, max_examples=200)
@given(case=lists())
def test_the_best_are_kept_in_order_and_then_sorted(case):
    scores, k = case
    room = list_length(len(scores), k)
    ranking, features = aligned((room,), scores.dtype), np.zeros(room, np.int32)
    ranking[:], features[:] = np.inf, -1  # what lies behind a list must not matter
    ranking[: len(scores)], features[: len(scores)] = scores, 10 * np.arange(len(scores))
    best = np.argsort(-scores, kind="stable")[:k]
    bound = keep_best(ranking, features, len(scores), k)
    assert features[:k].tolist() == (10 * np.sort(best)).tolist()
    assert np.array_equal(ranking[:k], scores[np.sort(best)])
    assert (ranking[:k] >= bound).all()
    assert (np.delete(scores, best) <= bound).all()
    first = sort_best(ranking, features, k)
    assert features[first : first + k].tolist() == (10 * best).tolist()
    assert np.array_equal(ranking[first : first + k], scores[best])


@pytest.mark.parametrize("k", [64, 65, 128, 129, 1000])
def test_long_lists_are_merged_from_sorted_runs(k):
    scores = np.random.default_rng(k).integers(0, 200, 2 * k).astype(np.float32)
    room = list_length(len(scores), k)
    ranking, features = aligned((room,), scores.dtype), np.arange(room, dtype=np.int32)
    ranking[: len(scores)] = scores
    keep_best(ranking, features, len(scores), k)
    first = sort_best(ranking, features, k)
    assert features[first : first + k].tolist() == np.argsort(-scores, kind="stable")[:k].tolist()
