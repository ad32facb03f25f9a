"""JumpReLU: what is above its threshold fires, and nothing else."""

import pytest
import torch

import expander_sae as xs
from expander_sae.coders import base
from tests.coders.problems import FAMILIES, gaussian, make_dictionary


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("signed", [False, True])
def test_codes_are_the_scores_above_the_thresholds(family, signed, monkeypatch):
    monkeypatch.setattr(base, "CHUNK_ELEMENTS", 100)
    dictionary, x = make_dictionary(family), gaussian(9, 24)
    generator = torch.Generator().manual_seed(0)
    bias, thresholds = (torch.randn(40, generator=generator).double() for _ in range(2))
    thresholds = thresholds.abs()
    codes = xs.JumpReLU(signed=signed)(dictionary, x, bias, thresholds)
    scores = x @ dictionary.to_dense() + bias
    sizes = scores.abs() if signed else scores
    torch.testing.assert_close(codes.to_dense(), torch.where(sizes > thresholds, scores, 0.0))
    assert (codes.values.abs().diff(dim=1) <= 0).all()


def test_without_thresholds_it_is_relu():
    dictionary, x = make_dictionary("dense"), gaussian(9, 24)
    torch.testing.assert_close(xs.JumpReLU()(dictionary, x).to_dense(), (x @ dictionary.to_dense()).relu())


def test_gradients_reach_dictionary_and_bias():
    dictionary, x = make_dictionary("expander"), gaussian(3, 24)
    bias = torch.zeros(40, dtype=torch.float64, requires_grad=True)
    codes = xs.JumpReLU()(dictionary, x, bias)
    codes.values.sum().backward()
    assert torch.equal(bias.grad, (codes.to_dense() > 0).sum(dim=0).double())
    assert dictionary.values.grad.abs().sum() > 0


def test_thresholds_are_learned_numbers_of_the_file(tmp_path):
    sae = xs.SparseAutoencoder(make_dictionary("dense", dtype=torch.float32), xs.JumpReLU(), thresholds=True)
    before = sae.learned_values
    sae.thresholds.data.fill_(0.4)
    sae.save(tmp_path / "a", dtype=torch.float16)
    loaded = xs.SparseAutoencoder.load(tmp_path / "a")
    assert loaded.learned_values == before == 24 * 40 + 24 + 40
    torch.testing.assert_close(loaded.thresholds, torch.full((40,), 0.4), rtol=1e-3, atol=0)
    x = gaussian(5, 24, dtype=torch.float32)
    assert ((loaded.encode(x).values == 0) | (loaded.encode(x).values > loaded.thresholds.min())).all()
