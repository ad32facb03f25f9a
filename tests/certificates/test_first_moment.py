"""Theorem 6: the bound is one, on everything small enough to count, and gives the numbers that the theory has."""

from fractions import Fraction
from itertools import combinations, product
from math import comb, exp, factorial, log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expander_sae.certificates.first_moment import ROUNDING, Draw, largest_certified, log_bounds, log_no_single
from expander_sae.supports import Support


def no_single_exactly(bins, balls):
    """The chance that no bin holds a single ball: N! [z^N] (e^z - z)^bins / bins^N, in fractions."""
    series = [Fraction(1)] + [Fraction(0)] * balls
    for _ in range(bins):
        series = [
            sum(series[low - used] * Fraction(1, factorial(used)) for used in range(low + 1) if used != 1)
            for low in range(balls + 1)
        ]
    return [float(factorial(count) * series[count] / Fraction(bins) ** count) for count in range(balls + 1)]


def nothing(sizes):
    """No value is lost."""
    return np.zeros(sizes, dtype=np.int64)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 12), st.integers(1, 20))
def test_chances_of_no_single_ball_are_exact(bins, balls):
    assert np.exp(log_no_single(bins, balls)) == pytest.approx(no_single_exactly(bins, balls), rel=1e-11)


def has_stopping_set(rows, largest):
    """Whether these tuples of coordinates have one of at most that size."""
    for size in range(1, largest + 1):
        for chosen in combinations(rows, size):
            touched = [coordinate for feature in chosen for coordinate in feature]
            if all(touched.count(coordinate) > 1 for coordinate in touched):
                return True
    return False


def thinned(rows, lost):
    """Every way to leave out `lost` values in all, each feature keeping one."""
    entries = [(feature, slot) for feature, line in enumerate(rows) for slot in range(len(line))]
    for left_out in combinations(entries, lost):
        kept = [tuple(c for slot, c in enumerate(line) if (feature, slot) not in left_out)
                for feature, line in enumerate(rows)]  # fmt: skip
        if all(kept):
            yield kept


def draws(m, n, d, groups):
    """Every draw of n supports, all as likely."""
    if len(groups) == 1:
        one = list(combinations(range(m), d))
    else:
        edges = np.cumsum([0, *groups])
        one = list(product(*(range(edges[group], edges[group + 1]) for group in range(d))))
    return list(product(one, repeat=n))


@pytest.mark.parametrize(
    ("m", "n", "d", "groups", "lost"),
    [
        (6, 3, 2, (6,), 0), (5, 4, 2, (5,), 0), (6, 3, 3, (6,), 0), (6, 3, 2, (6,), 1), (5, 3, 2, (5,), 2),
        (6, 3, 2, (3, 3), 0), (5, 4, 2, (2, 3), 0), (6, 3, 3, (2, 2, 2), 0), (6, 3, 2, (3, 3), 1),
    ],
)  # fmt: skip
def test_the_bound_holds_when_all_draws_are_counted(m, n, d, groups, lost):
    """Also when an adversary may leave out as many values in all, wherever they are."""
    everything = draws(m, n, d, groups)
    bounds = log_bounds(Draw(n, d, groups), np.full(n, lost))
    for size in range(1, n + 1):
        bad = sum(any(has_stopping_set(kept, size) for few in range(lost + 1) for kept in thinned(draw, few))
                  for draw in everything)  # fmt: skip
        assert bad == 0 if size == 1 else log(bad / len(everything)) <= bounds[size - 1]


@pytest.mark.parametrize("groups", [(9,), (3, 3, 3), (4, 5, 6)])
def test_two_features_stop_each_other_only_as_copies(groups):
    chance = 1 / comb(9, 3) if len(groups) == 1 else 1 / np.prod(groups)
    bounds = log_bounds(Draw(5, 3, groups), nothing(2))
    assert bounds[0] == -np.inf
    assert bounds[1] == pytest.approx(log(10 * chance), abs=2 * ROUNDING)


@pytest.mark.parametrize(
    ("m", "n", "d", "k", "uniform", "partitioned"),
    [
        (2048, 16384, 7, 32, 4.6e-12, 7.4e-10),
        (576, 4608, 7, 16, 7.7e-8, 4.2e-7),
        (2048, 16384, 5, 32, 4.7e-7, 1.2e-5),
        (2048, 16384, 16, 32, 5.6e-27, 4.4e-19),
    ],
)
def test_the_numbers_of_the_theory(m, n, d, k, uniform, partitioned):
    """In the last row the theory bounds coefficients loosely; the exact ones give far less."""
    for construction, stated in (("uniform", uniform), ("partitioned", partitioned)):
        draw = Draw.of(Support.make(construction, m=m, n=n, d=d))
        bound = exp(log_bounds(draw, nothing(2 * k))[-1])
        assert bound <= stated
        assert d == 16 or bound > 0.95 * stated


@pytest.mark.parametrize(
    ("m", "n", "d", "k"),
    [(2048, 16384, 7, 66), (576, 4608, 7, 17), (768, 24576, 7, 13), (768, 24576, 12, 22), (4096, 131072, 7, 77)],
)
def test_the_largest_certified_k_is_that_of_the_theory_or_slightly_more(m, n, d, k):
    draw = Draw.of(Support.make("uniform", m=m, n=n, d=d))
    certified = largest_certified(draw, 1e-3, nothing(draw.largest_set))
    assert k <= certified <= k + 2
    assert log_bounds(draw, nothing(2 * certified + 2))[-1] > log(1e-3) >= log_bounds(draw, nothing(2 * certified))[-1]


def test_lost_values_cost_certified_features():
    draw = Draw.of(Support.make("uniform", m=2048, n=16384, d=7))
    lost = [np.minimum(most, np.arange(1, draw.largest_set + 1)) for most in (0, 1, 12, 2000)]
    certified = [largest_certified(draw, 1e-6, each, looked_at=3) for each in lost]
    assert certified[0] > certified[1] > certified[2] > certified[3] >= 1
    # Two features that share six coordinates, or three in a row, are too likely to be ruled out without looking.
    assert largest_certified(draw, 1e-6, lost[2]) == 0
    bounds = log_bounds(draw, lost[2][:9], looked_at=3)
    assert (bounds[:3] == -np.inf).all()
    assert (bounds[3:] < log_bounds(draw, lost[2][:9])[3:]).all()


def test_the_search_ends_where_the_sets_do():
    """Three features far apart: all of them are certified."""
    draw = Draw.of(Support.make("uniform", m=10_000, n=5, d=20))
    assert largest_certified(draw, 1e-6, nothing(5)) == 2


def test_only_independent_draws_have_a_chance():
    for construction in ("balanced", "lines", "greedy", "cyclic", "shared", "banded"):
        assert Draw.of(Support.make(construction, m=64, n=64, d=3)) is None
    uniform = Support.make("uniform", m=64, n=64, d=3)
    assert Draw.of(Support.from_rows(uniform.rows, 64)) is None
    assert Draw.of(uniform) == Draw(64, 3, (64,))
    assert Draw.of(Support.make("partitioned", m=64, n=64, d=3)) == Draw(64, 3, (21, 21, 22))
