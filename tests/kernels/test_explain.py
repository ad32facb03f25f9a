"""What codes leave, against the products that it is made of and their own gradients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from expander_sae import (
    OMP,
    BatchTopK,
    ExpanderDictionary,
    ExpanderError,
    MatchingPursuit,
    SparseAutoencoder,
    Support,
    TopK,
    kernels,
)
from expander_sae.dictionaries import Codes
from tests.uneven import shortened


def autoencoder(
    seed: int, coder: TopK | BatchTopK | OMP | MatchingPursuit, tied: bool, bias: bool, uneven: bool
) -> SparseAutoencoder:
    """One in float64 whose every parameter is random, on 11 coordinates."""
    generator = torch.Generator().manual_seed(seed)
    rows = Support.make("uniform", m=11, n=19, d=3, seed=seed).rows
    support = Support.from_rows(shortened(rows, seed) if uneven else rows, 11)
    dictionary = ExpanderDictionary(support, dtype=torch.float64, generator=generator)
    sae = SparseAutoencoder(dictionary, coder, tied=tied, latent_bias=bias)
    with torch.no_grad():
        for each in sae.parameters():
            each.copy_(torch.randn(each.shape, generator=generator, dtype=torch.float64))
        for each in {sae.dictionary, sae.encoder}:
            each.get_parameter("values").mul_(each.get_buffer("rows") >= 0)
    return sae


def by_parts(sae: SparseAutoencoder, x: Tensor) -> tuple[Codes, Tensor, Tensor]:
    """Codes, residual and its squares by the encoder's and the dictionary's own functions, each with its gradient."""
    centred = x * sae.scale - sae.pre_bias
    if isinstance(sae.coder, TopK | BatchTopK):
        codes = sae.coder(sae.encoder, centred, sae.latent_bias)
    else:
        assert isinstance(sae.coder, OMP | MatchingPursuit)
        codes = sae.coder(sae.dictionary, centred)
    left = centred - sae.dictionary.synthesize(codes)
    return codes, left, left.square().sum()


def assert_same_as_by_parts(
    sae: SparseAutoencoder, x: Tensor, loss_of: Callable[[Codes, Tensor, Tensor], Tensor]
) -> None:
    """Codes, residual and the gradients of a loss made of them are those of `by_parts`."""
    found = []
    for residual in (sae.residual, lambda x: by_parts(sae, x)):
        codes, left, squares = residual(x)
        gradients = torch.autograd.grad(loss_of(codes, left, squares), [x, *sae.parameters()])
        found.append((codes.values, left, *gradients))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    tokens=st.sampled_from([0, 1, 5, 70]),
    coder=st.sampled_from([TopK(3), TopK(3, signed=True), BatchTopK(3), BatchTopK(2, signed=True)]),
    tied=st.booleans(),
    bias=st.booleans(),
    uneven=st.booleans(),
)
def test_codes_residual_and_gradients_are_those_of_its_parts(seed, tokens, coder, tied, bias, uneven):
    sae = autoencoder(seed, coder, tied, bias, uneven)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(tokens, 11, generator=generator, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(11, generator=generator, dtype=torch.float64)

    def loss_of(codes: Codes, left: Tensor, squares: Tensor) -> Tensor:
        return (left.square() @ weights).sum() + codes.values.pow(3).sum() + squares / 3

    assert_same_as_by_parts(sae, x, loss_of)


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 10**6),
    tokens=st.sampled_from([0, 1, 5, 70]),
    coder=st.sampled_from([OMP(3), OMP(3, signed=True), MatchingPursuit(4), MatchingPursuit(4, signed=True)]),
    uneven=st.booleans(),
    only_squares=st.booleans(),
)
def test_pursued_codes_have_no_gradient_and_the_rest_that_of_its_parts(seed, tokens, coder, uneven, only_squares):
    sae = autoencoder(seed, coder, True, False, uneven)
    x = torch.randn(tokens, 11, dtype=torch.float64, generator=torch.Generator().manual_seed(seed), requires_grad=True)

    def loss_of(codes: Codes, left: Tensor, squares: Tensor) -> Tensor:
        assert not codes.values.requires_grad
        return squares / 3 if only_squares else left.pow(3).sum() + squares / 3

    assert_same_as_by_parts(sae, x, loss_of)


@pytest.mark.parametrize("asked", ["all", "squares", "codes"])
@pytest.mark.parametrize("implementation", ["cpu", "reference"])
def test_every_implementation_has_the_same_gradients(implementation, asked):
    sae = autoencoder(3, TopK(4), tied=False, bias=True, uneven=True)
    x = torch.randn(6, 11, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    codes = sae.encode(x).detach()
    support = sae.dictionary.get_buffer("rows")

    def outputs(x, reading, writing, bias, shift):
        x = x - shift.detach()
        encoder, decoder = kernels.SparseMatrix(reading, support), kernels.SparseMatrix(writing, support)
        seen = kernels.correlate_at(x, codes.indices, reading, support) + bias[codes.indices]
        found, left, squares = kernels.explain(
            x, seen.detach().relu(), codes.indices, encoder, decoder, bias, shift, implementation
        )
        return {"all": (left, found * (seen > 0), squares), "squares": squares, "codes": found * (seen > 0)}[asked]

    values = sae.encoder.get_parameter("values"), sae.dictionary.get_parameter("values"), sae.latent_bias
    shift = torch.randn(11, dtype=torch.float64, generator=torch.Generator().manual_seed(2), requires_grad=True)
    assert torch.autograd.gradcheck(outputs, (x, *values, shift))
    assert torch.autograd.gradcheck(outputs, (x.detach(), *values, shift))


@pytest.mark.parametrize("implementation", ["cpu", "reference"])
def test_codes_without_an_encoder_are_constants(implementation):
    sae = autoencoder(3, TopK(4), tied=False, bias=True, uneven=True)
    x = torch.randn(6, 11, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    codes, support = sae.encode(x).detach(), sae.dictionary.get_buffer("rows")

    def outputs(x, writing, shift):
        decoder = kernels.SparseMatrix(writing, support)
        _, *left = kernels.explain(
            x - shift.detach(), codes.values, codes.indices, None, decoder, None, shift, implementation
        )
        return tuple(left)

    shift = torch.randn(11, dtype=torch.float64, generator=torch.Generator().manual_seed(2), requires_grad=True)
    assert torch.autograd.gradcheck(outputs, (x, sae.dictionary.get_parameter("values"), shift))


def test_columns_that_write_are_asked_for():
    with pytest.raises(ExpanderError, match="give a decoder or an encoder"):
        kernels.explain(torch.ones(1, 3), torch.ones(1, 1), torch.zeros(1, 1, dtype=torch.int64), None, None)


def test_gradients_are_the_same_bits_on_any_number_of_threads():
    generator = torch.Generator().manual_seed(0)
    support = Support.make("uniform", m=64, n=500, d=5)
    sae = SparseAutoencoder(ExpanderDictionary(support, generator=generator), TopK(8), tied=False, latent_bias=True)
    x = torch.randn(300, 64, generator=generator, requires_grad=True)
    assert sae.latent_bias is not None
    learned = [*sae.parameters(), x]
    threads, found = torch.get_num_threads(), []
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            found.append(torch.autograd.grad(sae.residual(x).squares, learned))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_operator_is_registered_correctly():
    sae = autoencoder(5, TopK(4), tied=False, bias=True, uneven=False)
    x = torch.randn(6, 11, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    codes, rows = sae.encode(x).detach(), sae.dictionary.get_buffer("rows")
    reading, writing = sae.encoder.get_parameter("values"), sae.dictionary.get_parameter("values")
    arguments = (x, codes.values, codes.indices, reading, rows, writing, rows, sae.latent_bias, sae.pre_bias, "auto")
    torch.library.opcheck(torch.ops.expander_sae.explain.default, arguments)
    constant = (x, codes.values, codes.indices, None, None, writing, rows, None, sae.pre_bias, "auto")
    torch.library.opcheck(torch.ops.expander_sae.explain.default, constant)


def test_features_that_do_not_exist_are_refused():
    columns = kernels.SparseMatrix(torch.ones(4, 2), torch.tensor([[0, 1]] * 4, dtype=torch.int32))
    with pytest.raises(ExpanderError, match="Features must lie between 0 and 3, not 4 to 4"):
        kernels.explain(torch.ones(1, 3), torch.ones(1, 1), torch.full((1, 1), 4), columns, columns)
