"""Certificates against what happens, and thresholds against their known values."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from expander_sae.certificates.coherence import Coherence, coherence_of
from expander_sae.certificates.matrix import matrix_of
from expander_sae.certificates.progress import silent
from expander_sae.certificates.samples import random_sets
from expander_sae.coders import OMP, TopK
from expander_sae.dictionaries import Codes, Dictionary, ExpanderDictionary
from expander_sae.studies.recovery.theory import l1_threshold, sets_with_condition, voting_threshold
from expander_sae.supports import Support


def flat(construction: str, m: int, n: int, d: int, seed: int = 0) -> ExpanderDictionary:
    generator = torch.Generator().manual_seed(seed)
    support = Support.make(construction, m=m, n=n, d=d, seed=seed)
    return ExpanderDictionary(support, dtype=torch.float64, generator=generator)


def coherence(dictionary: Dictionary) -> Coherence:
    return coherence_of(matrix_of(dictionary, 0.0), 10, silent)


def test_flat_columns_that_share_one_coordinate_certify_less_where_coefficients_differ() -> None:
    found = coherence(flat("lines", 256, 512, 7))
    assert [found.certified_k(ratio) for ratio in (1.0, 1 / 3, 0.0)] == [3, 1, 0]
    assert found.babel_k == 3


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000))
def test_certified_supports_are_recovered(seed: int) -> None:
    made, generator = flat("lines", 64, 96, 5), torch.Generator().manual_seed(seed)
    found, draw = coherence(made), torch.rand(2, generator=generator, dtype=torch.float64)
    assert (found.babel_k, found.certified_k(0.3)) == (2, 1)
    indices = torch.randperm(96, generator=generator)[None, :2]
    sizes = torch.stack([draw[0].new_ones(()), 10.0 ** (6 * draw[1] - 3)])[None]
    with torch.no_grad():
        by_pursuit = OMP(2, signed=True)(made, made.synthesize(Codes(sizes, indices, 96)))
        near = Codes(0.7 + 0.3 * draw[None], indices, 96)  # 1 / 5 + 2 / 5 is below 0.7
        by_size = TopK(2, signed=True)(made, made.synthesize(near))
    assert found.certified_k(0.7) == 2
    for codes in (by_pursuit, by_size):
        assert set(codes.indices[codes.active].tolist()) == set(indices[0].tolist())


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


def condition_of(matrix: torch.Tensor, features: np.ndarray) -> float:
    """Tropp's number: the largest l1 norm of the pseudo-inverse times a column outside."""
    inside = torch.zeros(matrix.shape[1], dtype=torch.bool)
    inside[features] = True
    return float((torch.linalg.pinv(matrix[:, inside]) @ matrix[:, ~inside]).abs().sum(dim=0).max())


def test_sets_that_satisfy_the_exact_recovery_condition_are_counted() -> None:
    dictionary, sizes = flat("uniform", 64, 128, 5), (2, 5, 30, 40)
    columns = matrix_of(dictionary, 0.0)
    found = sets_with_condition(columns, sizes, 30, seed=3)
    matrix = dictionary.to_dense().detach()
    expected = [
        sum(condition_of(matrix, each) < 1 - 1e-9 for each in random_sets(columns.used, k, 30, 3)) for k in sizes[:3]
    ]
    assert found == expected  # and larger sizes are not tried once there is none
    assert 0 < found[1] < 30
    assert found[2] == 0


def test_pursuit_finds_every_code_where_the_condition_holds() -> None:
    dictionary = flat("uniform", 64, 128, 5)
    columns, matrix = matrix_of(dictionary, 0.0), dictionary.to_dense().detach()
    sets = [each for each in random_sets(columns.used, 5, 60, 0) if condition_of(matrix, each) < 1 - 1e-9]
    assert len(sets) > 10
    indices = torch.from_numpy(np.stack(sets))
    sizes = torch.randn(indices.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) ** 5
    planted = Codes(sizes, indices, 128)
    with torch.no_grad():
        found = OMP(5, signed=True)(dictionary, dictionary.synthesize(planted))
    torch.testing.assert_close(found.to_dense(), planted.to_dense(), atol=1e-9, rtol=1e-6)
