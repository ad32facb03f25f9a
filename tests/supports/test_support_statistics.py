"""Statistics against their definitions, by brute force on small supports."""

from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from expander_sae.supports import (
    Support,
    distinct_supports,
    max_overlap,
    overlap_histogram,
    right_degrees,
    uncovered_rows,
)


@st.composite
def small_supports(draw, largest_n=14):
    m = draw(st.integers(1, 12))
    d = draw(st.integers(1, min(m, 5)))
    feature = st.lists(st.integers(0, m - 1), min_size=d, max_size=d, unique=True)
    return Support.from_rows(draw(st.lists(feature, min_size=1, max_size=largest_n)), m)


@settings(deadline=None, max_examples=60)
@given(small_supports())
def test_statistics_are_what_they_say(support):
    columns = [set(line) for line in support.rows.tolist()]
    degrees = [sum(row in column for column in columns) for row in range(support.m)]
    overlaps = [len(a & b) for a, b in combinations(columns, 2)]
    assert right_degrees(support).tolist() == degrees
    assert uncovered_rows(support).tolist() == [row for row, degree in enumerate(degrees) if degree == 0]
    assert overlap_histogram(support).tolist() == [overlaps.count(size) for size in range(support.d + 1)]
    assert max_overlap(support) == max(overlaps, default=0)
    assert distinct_supports(support) == len({frozenset(column) for column in columns})


@pytest.mark.parametrize("name", ["uniform", "balanced", "clustered"])
def test_histogram_matches_the_dense_gram(name):
    support = Support.make(name, m=200, n=700, d=9)
    dense = torch.zeros(200, 700)
    dense.scatter_(0, support.rows.long().T, 1.0)
    overlaps = (dense.T @ dense).long()[tuple(torch.triu_indices(700, 700, offset=1))]
    assert torch.equal(overlap_histogram(support), torch.bincount(overlaps, minlength=10))
