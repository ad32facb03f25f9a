"""The three products by Triton: those of plain torch, and the same bits every time."""

from __future__ import annotations

from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from expander_sae import ExpanderError, kernels
from expander_sae.kernels import reference
from expander_sae.kernels.gpu import correlate as gpu_correlate
from expander_sae.kernels.gpu import products as gpu_products
from tests.kernels.gpu_problems import DEVICE, columns
from tests.uneven import shortened


def problem(seed, batch=3, m=11, n=9, d=3, k=4, dtype=torch.float64, uneven=False):
    """Random x, weights, indices (a feature may fire twice on a token), values and rows."""
    x, values, rows, _ = columns(seed, batch, m, n, d, dtype)
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(batch, k, generator=generator, dtype=dtype).to(DEVICE)
    indices = torch.randint(0, n, (batch, k), generator=generator).to(DEVICE)
    return x, weights, indices, values, shortened(rows.cpu(), seed).to(DEVICE) if uneven else rows


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 10**6),
    batch=st.sampled_from([0, 1, 5]),
    k=st.integers(1, 6),
    d=st.integers(1, 5),
    uneven=st.booleans(),
    small=st.booleans(),
)
def test_products_are_those_of_plain_torch(seed, batch, k, d, uneven, small):
    x, weights, indices, values, rows = problem(seed, batch=batch, k=k, d=d, uneven=uneven)
    entries, firings = (8, 2) if small else (gpu_products.ENTRIES_AT_ONCE, gpu_products.FIRINGS_AT_ONCE)
    with mock.patch.multiple(gpu_products, ENTRIES_AT_ONCE=entries, FIRINGS_AT_ONCE=firings):
        seen = gpu_products.correlate_at(x, indices, values, rows)
        total = x.clone()
        gpu_products.add_columns(weights, indices, values, rows, total)
        learned = gpu_products.accumulate(weights, gpu_products.Firings.of(indices, len(rows)), x, rows)
    torch.testing.assert_close(seen, reference.correlate_at(x, indices, values, rows))
    torch.testing.assert_close(total, reference.combine(weights, indices, values, rows, x))
    torch.testing.assert_close(learned, reference.accumulate(weights, indices, x, rows))
    assert not learned[rows < 0].any()


def test_firings_are_in_the_order_of_features_and_tokens():
    indices = torch.tensor([[2, 0], [2, 3], [0, 2]], device=DEVICE)
    order, starts = gpu_products.Firings.of(indices, 5)
    assert order.tolist() == [1, 4, 0, 2, 5, 3]
    assert starts.tolist() == [0, 2, 2, 5, 6, 6]


def test_the_public_functions_and_their_gradients_take_this_way():
    x, weights, indices, values, rows = problem(6, uneven=True)
    found = []
    for implementation in ("gpu", "reference"):
        leaves = [tensor.clone().requires_grad_() for tensor in (x, weights, values)]
        total = kernels.combine(leaves[1], indices, leaves[2], rows, leaves[0], implementation=implementation)
        seen = kernels.correlate_at(leaves[0], indices, leaves[2], rows, implementation=implementation)
        found.append(torch.autograd.grad(total.square().sum() + seen.square().sum(), leaves))
    for ours, plain in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain)


def test_long_columns_and_many_codes():
    """Several warps a program, and several programs for the codes of a token."""
    x, weights, indices, values, rows = problem(1, batch=2, m=300, n=20, d=200, k=9, dtype=torch.float32)
    torch.testing.assert_close(
        kernels.correlate_at(x, indices, values, rows, implementation="gpu"),
        reference.correlate_at(x, indices, values, rows),
        rtol=1e-5,
        atol=1e-4,
    )
    torch.testing.assert_close(
        kernels.combine(weights, indices, values, rows, x, implementation="gpu"),
        reference.combine(weights, indices, values, rows, x),
        rtol=1e-5,
        atol=1e-5,
    )


def test_sums_have_the_same_bits_every_time():
    x, weights, indices, values, rows = problem(2, batch=40 if DEVICE == "cpu" else 4000, dtype=torch.float32)
    firings = gpu_products.Firings.of(indices, len(rows))
    totals = [x.clone() for _ in range(3)]
    for total in totals:
        gpu_products.add_columns(weights, indices, values, rows, total)
    learned = [gpu_products.accumulate(weights, firings, x, rows) for _ in range(3)]
    for one, *others in (totals, learned):
        assert all(torch.equal(one, other) for other in others)


@pytest.mark.skipif(DEVICE == "cuda", reason="needs a machine whose tensors Triton cannot reach")
def test_refuses_tensors_that_triton_cannot_reach(monkeypatch):
    monkeypatch.setattr(gpu_correlate, "INTERPRETED", False)
    x, weights, indices, values, rows = problem(3)
    with pytest.raises(ExpanderError, match="one is on cpu"):
        kernels.combine(weights, indices, values, rows, x, implementation="gpu")
    with pytest.raises(ExpanderError, match="one is on cpu"):
        kernels.correlate_at(x, indices, values, rows, implementation="gpu")


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("uneven", [False, True])
def test_what_codes_leave_has_the_gradients_of_plain_torch(uneven, tied):
    x, codes, indices, values, rows = problem(4, uneven=uneven)
    others, bias = values.flip(0), torch.zeros(len(values), dtype=x.dtype, device=DEVICE)
    codes, found = codes.relu(), []
    for implementation in ("gpu", "reference"):
        leaves = [tensor.clone().requires_grad_() for tensor in (x, values, others, bias, x.new_zeros(x.shape[1]))]
        encoder, decoder = kernels.SparseMatrix(leaves[1], rows), kernels.SparseMatrix(leaves[2], rows)
        if tied:
            decoder = None
            del leaves[2]
        same, left, squares = kernels.explain(leaves[0], codes, indices, encoder, decoder, *leaves[-2:], implementation)
        found.append((left, *torch.autograd.grad(left.square().sum() + same.pow(3).sum() + squares, leaves)))
    for ours, plain in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain)
