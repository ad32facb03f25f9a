"""Ranks of pick, effects inside the model, and features found again, each against what it must be."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.sparse import csc_array

from expander_sae import FISTA, OMP, BatchTopK, Candidates, DenseDictionary, SparseAutoencoder, TopK
from expander_sae.activations.models import LanguageModel
from expander_sae.errors import ExpanderError
from expander_sae.evaluation.quality import HeldOut
from expander_sae.evaluation.quality.effects import AHEAD, Removal, _effect, effects_of, removals_of
from expander_sae.evaluation.quality.firings import firings_of
from expander_sae.evaluation.quality.ranks import at_home, by_rank
from expander_sae.evaluation.quality.stability import columns_found_again, firings_found_again
from tests.evaluation.quality.conftest import HOOKPOINT
from tests.evaluation.subjects import random


def autoencoder(coder: object, m: int = 8, n: int = 24, seed: int = 0) -> SparseAutoencoder:
    dictionary = DenseDictionary(m, n, generator=torch.Generator().manual_seed(seed))
    return SparseAutoencoder(dictionary, coder)  # type: ignore[arg-type]


@pytest.mark.parametrize("coder", [TopK(5), BatchTopK(5), Candidates(5, 8), OMP(5), FISTA(0.05)])
def test_every_firing_has_one_rank(coder: object) -> None:
    sae, x = autoencoder(coder), torch.randn(50, 8, generator=torch.Generator().manual_seed(1))
    firings = firings_of(sae, x)
    bands = by_rank(sae, x, firings)
    together = sum((band.firings for band in bands), csc_array(firings.shape))
    assert (together != firings).nnz == 0
    assert [(band.first, band.last) for band in bands][:3] == [(1, 1), (2, 2), (3, 4)]
    assert sum(at_home(bands, firings)) == (np.diff(firings.indptr) > 0).sum()


def test_the_first_ranks_of_a_pursuit_are_its_first_picks() -> None:
    sae, x = autoencoder(OMP(6)), torch.randn(60, 8, generator=torch.Generator().manual_seed(2))
    bands = by_rank(sae, x, firings_of(sae, x))
    first = firings_of(sae.with_coder(OMP(1)), x)
    picked = [set(zip(*matrix.nonzero(), strict=True)) for matrix in (first, bands[0].firings)]
    assert picked[1] <= picked[0]
    assert len(picked[1]) > 0.8 * len(picked[0])  # a first pick may be refitted to nought


def test_the_first_rank_of_a_single_product_is_its_strongest_feature() -> None:
    sae, x = autoencoder(TopK(4)), torch.randn(60, 8, generator=torch.Generator().manual_seed(3))
    firings = firings_of(sae, x)
    strongest = firings.toarray().argmax(axis=1)
    token, feature = by_rank(sae, x, firings)[0].firings.nonzero()
    assert (strongest[token] == feature).all()


def test_an_effect_is_what_the_model_says_without_the_firing(held_out: HeldOut, language_model: LanguageModel) -> None:
    sae = random(16)
    sae.fit_scale(held_out.x)
    firings = firings_of(sae, held_out.x)
    feature = int(np.diff(firings.indptr).argmax())
    tokens = firings.indices[firings.indptr[feature] : firings.indptr[feature + 1]][[0, 5, -1]].astype(np.int64)
    removals = removals_of(sae, feature, tokens, firings[tokens][:, [feature]].toarray()[:, 0])
    codes = sae.encode(held_out.x[tokens])
    without = type(codes)(torch.where(codes.indices == feature, 0, codes.values), codes.indices, codes.n)
    for removal, part in zip(removals, sae.decode(codes) - sae.decode(without), strict=True):
        torch.testing.assert_close(removal.part, part, rtol=1e-4, atol=1e-5)
    for removal, effect in zip(removals, effects_of(removals, held_out, language_model, HOOKPOINT), strict=True):
        place = int(held_out.place[removal.token])
        here = np.flatnonzero(held_out.text.piece == held_out.text.piece[place])
        ids = torch.from_numpy(held_out.text.ids[here])[None]
        at = place - int(here[0])
        logits = [_logits(language_model, ids, at, part) for part in (torch.zeros(16), removal.part)]
        change = (logits[1] - logits[0])[at : at + AHEAD]
        change = change - change.median(dim=1, keepdim=True).values
        expected = float(change.abs().sum() / change.norm()) ** 2 / change.numel()
        assert effect.spread == pytest.approx(expected, rel=1e-2)
        assert effect.size == pytest.approx(float(change.norm() / removal.part.norm()), rel=1e-3)


@torch.no_grad()
def _logits(language_model: LanguageModel, ids: torch.Tensor, at: int, part: torch.Tensor) -> torch.Tensor:
    def take_away(module: object, inputs: object, output: torch.Tensor) -> torch.Tensor:
        changed = output.clone()
        changed[0, at] -= part
        return changed

    handle = language_model.model.base_model.layers[1].register_forward_hook(take_away)
    try:
        return language_model.model(input_ids=ids).logits[0]
    finally:
        handle.remove()


def test_the_spread_of_a_single_change_is_least_and_of_equal_ones_most() -> None:
    one, half = torch.zeros(4, 100), torch.zeros(4, 100)
    one[2, 7] = 3.0
    half[:, :40] = 1.0
    assert _effect(one, 1.5).spread == pytest.approx(1 / 400)
    assert _effect(one, 1.5).size == pytest.approx(2)
    assert _effect(half, 1.0).spread == pytest.approx(0.4)
    assert np.isnan(_effect(torch.zeros(4, 100), 1.0).spread)


def test_nothing_taken_away_has_no_effects(held_out: HeldOut, language_model: LanguageModel) -> None:
    assert effects_of(list[Removal](), held_out, language_model, HOOKPOINT) == []


def test_a_dictionary_in_another_order_is_found_again() -> None:
    one = autoencoder(TopK(3))
    order = torch.randperm(24, generator=torch.Generator().manual_seed(0))
    other = SparseAutoencoder(DenseDictionary(8, 24, 3 * one.dictionary.values.detach()[order]), TopK(3))
    everything = np.arange(24)
    found = columns_found_again(one, other, everything, everything)
    assert found.share == 1.0
    assert found.mean == pytest.approx(1)
    x = torch.randn(200, 8, generator=torch.Generator().manual_seed(1))
    assert firings_found_again(firings_of(one, x), firings_of(other, x), everything, everything).share == 1.0


def test_features_that_have_no_partner_are_not_found() -> None:
    one = autoencoder(TopK(3))
    assert columns_found_again(one, one, np.arange(24), np.arange(6)).share == pytest.approx(6 / 24)
    stranger = autoencoder(TopK(3), m=512, seed=1)
    assert columns_found_again(autoencoder(TopK(3), m=512), stranger, np.arange(24), np.arange(24)).share == 0
    assert np.isnan(columns_found_again(one, one, np.arange(0), np.arange(6)).share)
    with pytest.raises(ExpanderError, match="of width 512"):
        columns_found_again(one, stranger, np.arange(24), np.arange(24))
