"""Features of two dictionaries, matched by what they fire on and by what they write, against dense products."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from expander_sae.activations.store import Store
from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.coders import OMP, TopK
from expander_sae.dictionaries import DenseDictionary
from expander_sae.features import FeatureDatabase, FeaturesConfig, collect_all, collect_features
from expander_sae.features.matching import matched_by_columns, matched_by_firing, on_the_same_tokens
from tests.features.conftest import TOKENS, M


@pytest.fixture
def other() -> SparseAutoencoder:
    """More features, more of them at a time, and of both signs; feature 0 never fires."""
    values = torch.randn(31, M, generator=torch.Generator().manual_seed(5))
    values[0] = 0
    return SparseAutoencoder(DenseDictionary(M, 31, values), OMP(4, signed=True))


@pytest.fixture
def pair(sae: SparseAutoencoder, other: SparseAutoencoder, store: Store, tmp_path: Path) -> list[FeatureDatabase]:
    both = {"a": (sae, tmp_path / "a"), "b": (other, tmp_path / "b")}
    return list(collect_all(both, store, config=FeaturesConfig(tokens=TOKENS)).values())


def dense_codes(sae: SparseAutoencoder, store: Store) -> NDArray[np.float64]:
    tokens = store[:]
    with torch.no_grad():
        codes = sae.encode(tokens.activations.float()).to_dense().double()
    codes[tokens.massive] = 0
    return codes.numpy()


def cosines_of(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    lengths = [np.linalg.norm(each, axis=0).clip(min=1e-30) for each in (one, other)]
    return (one / lengths[0]).T @ (other / lengths[1])


def test_the_largest_cosine_of_activations_is_found(
    pair: list[FeatureDatabase], sae: SparseAutoencoder, other: SparseAutoencoder, store: Store
) -> None:
    codes = [dense_codes(each, store) for each in (sae, other)]
    for mine, rival in ((0, 1), (1, 0)):
        seen = list[int]()
        found = matched_by_firing(pair[mine], pair[rival], seen.append)
        expected = cosines_of(codes[mine], codes[rival])
        best = expected.max(axis=1)
        assert found.cosines == pytest.approx(best.clip(min=0), abs=1e-5)
        for feature, match in enumerate(found.features):
            if best[feature] > 1e-5:
                assert expected[feature, match] == pytest.approx(best[feature], abs=1e-5)
            else:
                assert match == -1
        assert seen[-1] == len(found.features)
        assert len(seen) > 2
    silent = (codes[0] == 0).all(axis=0)
    assert silent.any()
    assert (matched_by_firing(*pair).features[silent] == -1).all()


def test_a_dictionary_matches_itself(pair: list[FeatureDatabase], sae: SparseAutoencoder) -> None:
    fires = pair[0].largest.numpy() > 0
    found = matched_by_firing(pair[0], pair[0])
    assert np.array_equal(found.features[fires], np.flatnonzero(fires))
    assert found.cosines[fires] == pytest.approx(1, abs=1e-6)
    columns = matched_by_columns(sae, sae)
    writes = sae.dictionary.norms().detach().numpy() > 0
    assert np.array_equal(columns.features[writes], np.flatnonzero(writes))


def test_the_largest_cosine_of_columns_is_found(sae: SparseAutoencoder, other: SparseAutoencoder) -> None:
    one, two = (each.dictionary.to_dense().detach().double().numpy() for each in (sae, other))
    found = matched_by_columns(sae, other)
    expected = cosines_of(one, two)
    assert found.cosines == pytest.approx(expected.max(axis=1), abs=1e-5)


def test_other_tokens_or_codes_that_were_not_kept_are_not_compared(
    pair: list[FeatureDatabase], sae: SparseAutoencoder, store: Store, tmp_path: Path
) -> None:
    assert on_the_same_tokens(*pair)
    again = collect_features(sae.with_coder(TopK(2)), store, out=tmp_path / "c", config=FeaturesConfig(tokens=TOKENS))
    assert on_the_same_tokens(pair[0], again)
    fewer = collect_features(sae, store, out=tmp_path / "d", config=FeaturesConfig(tokens=TOKENS // 2))
    assert not on_the_same_tokens(pair[0], fewer)
    config = FeaturesConfig(tokens=TOKENS, keep_codes=False)
    without = collect_features(sae, store, out=tmp_path / "e", config=config)
    assert not on_the_same_tokens(without, pair[0])
