"""The autoencoder: what it computes, and that it survives what people do to modules."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor

import pytest
import torch

import expander_sae as xs


def make(coder=None, *, tied=True, latent_bias=False, n=60, m=24):
    torch.manual_seed(0)
    support = xs.Support.make("uniform", m=m, n=n, d=4, seed=0)
    sae = xs.SparseAutoencoder(xs.ExpanderDictionary(support), coder or xs.TopK(5), tied=tied, latent_bias=latent_bias)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return sae


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("latent_bias", [True, False])
def test_forward_is_the_formula(tied, latent_bias):
    sae, x = make(tied=tied, latent_bias=latent_bias), 7 * torch.randn(2, 9, 24)
    sae.fit_scale(x)
    encoder, decoder = sae.encoder.to_dense(), sae.dictionary.to_dense()
    pre = (x * sae.scale - sae.pre_bias) @ encoder
    pre = pre + sae.latent_bias if latent_bias else pre
    kept = torch.zeros_like(pre).scatter(-1, pre.topk(5).indices, 1.0)
    expected = ((pre.relu() * kept) @ decoder.T + sae.pre_bias) / sae.scale
    torch.testing.assert_close(sae(x), expected)
    torch.testing.assert_close(sae.decode(sae.encode(x)), expected)
    codes, residual, _ = sae.residual(x)
    torch.testing.assert_close(residual, (x - expected) * sae.scale, atol=1e-5, rtol=1e-5)
    assert torch.equal(codes.to_dense(), sae.encode(x).to_dense())


def test_scale_gives_a_mean_norm_of_root_m():
    sae, x = make(), 7 * torch.randn(50, 24)
    scale = sae.fit_scale(x)
    assert scale == pytest.approx(float(24**0.5 / x.norm(dim=1).mean()))
    assert (x * sae.scale).norm(dim=1).mean() == pytest.approx(24**0.5)
    sae.to(torch.bfloat16)
    assert sae.scale.dtype == torch.float32
    assert float(sae.scale) == pytest.approx(scale)
    with pytest.raises(xs.ExpanderError, match="not zero"):
        sae.fit_scale(torch.zeros(3, 24))


def test_gradients_reach_every_parameter():
    sae, x = make(tied=False, latent_bias=True), torch.randn(40, 24)
    (sae(x) - x).square().mean().backward()
    for name, parameter in sae.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_residual_has_the_gradients_of_the_reconstruction_error():
    sae, x = make(latent_bias=True).double(), torch.randn(40, 24, dtype=torch.float64)
    ours = torch.autograd.grad(sae.residual(x)[1].square().sum(), list(sae.parameters()))
    expected = torch.autograd.grad((sae(x) - x).square().sum(), list(sae.parameters()))
    for one, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_pursuit_codes_train_the_values():
    """With codes from a pursuit the values' gradient is minus twice the residual times the code."""
    sae, x = make(xs.OMP(5)).double(), torch.randn(6, 24, dtype=torch.float64)
    codes, residual, _ = sae.residual(x)
    (gradient,) = torch.autograd.grad(residual.square().sum(), sae.dictionary.values)
    dense = -2 * codes.to_dense().T @ residual.detach()
    torch.testing.assert_close(gradient, dense.gather(1, sae.dictionary.rows.long()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_any_dtype(dtype):
    sae, x = make(latent_bias=True).to(dtype), torch.randn(3, 24, dtype=dtype)
    with torch.no_grad():
        assert sae(x).dtype == dtype
        assert sae.with_coder(xs.OMP(4))(x).dtype == dtype


def test_with_coder_shares_the_weights():
    sae = make(latent_bias=True)
    other = sae.with_coder(xs.OMP(3))
    assert other.dictionary.values is sae.dictionary.values
    assert (sae.coder, other.coder) == (xs.TopK(5), xs.OMP(3))
    sae.pre_bias.data += 1
    assert torch.equal(other.pre_bias, sae.pre_bias)
    assert (other.encode(torch.randn(4, 24)).l0 <= 3).all()


@pytest.mark.parametrize("coder", [xs.TopK(5), xs.MatchingPursuit(5), xs.OMP(5)])
def test_compiled_is_the_same(coder):
    sae, x = make(coder, latent_bias=True), torch.randn(8, 24)
    one_shot = isinstance(coder, xs.OneShotCoder)
    compiled = torch.compile(sae, backend="aot_eager", fullgraph=one_shot)
    torch.testing.assert_close(compiled(x), sae(x))
    compiled(x).sum().backward()
    assert sae.dictionary.values.grad is not None


@pytest.mark.slow
def test_compiled_by_the_default_backend():
    sae, x = make(latent_bias=True), torch.randn(8, 24)
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(sae, fullgraph=True)(x), sae(x))


def test_copies_and_pickles():
    sae, x = make(tied=False, latent_bias=True), torch.randn(8, 24)
    sae.fit_scale(x)
    with torch.no_grad():
        for other in (copy.deepcopy(sae), pickle.loads(pickle.dumps(sae))):
            assert torch.equal(other(x), sae(x))
            other.dictionary.values += 1
            assert not torch.equal(other(x), sae(x))


@pytest.mark.slow
def test_another_process_can_use_it():
    sae, x = make(latent_bias=True).requires_grad_(False), torch.randn(8, 24)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert torch.equal(pool.submit(sae.forward, x).result(timeout=120), sae(x))


def test_mismatches_get_a_sentence():
    sae = make()
    with pytest.raises(xs.ExpanderError, match=r"must be \[\.\.\., 24\], not \[3, 25\]"):
        sae(torch.zeros(3, 25))
    with pytest.raises(xs.ExpanderError, match="these codes are for 61 features, this autoencoder has 60".capitalize()):
        sae.decode(xs.Codes(torch.zeros(1, 1), torch.zeros(1, 1, dtype=torch.int64), 61))
