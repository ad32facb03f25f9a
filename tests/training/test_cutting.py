"""Cutting keeps what explains most, whatever the columns."""

from __future__ import annotations

import copy

import pytest
import torch

import expander_sae as xs
from expander_sae.training import cut, energies, train
from tests.training.planted import config, planted


@pytest.fixture(scope="module")
def trained() -> tuple[xs.SparseAutoencoder, torch.Tensor]:
    """A dictionary with 4 values per column on average, and what it was trained on."""
    x = planted(4096)[1]
    run = train(
        x,
        config(construction="learned", coder="omp", d=4, tokens=64 * 100, move_every=4),
        progress=False,
    )
    return run.sae, x


def lost(sae: xs.SparseAutoencoder, x: torch.Tensor) -> float:
    with torch.no_grad():
        return float((sae(x) - x).square().sum() / (x - x.mean(dim=0)).square().sum())


def test_the_more_is_cut_the_more_is_lost_and_random_cuts_lose_more(
    trained: tuple[xs.SparseAutoencoder, torch.Tensor],
) -> None:
    sae, x = trained
    energy = energies(sae, list(x.split(512)))
    smaller = [cut(sae, d, energy) for d in (3, 2, 1)]
    for d, each in zip((3, 2, 1), smaller, strict=True):
        assert each.dictionary.learned_values == d * sae.n
        torch.testing.assert_close(each.dictionary.norms(), sae.dictionary.norms())
    losses = [lost(each, x[:1000]) for each in (sae, *smaller)]
    assert losses == sorted(losses)
    blind = cut(sae, 2, torch.rand(sae.n, generator=torch.Generator().manual_seed(0)))
    assert lost(smaller[1], x[:1000]) < lost(blind, x[:1000])


def test_energies_do_not_depend_on_the_norms_of_columns(trained: tuple[xs.SparseAutoencoder, torch.Tensor]) -> None:
    sae, x = trained
    scaled = copy.deepcopy(sae)
    with torch.no_grad():
        scaled.dictionary.get_parameter("values").mul_(torch.rand(sae.n, 1) + 0.5)
    torch.testing.assert_close(energies(scaled, [x[:500]]), energies(sae, [x[:500]]), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("d", [0, 4, 9])
def test_impossible_cuts_are_refused(trained: tuple[xs.SparseAutoencoder, torch.Tensor], d: int) -> None:
    sae, _ = trained
    with pytest.raises(xs.ExpanderError, match="below the 4 values that columns have"):
        cut(sae, d, torch.ones(sae.n))


def test_only_pursuits_are_cut(trained: tuple[xs.SparseAutoencoder, torch.Tensor]) -> None:
    sae, _ = trained
    with pytest.raises(xs.ExpanderError, match="coded by a pursuit"):
        cut(sae.with_coder(xs.TopK(3)), 2, torch.ones(sae.n))
