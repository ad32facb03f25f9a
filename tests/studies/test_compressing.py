"""What is made of a dense dictionary is what it says, in as many values and bytes as it says."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.coders import OMP, TopK
from expander_sae.dictionaries import DenseDictionary
from expander_sae.evaluation import evaluate_activations
from expander_sae.studies.data import planted_activations
from expander_sae.studies.frontier.compressing import (
    PACKED,
    fine_tuned,
    k_means,
    low_rank,
    multiplied,
    product_quantised,
    pruned,
    quantise_products,
    two_bits,
)
from expander_sae.training import TrainConfig, train

M, N, K = 96, 128, 4


@pytest.fixture(scope="module")
def x() -> Float[Tensor, "tokens m"]:
    return planted_activations(2048)


@pytest.fixture(scope="module")
def config() -> TrainConfig:
    return TrainConfig(n=N, k=K, objective="fidelity", tokens=4096, batch=256)


@pytest.fixture(scope="module")
def dense(x: Tensor, config: TrainConfig) -> SparseAutoencoder:
    return train(x, config, progress=False).sae


def values_of(sae: SparseAutoencoder) -> Float[Tensor, "n m"]:
    return sae.dictionary.to_dense().T.detach()


def error(sae: SparseAutoencoder, other: SparseAutoencoder) -> float:
    return float((values_of(sae) - values_of(other)).norm() / values_of(other).norm())


def fvu(sae: SparseAutoencoder, x: Tensor) -> float:
    return evaluate_activations(sae, x).fvu.value


def test_pruning_keeps_the_largest_values_where_they_are(dense: SparseAutoencoder) -> None:
    sae = pruned(dense, 5, TopK(K))
    kept, all_values = values_of(sae), values_of(dense)
    assert ((kept != 0).sum(dim=1) == 5).all()
    assert torch.equal(kept[kept != 0], all_values[kept != 0])
    dropped = torch.where(kept == 0, all_values, 0).abs().amax(dim=1)
    assert (torch.where(kept != 0, kept.abs(), torch.inf).amin(dim=1) >= dropped).all()
    assert sae.latent_bias is not None
    assert dense.latent_bias is not None
    assert torch.equal(sae.latent_bias, dense.latent_bias)


def test_for_a_pursuit_pruned_columns_have_unit_norm_and_no_bias(dense: SparseAutoencoder) -> None:
    sae = pruned(dense, 5, OMP(K))
    torch.testing.assert_close(sae.dictionary.norms(), torch.ones(N))
    assert sae.latent_bias is None
    assert torch.equal(sae.scale, dense.scale)


def test_a_low_rank_dictionary_is_the_best_of_its_rank(dense: SparseAutoencoder) -> None:
    sizes = torch.linalg.svdvals(values_of(dense))
    for rank in (1, 8, 40):
        sae = low_rank(dense, rank)
        assert error(sae, dense) == pytest.approx(float(sizes[rank:].norm() / sizes.norm()), abs=1e-4)
        assert sae.dictionary.learned_values == rank * (N + M)
        assert sum(parameter.numel() for parameter in sae.parameters()) == rank * (N + M) + N + M


def test_factors_are_multiplied_in_8_bits_and_counted(dense: SparseAutoencoder) -> None:
    factors = low_rank(dense, 8)
    whole = multiplied(factors)
    assert type(whole.dictionary) is DenseDictionary
    assert 0 < error(whole, factors) < 0.02
    assert whole.provenance[PACKED] == {"learned_values": 8 * (N + M), "bytes": 8 * (N + M) + N + 8}


def test_two_bits_are_four_levels_a_column_and_better_than_the_signs(dense: SparseAutoencoder) -> None:
    sae = two_bits(dense)
    assert all(len(column.unique()) <= 4 for column in values_of(sae))
    assert sae.provenance[PACKED] == {"learned_values": N * M, "bytes": N * M // 4 + 2 * N}
    values = values_of(dense)
    signs = values.sign() * values.abs().mean(dim=1, keepdim=True)
    assert error(sae, dense) < float((signs - values).norm() / values.norm())


def test_columns_made_of_few_pieces_are_found_again() -> None:
    generator = torch.Generator().manual_seed(1)
    parts = torch.nn.functional.normalize(torch.randn(3, 4, 8, generator=generator), dim=2)
    chosen = torch.randint(0, 4, (64, 3), generator=generator)
    columns = torch.cat([part[which] for part, which in zip(parts, chosen.T, strict=True)], dim=1)
    found, cost = quantise_products(columns * torch.linspace(0.5, 2, 64)[:, None], 8, generator)
    torch.testing.assert_close(found, columns * torch.linspace(0.5, 2, 64)[:, None], rtol=0.02, atol=0.02)
    assert cost.learned_values == 16 * 24 + 64 * 3 + 64
    assert cost.bytes == 16 * 24 + 16 * 3 + 64 * 3 + 2 * 64


def test_shorter_pieces_lose_less(dense: SparseAutoencoder) -> None:
    assert error(product_quantised(dense, 4), dense) < error(product_quantised(dense, 32), dense) < 1


def test_rounds_of_k_means_bring_centroids_nearer() -> None:
    x = torch.randn(500, 6, generator=torch.Generator().manual_seed(2))
    start = x[torch.randperm(500, generator=torch.Generator().manual_seed(3))[:20]]
    found = k_means(x, 20, torch.Generator().manual_seed(3))
    distance = torch.cdist(x, found).amin(dim=1).square().mean()
    assert distance < 0.9 * torch.cdist(x, start).amin(dim=1).square().mean()


@pytest.mark.parametrize("coder", ["topk", "omp"])
def test_training_once_more_mends_what_pruning_broke(
    dense: SparseAutoencoder, config: TrainConfig, x: Tensor, coder: str
) -> None:
    tuning = dataclasses.replace(config, d=4, coder=coder, construction="uniform", tokens=2048)  # type: ignore[arg-type]
    start = pruned(dense, 4, tuning.make_coder())
    before, rows = fvu(start, x), pruned(dense, 4, tuning.make_coder()).dictionary
    after = fine_tuned(start, tuning, x)
    assert fvu(after, x) < 0.9 * before
    assert torch.equal(after.dictionary.get_buffer("rows"), rows.get_buffer("rows"))


def test_training_once_more_moves_both_factors(dense: SparseAutoencoder, config: TrainConfig, x: Tensor) -> None:
    start = low_rank(dense, 8)
    before = fvu(start, x)
    after = fine_tuned(start, dataclasses.replace(config, auxk=0.0, tokens=8192), x)
    assert fvu(after, x) < 0.95 * before
    assert int(torch.linalg.matrix_rank(values_of(after))) == 8
