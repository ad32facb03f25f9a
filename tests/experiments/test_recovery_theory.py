"""Certificates against brute force, and thresholds against their known values."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from expander_sae.coders import OMP
from expander_sae.dictionaries import Codes, DenseDictionary, Dictionary, ExpanderDictionary
from expander_sae.experiments.recovery_theory import babel, certified, l1_threshold, voting_threshold, welch
from expander_sae.supports import Support


def flat(construction: str, m: int, n: int, d: int, seed: int = 0) -> ExpanderDictionary:
    generator = torch.Generator().manual_seed(seed)
    support = Support.make(construction, m=m, n=n, d=d, seed=seed)
    return ExpanderDictionary(support, dtype=torch.float64, generator=generator)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 1000), st.booleans(), st.integers(2, 14))
def test_babel_is_the_worst_sum_of_overlaps(seed: int, dense: bool, n: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    made: Dictionary = DenseDictionary(8, n, 3 * torch.randn(n, 8, generator=generator, dtype=torch.float64))
    made = made if dense else flat("uniform", 8, n, 3, seed)
    unit = torch.nn.functional.normalize(made.to_dense().detach(), dim=0)
    gram = (unit.T @ unit).abs().fill_diagonal_(0.0)
    found = babel(made, n + 2)
    for k in range(min(4, n)):
        worst = max(float(gram[list(group)].sum(dim=0)[[j for j in range(n) if j not in group]].max())
                    for group in combinations(range(n), k)) if k else 0.0  # fmt: skip
        assert float(found[k]) == pytest.approx(worst)
    assert found[n] == found[n + 2]


def test_flat_columns_that_share_one_coordinate_certify_three_features_and_not_the_four_that_meet_equality() -> None:
    made = flat("lines", 256, 512, 7)
    sums = babel(made, 10)
    assert float(sums[4] + sums[3]) == pytest.approx(1.0)
    assert certified(sums) == 3
    assert certified(sums, 1 / 3) == 1
    assert certified(sums, 0.0) == 0


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000))
def test_certified_supports_are_recovered_whatever_the_coefficients(seed: int) -> None:
    made, generator = flat("lines", 64, 96, 5), torch.Generator().manual_seed(seed)
    k = certified(babel(made, 10))
    indices = torch.randperm(96, generator=generator)[None, :k]
    sizes = 10.0 ** (6 * torch.rand(1, k, generator=generator, dtype=torch.float64) - 3)
    with torch.no_grad():
        found = OMP(k, signed=True)(made, made.synthesize(Codes(sizes, indices, 96)))
    assert k == 2
    assert set(found.indices[found.active].tolist()) == set(indices[0].tolist())


def test_no_coherence_certifies_more_than_welch_allows() -> None:
    assert (welch(2048, 16384), welch(576, 4608), welch(8, 8)) == (24, 13, 8)
    for made in (flat("lines", 64, 96, 5), DenseDictionary(16, 48)):
        coherence = float(babel(made, 1)[1])
        assert (1 + 1 / coherence) / 2 <= welch(made.m, made.n) + 1


@pytest.mark.parametrize(("agree", "load"), [(1, 0.582), (2, 0.347), (3, 0.230)])
def test_density_evolution_at_seven_values_a_column(agree: int, load: float) -> None:
    assert voting_threshold(7, agree) == pytest.approx(load, abs=5e-4)


def test_all_coordinates_must_agree_only_where_nothing_overlaps() -> None:
    assert voting_threshold(7, 8) < 1e-3
    assert voting_threshold(12, 2) < voting_threshold(4, 2)


def test_the_threshold_of_l1_has_its_published_values() -> None:
    assert l1_threshold(0.5, signed=True) == pytest.approx(0.386, abs=1e-3)
    assert l1_threshold(0.5, signed=False) == pytest.approx(0.558, abs=1e-3)
    assert l1_threshold(0.1, signed=True) == pytest.approx(0.19, abs=0.01)
