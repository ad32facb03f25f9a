"""Lists cut back and sorted by counting, against sorting by (score, place)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expander_sae.kernels.cpu.ranking import keep_best, list_length, sort_best
from expander_sae.kernels.cpu.tiles import aligned


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
    bound, kept = keep_best(ranking, features, len(scores), k, 0)
    assert kept == k
    assert features[:k].tolist() == (10 * np.sort(best)).tolist()
    assert np.array_equal(ranking[:k], scores[np.sort(best)])
    assert (ranking[:k] >= bound).all()
    assert (np.delete(scores, best) <= bound).all()
    first = sort_best(ranking, features, k)
    assert features[first : first + k].tolist() == (10 * best).tolist()
    assert np.array_equal(ranking[first : first + k], scores[best])


@settings(deadline=None, max_examples=200)
@given(
    drawn=st.lists(st.integers(-32767, 32767) | st.integers(-20, 20), min_size=1, max_size=300),
    margin=st.integers(1, 50) | st.just(30000),
    data=st.data(),
)
def test_what_is_less_than_a_margin_below_the_best_is_kept_too(drawn, margin, data):
    scores, k = np.array(drawn, np.int16), data.draw(st.integers(1, len(drawn)))
    room = list_length(len(scores), k)
    ranking, features = np.full(room, 32767, np.int16), np.full(room, -1, np.int32)
    ranking[: len(scores)], features[: len(scores)] = scores, np.arange(len(scores))
    bound, kept = keep_best(ranking, features, len(scores), k, margin)
    near = np.flatnonzero(scores > np.sort(scores)[-k].astype(int) - margin)
    assert set(near) <= set(features[:kept].tolist())
    assert features[:kept].tolist() == np.flatnonzero(scores > bound).tolist()
    assert (scores >= min(int(bound) + margin, 32767)).sum() >= k or bound == -32768


@pytest.mark.parametrize("k", [64, 65, 128, 129, 1000])
def test_long_lists_are_merged_from_sorted_runs(k):
    scores = np.random.default_rng(k).integers(0, 200, 2 * k).astype(np.float32)
    room = list_length(len(scores), k)
    ranking, features = aligned((room,), scores.dtype), np.arange(room, dtype=np.int32)
    ranking[: len(scores)] = scores
    keep_best(ranking, features, len(scores), k, 0)
    first = sort_best(ranking, features, k)
    assert features[first : first + k].tolist() == np.argsort(-scores, kind="stable")[:k].tolist()
