"""Cutting keeps what explains most, whatever the columns."""

from __future__ import annotations

import copy

import pytest
import torch

import expander_sae as xs
from expander_sae.training import cut, energies, train
from tests.training.planted import N, config, planted


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


@pytest.fixture(scope="module")
def composed() -> tuple[xs.SparseAutoencoder, torch.Tensor]:
    """Mixtures of atoms, four or so of them, read by one product; half of the atoms are twice as long as they were."""
    x = planted(4096)[1]
    settings = config(construction="learned", coder=None, atoms=24, d=8, tokens=64 * 100, move_every=4, dead_after=256)
    sae = train(x, settings, progress=False).sae
    atoms, columns = sae.dictionary.get_submodule("atoms"), sae.dictionary.get_submodule("mixtures")
    assert isinstance(columns, xs.ExpanderDictionary)
    with torch.no_grad():
        longer = 1 + (torch.arange(24) % 2)
        atoms.get_parameter("values").mul_(longer[:, None])
        columns.values.div_(longer[columns.rows])
    return sae, x


def test_mixtures_lose_values_and_atoms_stay(composed: tuple[xs.SparseAutoencoder, torch.Tensor]) -> None:
    sae, x = composed
    assert isinstance(sae.dictionary, xs.ComposedDictionary)
    energy, before = energies(sae, list(x.split(512))), sae.dictionary
    largest = (before.mixtures.values * before.atoms.norms()[before.mixtures.rows]).abs().argmax(dim=1)
    losses = [lost(sae, x[:1000])]
    for d in (3, 2):
        after = cut(sae, d, energy).dictionary
        assert isinstance(after, xs.ComposedDictionary)
        assert torch.equal(after.atoms.values, before.atoms.values)
        assert after.mixtures.learned_values <= d * N
        torch.testing.assert_close(after.norms(), before.norms())
        main = before.mixtures.rows.gather(1, largest[:, None])
        assert (after.mixtures.rows == main).any(dim=1).all()
        losses.append(lost(cut(sae, d, energy), x[:1000]))
    assert losses == sorted(losses)
    blind = cut(sae, 2, torch.rand(sae.n, generator=torch.Generator().manual_seed(0)))
    assert losses[-1] < lost(blind, x[:1000])
    smaller = cut(sae, 2, energy)
    assert smaller.latent_bias is not None
    assert torch.equal(smaller.latent_bias, sae.latent_bias)  # type: ignore[arg-type]  # it has one too


def test_dense_ones_and_encoders_of_their_own_are_refused(composed: tuple[xs.SparseAutoencoder, torch.Tensor]) -> None:
    sae, _ = composed
    for other in (
        xs.SparseAutoencoder(xs.DenseDictionary(10, 20), xs.OMP(2)),
        xs.SparseAutoencoder(sae.dictionary, xs.TopK(3), tied=False),
    ):
        with pytest.raises(xs.ExpanderError, match="their own encoder can be cut"):
            cut(other, 2, torch.ones(other.n))
