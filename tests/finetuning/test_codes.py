"""Codes follow what changes them: their derivative is that of least squares on the columns that were chosen."""

from __future__ import annotations

import pytest
import torch

from expander_sae import (
    OMP,
    ComposedDictionary,
    DenseDictionary,
    ExpanderDictionary,
    ExpanderError,
    MatchingPursuit,
    SparseAutoencoder,
    Support,
    TopK,
)
from expander_sae.finetuning.codes import check_coder, differentiable_residual

M, N = 12, 20


def autoencoder(kind, coder, **options):
    generator = torch.Generator().manual_seed(1)
    if kind == "dense":
        dictionary = DenseDictionary(M, N, dtype=torch.float64, generator=generator)
    else:
        width = M + 3 if kind == "composed" else M
        support = Support.make("uniform", m=width, n=N, d=4, seed=0)
        dictionary = ExpanderDictionary(support, torch.randn(N, 4, generator=generator, dtype=torch.float64))
    if kind == "composed":
        atoms = DenseDictionary(M, M + 3, dtype=torch.float64, generator=generator)
        dictionary = ComposedDictionary(atoms, dictionary)
    sae = SparseAutoencoder(dictionary, coder, **options)
    with torch.no_grad():
        sae.scale.fill_(0.5)
        sae.pre_bias.copy_(0.1 * torch.randn(M, generator=generator, dtype=torch.float64))
    return sae


X = torch.randn(6, M, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
TARGET = torch.randn(6, M, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def loss(sae):
    """One that is not a squared error, for which the derivative of least-squares codes would not matter."""
    return (differentiable_residual(sae, X) * TARGET).sum()


def finite_difference(sae, parameter, position, step=1e-6):
    found = []
    with torch.no_grad():
        for sign in (1, -1):
            parameter.view(-1)[position] += sign * step
            found.append(float(loss(sae)))
            parameter.view(-1)[position] -= sign * step
    return (found[0] - found[1]) / (2 * step)


@pytest.mark.parametrize("kind", ["expander", "dense", "composed"])
@pytest.mark.parametrize("coder", [OMP(3), OMP(3, signed=True), OMP(1), TopK(3), TopK(3, signed=True)], ids=str)
def test_gradients_are_those_of_finite_differences(kind, coder):
    sae = autoencoder(kind, coder, latent_bias=isinstance(coder, TopK))
    loss(sae).backward()
    largest = 0.0
    for parameter in sae.parameters():
        for position in range(0, parameter.numel(), 7):
            expected = finite_difference(sae, parameter, position)
            assert float(parameter.grad.view(-1)[position]) == pytest.approx(expected, abs=1e-6)
            largest = max(largest, abs(expected))
    assert largest > 0.1


def test_the_residual_itself_is_the_same():
    for coder in (OMP(3), TopK(3)):
        sae = autoencoder("expander", coder)
        torch.testing.assert_close(differentiable_residual(sae, X), sae.residual(X)[1])


def test_for_a_squared_error_the_codes_might_as_well_be_fixed():
    sae = autoencoder("expander", OMP(3))
    gradients = []
    for residual in (differentiable_residual(sae, X), sae.residual(X)[1]):
        gradients.append(torch.autograd.grad(residual.square().sum(), list(sae.parameters())))
    for ours, fixed in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, fixed)


def test_what_has_no_derivative_here_is_refused():
    with pytest.raises(ExpanderError, match="codes of OMP, Candidates, TopK, BatchTopK, not of MatchingPursuit; "):
        check_coder(autoencoder("expander", MatchingPursuit(3)))
    with pytest.raises(ExpanderError, match="without encoder and latent bias"):
        check_coder(autoencoder("expander", OMP(3), latent_bias=True))
    with pytest.raises(ExpanderError, match="without encoder and latent bias"):
        check_coder(autoencoder("expander", OMP(3), tied=False))
