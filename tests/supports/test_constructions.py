"""What every construction promises, and what each one promises beyond that."""

import re
import time
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from expander_sae.supports import (
    Support,
    SupportError,
    constructions,
    distinct_supports,
    max_overlap,
    overlap_histogram,
    peel,
    right_degrees,
    uncovered_rows,
)
from expander_sae.supports.cyclic import base_blocks, coordinate_order
from expander_sae.supports.lines import code, fits

CASES = [
    ("uniform", (40, 90, 5), {}),
    ("uniform", (7, 30, 7), {}),
    ("partitioned", (43, 90, 5), {}),
    ("balanced", (40, 90, 5), {}),
    ("balanced", (12, 31, 11), {}),
    ("lines", (43, 90, 4), {}),
    ("lines", (40, 300, 4), {"strength": 3}),
    ("lines", (43, 90, 4), {"order": "feistel"}),
    ("lines", (43, 90, 4), {"order": "lexicographic"}),
    ("lines", (64, 64, 8), {}),
    ("greedy", (40, 60, 4), {}),
    ("cyclic", (61, 140, 4), {}),
    ("clustered", (43, 90, 5), {"cluster_size": 10}),
    ("shared", (40, 90, 5), {}),
    ("block", (43, 90, 5), {"blocks": 4}),
    ("banded", (40, 90, 5), {}),
]


def make(name, sizes, parameters, seed=0):
    m, n, d = sizes
    return Support.make(name, m=m, n=n, d=d, seed=seed, **parameters)


def test_every_construction_is_tried_here():
    assert {name for name, _, _ in CASES} == set(constructions())


@pytest.mark.parametrize(("name", "sizes", "parameters"), CASES)
class TestEveryConstruction:
    def test_rows_are_sorted_distinct_and_in_range(self, name, sizes, parameters):
        m, n, d = sizes
        rows = make(name, sizes, parameters).rows
        assert rows.dtype == torch.int32
        assert rows.shape == (n, d)
        assert (rows[:, 1:] > rows[:, :-1]).all()
        assert rows.min() >= 0
        assert rows.max() < m

    def test_the_same_request_gives_the_same_rows(self, name, sizes, parameters):
        assert torch.equal(make(name, sizes, parameters, seed=3).rows, make(name, sizes, parameters, seed=3).rows)

    def test_the_seed_matters_where_there_is_chance(self, name, sizes, parameters):
        chance = name != "banded" and parameters.get("order") != "lexicographic" and sizes[0] != sizes[2]
        first, *others = (make(name, sizes, parameters, seed=seed).rows for seed in (0, 1, 2**63, 2**64 - 1))
        assert all(torch.equal(first, other) != chance for other in others)

    def test_a_column_does_not_depend_on_which_others_are_asked_for(self, name, sizes, parameters):
        n = sizes[1]
        rows = make(name, sizes, parameters).rows
        some = [n - 1, 0, 7, 7, n // 2]
        alone = make(name, sizes, parameters)
        assert torch.equal(alone.columns(some), rows[some])
        assert torch.equal(alone.columns(torch.arange(n - n % 2).view(2, -1)), rows[: n - n % 2].view(2, -1, sizes[2]))
        assert torch.equal(alone.column(n - 1), rows[n - 1])
        assert ("rows" in vars(alone)) != constructions()[name].procedural

    def test_the_recipe_rebuilds_it(self, name, sizes, parameters):
        support = make(name, sizes, parameters, seed=5)
        again = Support.from_recipe(support.recipe)
        assert again.recipe == support.recipe
        assert torch.equal(again.rows, support.rows)

    def test_every_coordinate_is_covered(self, name, sizes, parameters):
        expected = sizes[0] - sizes[2] if name == "shared" else 0
        assert len(uncovered_rows(make(name, sizes, parameters))) == expected


@pytest.mark.parametrize(("m", "d"), [(5, 2), (6, 3), (4, 3)])
def test_uniform_is_uniform_over_all_subsets(m, d):
    """Chi-square of 30,000 features over all subsets, below its 99.9 % point."""
    n = 30_000
    rows = Support.make("uniform", m=m, n=n, d=d, seed=11).rows.tolist()
    subsets = list(combinations(range(m), d))
    counts = np.zeros(len(subsets))
    for line in rows:
        counts[subsets.index(tuple(line))] += 1
    expected = n / len(subsets)
    critical = {10: 27.88, 20: 43.82, 4: 16.27}[len(subsets)]
    assert ((counts - expected) ** 2 / expected).sum() < critical


def test_a_million_features_are_quick():
    """Prints seconds; asserts none of them."""
    start = time.perf_counter()
    support = Support.make("uniform", m=2048, n=1_048_576, d=16)
    rows = support.rows
    print(f"1,048,576 uniform features of degree 16: {time.perf_counter() - start:.2f} s")
    assert rows.shape == (1_048_576, 16)
    assert (rows[:, 1:] > rows[:, :-1]).all()
    some = [0, 524_287, 1_048_575]
    assert torch.equal(Support.make("uniform", m=2048, n=1_048_576, d=16).columns(some), rows[some])


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 40), st.integers(1, 60), st.data())
def test_partitioned_has_one_row_in_each_group(m, n, data):
    d = data.draw(st.integers(1, m))
    rows = Support.make("partitioned", m=m, n=n, d=d).rows.numpy()
    edges = np.arange(d + 1) * m // d
    assert np.ptp(np.diff(edges)) <= 1
    assert ((rows >= edges[:-1]) & (rows < edges[1:])).all()


def test_partitioned_is_uniform_in_each_group():
    n = 20_000
    rows = Support.make("partitioned", m=12, n=n, d=3, seed=4).rows
    counts = torch.bincount(rows.flatten(), minlength=12).double().view(3, 4)
    assert (((counts - n / 4) ** 2 / (n / 4)).sum(dim=1) < 16.27).all()


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 30), st.integers(1, 60), st.integers(0, 2**64 - 1), st.data())
def test_balanced_degrees_differ_by_at_most_one(m, n, seed, data):
    d = data.draw(st.integers(1, m))
    support = Support.make("balanced", m=m, n=n, d=d, seed=seed)
    degrees = right_degrees(support)
    assert degrees.sum() == n * d
    assert degrees.max() - degrees.min() <= 1
    assert (support.rows[:, 1:] > support.rows[:, :-1]).all()


@settings(deadline=None, max_examples=40)
@given(
    st.integers(4, 70),
    st.integers(1, 6),
    st.integers(1, 3),
    st.sampled_from(["random-slopes", "lexicographic", "feistel"]),
)
def test_lines_holds_all_its_polynomials_without_overlap(m, d, strength, order):
    """All polynomials: overlap below the strength, all different, every coordinate covered and evenly used."""
    if d > m or strength > d or not fits(m, d) or code(m, d, strength).features > 3000:
        return
    polynomials = code(m, d, strength)
    support = Support.make("lines", m=m, n=polynomials.features, d=d, seed=1, strength=strength, order=order)
    assert max_overlap(support) <= strength - 1
    assert distinct_supports(support) == support.n
    degrees = right_degrees(support)
    if strength > 1:
        short = polynomials.constants
        assert (degrees[: m - short] == support.n // polynomials.order).all()
        assert (degrees[m - short :] == support.n // short).all()
    assert (degrees > 0)[m - polynomials.constants :].all()


def test_lines_at_the_sizes_of_the_theory():
    support = Support.make("lines", m=2048, n=16384, d=7)
    assert max_overlap(support) == 1
    degrees = right_degrees(support)
    assert (degrees.min(), degrees.max()) == (53, 57)
    full = Support.make("lines", m=2048, n=16384, d=16)
    assert max_overlap(full) == 1
    assert (right_degrees(full) == 128).all()


@pytest.mark.parametrize(("m", "n", "d"), [(576, 4608, 7), (61, 200, 4), (30, 40, 1)])
def test_greedy_has_overlap_one_and_balanced_degrees(m, n, d):
    support = Support.make("greedy", m=m, n=n, d=d)
    assert max_overlap(support) <= 1
    degrees = right_degrees(support)
    assert degrees.max() - degrees.min() <= 3


@pytest.mark.parametrize(("m", "n", "d"), [(576, 4608, 7), (2048, 16384, 7), (61, 122, 4), (62, 100, 4), (13, 26, 1)])
def test_cyclic_has_overlap_one_and_even_degrees(m, n, d):
    support = Support.make("cyclic", m=m, n=n, d=d)
    assert max_overlap(support) <= 1
    if n % m == 0:
        assert (right_degrees(support) == n * d // m).all()


def test_cyclic_holds_what_its_refusal_offers():
    with pytest.raises(SupportError, match="ask for at most") as refusal:
        Support.make("cyclic", m=2048, n=16384, d=16)
    offered = int(re.search(r"at most (\d+) features", str(refusal.value)).group(1))
    assert offered >= 2048
    assert max_overlap(Support.make("cyclic", m=2048, n=offered, d=16)) == 1


def test_cyclic_is_a_roll_of_its_blocks():
    m, d = 61, 4
    support = Support.make("cyclic", m=m, n=2 * m, d=d, seed=2)
    rows = support.rows.tolist()
    position = {row: place for place, row in enumerate(coordinate_order(m, 2).tolist())}
    for feature, line in enumerate(rows):
        block = base_blocks(m, 2, d, 2)[feature // m]
        assert {position[row] for row in line} == {(a + feature % m) % m for a in block.tolist()}


def test_cyclic_contains_the_stopping_set_of_twice_the_degree():
    """T = {(1, s): s in B_2} and {(2, s): s in B_1} hits every sum of elements exactly twice, so nothing peels."""
    m, d = 2048, 7
    support = Support.make("cyclic", m=m, n=16384, d=d, seed=0)
    first, second = base_blocks(m, 8, d, 0)[:2]
    trapped = sorted([*second.tolist(), *(m + first).tolist()])
    outside = next(feature for feature in range(m) if feature not in trapped)
    assert peel(support, trapped).tolist() == trapped
    assert peel(support, [*trapped, outside]).tolist() == trapped
    assert support.columns(trapped).unique().numel() == d * d
    assert peel(support, trapped[1:]).numel() == 0


def test_clustered_stays_inside_equal_clusters():
    support = Support.make("clustered", m=100, n=3000, d=5, cluster_size=32)
    together = torch.zeros(100, 100, dtype=torch.bool)
    for line in support.rows.tolist():
        together[np.ix_(line, line)] = True
    assert set(together.sum(dim=1).tolist()) == {33, 34}
    assert max_overlap(support) >= 4


def test_shared_has_one_support_and_full_overlap():
    support = Support.make("shared", m=50, n=20, d=6)
    assert distinct_supports(support) == 1
    assert overlap_histogram(support).tolist() == [0, 0, 0, 0, 0, 0, 190]


def test_block_is_block_diagonal():
    support = Support.make("block", m=40, n=100, d=4, blocks=4)
    blocks = support.rows // 10
    assert torch.equal(blocks, (torch.arange(100) // 25)[:, None].expand(100, 4))


def test_banded_is_windows_around_the_end():
    support = Support.make("banded", m=10, n=20, d=3)
    assert support.rows[[0, 1, 2, 19]].tolist() == [[0, 1, 2], [0, 1, 2], [1, 2, 3], [0, 1, 9]]
    assert max_overlap(Support.make("banded", m=10, n=10, d=3)) == 2
    assert (right_degrees(support) == 6).all()


IMPOSSIBLE = [
    ("greedy", (2048, 99_767, 7), {}, r"packing bound .* is 99766"),
    ("lines", (2048, 84_971, 7), {}, r"at most 84970 features of overlap 1 .* strength 3 would do"),
    ("lines", (10, 100, 2), {}, r"no strength has that many"),
    ("lines", (100, 50, 9), {}, r"nearest smaller degree that works is 8"),
    ("lines", (40, 50, 4), {"strength": 5}, r"strength must be between 1 and d = 4, not 5"),
    ("lines", (2048, 50, 16), {"strength": 16}, r"strength must be at most 8 "),
    ("lines", (40, 50, 4), {"order": "random"}, r"order must be one of random-slopes, lexicographic, feistel"),
    ("cyclic", (2048, 49 * 2048, 7), {}, r"at most 98304 features"),
    ("cyclic", (2048, 16384, 16), {}, r"found \d of 8 blocks .* ask for at most \d+ features"),
    ("clustered", (40, 50, 4), {"cluster_size": 3}, r"cluster_size must be between d = 4 and m = 40, not 3"),
    ("clustered", (40, 50, 4), {"cluster_size": 8.0}, r"cluster_size must be an integer, not 8.0"),
    ("block", (40, 50, 4), {"blocks": 11}, r"blocks must be between 1 and floor\(m / d\) = 10"),
    ("uniform", (40, 50, 4), {"order": "feistel"}, r"'uniform' has no parameter 'order'; it knows no parameters"),
    ("lines", (40, 50, 4), {"blocks": 2}, r"'lines' has no parameter 'blocks'; it knows strength, order"),
]


@pytest.mark.parametrize(("name", "sizes", "parameters", "sentence"), IMPOSSIBLE)
def test_the_impossible_is_refused_with_a_sentence(name, sizes, parameters, sentence):
    with pytest.raises(SupportError, match=sentence):
        make(name, sizes, parameters)


def test_greedy_says_how_far_it_came():
    support = Support.make("greedy", m=100, n=228, d=7)
    with pytest.raises(SupportError, match=r"stalled after \d+ of 228 features .* is 228\)"):
        _ = support.rows
