"""Candidates: what may fire by one product, and the pursuit among it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import expander_sae as xs
from expander_sae.coders import OMP, Candidates, TopK
from expander_sae.coders.candidates import fitted
from expander_sae.kernels import Rules
from expander_sae.kernels.candidates import CandidateColumns, pursue_candidates
from tests.coders.problems import FAMILIES, gaussian, make_dictionary, plant, residual

K = 4
every_dictionary = pytest.mark.parametrize("family", FAMILIES)
both_signs = pytest.mark.parametrize("signed", [False, True], ids=["non-negative", "signed"])


@every_dictionary
@both_signs
def test_among_all_features_it_is_omp(family, signed):
    dictionary = make_dictionary(family)
    x = torch.cat([plant(dictionary, 20, K, signed=signed).x, gaussian(20, dictionary.m)])
    ours, theirs = Candidates(K, 40, signed)(dictionary, x), OMP(K, signed=signed)(dictionary, x)
    torch.testing.assert_close(ours.to_dense(), theirs.to_dense())


@every_dictionary
@settings(deadline=None)
@given(seed=st.integers(0, 100), signed=st.booleans(), fewest=st.integers(K, 12))
def test_one_more_candidate_is_one_more_only_where_it_is_taken(family, seed, signed, fewest):
    """The same codes, unless the one that joined is in them."""
    dictionary, x = make_dictionary(family, seed=seed), gaussian(8, 24, seed)
    few, more = Candidates(K, fewest, signed)(dictionary, x), Candidates(K, fewest + 1, signed)(dictionary, x)
    joined = dictionary.select(x, fewest + 1, signed=signed).indices[:, -1:]
    without = ~((more.indices == joined) & more.active).any(dim=1)
    torch.testing.assert_close(few.to_dense()[without], more.to_dense()[without], atol=1e-8, rtol=0)


@every_dictionary
@both_signs
def test_k_candidates_are_topk_with_amplitudes_that_explain_more(family, signed):
    dictionary, x = make_dictionary(family), gaussian(30, 24)
    codes, one_shot = Candidates(K, K, signed)(dictionary, x), TopK(K, signed)(dictionary, x)
    assert ((codes.to_dense() != 0) <= (one_shot.to_dense() != 0)).all()
    left, before = (torch.linalg.vector_norm(residual(dictionary, each, x), dim=1) for each in (codes, one_shot))
    assert (left <= before + 1e-9).all()


@every_dictionary
def test_amplitudes_are_least_squares(family):
    """What is left is orthogonal to every feature in use."""
    dictionary, x = make_dictionary(family), gaussian(30, 24)
    codes = Candidates(K)(dictionary, x)
    left = dictionary.correlate_at(residual(dictionary, codes, x), codes.indices) * codes.active
    assert left.abs().max() < 1e-9


@settings(deadline=None)
@given(seed=st.integers(0, 100), signed=st.booleans())
def test_the_compiled_pursuit_is_the_textbook_loop(seed, signed):
    dictionary, x = make_dictionary("expander", seed=seed), gaussian(12, 24, seed)
    columns = dictionary.unit_columns(x.dtype)
    among = dictionary.select(x, 9, signed=signed).indices
    gram = dictionary.gram(among) * columns.scale[among][:, :, None] * columns.scale[among][:, None, :]
    target = dictionary.correlate_at(x, among) * columns.scale[among]

    def dense(implementation):
        with torch.no_grad():
            candidates = CandidateColumns(
                gram.detach(), target.detach(), lambda v, places: columns.synthesize(v, among.gather(1, places))
            )
            values, places = pursue_candidates(candidates, x, Rules(K, signed), implementation)
        return torch.zeros(12, 9, dtype=x.dtype).scatter_add(1, places, values)

    torch.testing.assert_close(dense("cpu"), dense("reference"), atol=1e-9, rtol=0)


def test_a_bias_says_who_may_fire_and_not_how_strongly():
    dictionary = make_dictionary("expander")
    planted = plant(dictionary, 20, 2)
    bias = torch.zeros(40, dtype=torch.float64).index_fill(0, planted.codes.indices.unique(), 100.0)
    codes = Candidates(2, 40)(dictionary, planted.x, bias)
    torch.testing.assert_close(codes.to_dense(), OMP(2)(dictionary, planted.x).to_dense())
    elsewhere = torch.full((40,), -1e6, dtype=torch.float64).index_fill(0, torch.arange(5), 0.0)
    assert (Candidates(2, 4)(dictionary, planted.x, elsewhere).indices < 5).all()


def test_an_encoder_of_its_own_says_who_may_fire():
    dictionary, encoder = make_dictionary("expander"), make_dictionary("expander", seed=1)
    sae = xs.SparseAutoencoder(dictionary, Candidates(K, 6), tied=False, latent_bias=True)
    sae.untied_encoder = encoder
    x = gaussian(10, 24)
    codes, among = sae.encode(x), encoder.select(x, 6).indices
    values, indices = fitted(dictionary, x, among, K, signed=False)
    torch.testing.assert_close(codes.to_dense(), xs.Codes(values, indices, 40).to_dense())


def test_it_survives_the_file(tmp_path):
    sae = xs.SparseAutoencoder(make_dictionary("expander"), Candidates(K, 7), latent_bias=True)
    sae.save(tmp_path / "a")
    assert xs.SparseAutoencoder.load(tmp_path / "a").coder == Candidates(K, 7)
