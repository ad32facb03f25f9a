"""Theorem 1: head mass, the constant for all codes of a size, and the one for the codes on one set."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expander_sae.certificates.head_mass import HeadMass, spreading, spreading_of
from expander_sae.certificates.overlaps import overlaps
from expander_sae.certificates.progress import silent
from tests.certificates.masks import small_masks, subsets


def weighted_norms(mask, values, codes):
    """|W x|_1 of every code x, where each column counts by its l1 norm."""
    activations = np.zeros((mask.m, len(codes)))
    for feature, line in enumerate(mask.rows):
        for slot, coordinate in enumerate(line):
            if coordinate >= 0:
                activations[coordinate] += values[feature, slot] / np.abs(values[feature]).sum() * codes[:, feature]
    return np.abs(activations).sum(axis=0)


def values_on(mask, seed):
    """Values of very different sizes, zero where the mask has none."""
    generator = np.random.default_rng(seed)
    return np.exp(generator.standard_normal(mask.rows.shape)) * generator.choice([-1, 1], mask.rows.shape) * (
        mask.rows >= 0
    )  # fmt: skip


def codes_on(n, features, seed):
    """Codes on these features with an l1 norm of one: random ones, and all those of equal size."""
    generator = np.random.default_rng(seed)
    signs = np.array(np.meshgrid(*[[-1.0, 1.0]] * len(features))).reshape(len(features), -1).T
    wild = signs * np.exp(2 * generator.standard_normal(signs.shape))
    codes = np.zeros((2 * len(signs), n))
    codes[:, list(features)] = np.concatenate([signs, wild])
    return codes / np.abs(codes).sum(axis=1, keepdims=True)


@settings(deadline=None, max_examples=40)
@given(small_masks(), st.integers(0, 99))
def test_no_code_loses_more_than_theorem_1_says(mask, seed):
    values = values_on(mask, seed)
    head_mass, shared = HeadMass.of(values), overlaps(mask, mask.n, "overlaps", silent)
    shares = np.abs(values) / np.abs(values).sum(axis=1, keepdims=True)
    for features in subsets(range(mask.n)):
        if len(features) > 5:
            continue
        least = weighted_norms(mask, values, codes_on(mask.n, features, seed)).min()
        everywhere = spreading(shared.collisions(len(features), mask.d), head_mass)
        here = spreading_of(shares[list(features)], mask.rows[list(features)])
        assert everywhere <= least + 1e-9
        assert here <= least + 1e-9


@settings(deadline=None, max_examples=40)
@given(small_masks(), st.integers(0, 99))
def test_the_constant_of_a_set_is_that_of_its_best_order(mask, seed):
    values = values_on(mask, seed)
    shares = np.abs(values) / np.abs(values).sum(axis=1, keepdims=True)
    features = list(range(min(mask.n, 5)))
    worst_by_order = []
    for order in permutations(features):
        touched, worst = set(), 0.0
        for feature in order:
            entries = [(c, share) for c, share in zip(mask.rows[feature], shares[feature], strict=True) if c >= 0]
            worst = max(worst, sum(share for coordinate, share in entries if coordinate in touched))
            touched |= {coordinate for coordinate, _ in entries}
        worst_by_order.append(worst)
    assert spreading_of(shares[features], mask.rows[features]) == pytest.approx(
        max(0, 1 - 2 * min(worst_by_order)), abs=1e-12
    )


def test_head_mass_of_flat_columns_is_a_straight_line():
    head_mass = HeadMass.of(np.array([[1.0, -1, 1, 1], [-3.0, 3, 3, 3]]))
    assert head_mass.curve == pytest.approx([0, 0.25, 0.5, 0.75, 1])
    assert head_mass.betas == pytest.approx(dict.fromkeys(("median", "90 %", "99 %", "largest"), 1.0))


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 9), st.integers(1, 20), st.integers(0, 99))
def test_head_mass_is_concave_below_beta_and_blind_to_scale(d, n, seed):
    values = np.exp(2 * np.random.default_rng(seed).standard_normal((n, d)))
    head_mass = HeadMass.of(values)
    curve = head_mass.curve
    assert (np.diff(curve, 2) <= 1e-12).all()
    assert curve[0] == 0
    assert curve[-1] == pytest.approx(1)
    assert (curve <= np.minimum(1, head_mass.betas["largest"] * np.arange(d + 1) / d) + 1e-12).all()
    sizes = -np.sort(-values, axis=1)
    assert (curve[1:] >= (np.cumsum(sizes, axis=1) / sizes.sum(axis=1, keepdims=True)).max(axis=0) - 1e-12).all()
    scaled = HeadMass.of(values * np.exp(np.random.default_rng(seed).standard_normal((n, 1))))
    assert scaled.curve == pytest.approx(curve)
    assert head_mass.of_collisions(0.5) == pytest.approx((curve[0] + curve[1]) / 2)


def test_the_star_that_refutes_the_tempting_bound():
    """Seven columns with half of their mass on one coordinate each of a flat one: 1 - H(2 eps) would be too much."""
    d = 7
    rows = [list(range(d))] + [[slot, *range(d + 6 * slot, d + 6 * slot + 6)] for slot in range(d)]
    rows = np.array(rows, dtype=np.int32)
    values = np.ones((8, d))
    values[1:, 0] = -6.0
    epsilon = 1 - (7 + 7 * 6) / (8 * d)
    assert epsilon == pytest.approx(1 / 8)
    head_mass = HeadMass.of(values)
    assert head_mass.betas["largest"] == pytest.approx(3.5)
    code = np.array([1.0] + [1 / 3.5] * 7)
    activation = np.zeros(d + 42)
    for line, column, amount in zip(rows, values / np.abs(values).sum(axis=1, keepdims=True), code, strict=True):
        activation[line] += column * amount
    ratio = np.abs(activation).sum() / code.sum()
    assert ratio == pytest.approx(1 / 3)
    assert 1 - head_mass.of_collisions(2 * epsilon * d) == pytest.approx(0.4375)
    assert spreading(epsilon * d, head_mass) == pytest.approx(0.125)
