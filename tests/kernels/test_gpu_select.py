"""`select` by Triton against the definition, to the last bit."""

from __future__ import annotations

import importlib
import sys
from contextlib import nullcontext

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from expander_sae import ExpanderError
from expander_sae.kernels import reference, select
from expander_sae.kernels.gpu import correlate as gpu_correlate
from expander_sae.kernels.gpu import select as gpu_select
from tests.kernels.gpu_problems import DEVICE, columns, problems, small_blocks
from tests.uneven import shortened


def check(arguments, found=None):
    """Found values and indices are those of the reference."""
    x, values, rows, *others = arguments
    found = gpu_select.select(x, values, rows, None, *others) if found is None else found
    expected = reference.select(*arguments)
    assert torch.equal(found[1], expected[1])
    assert torch.equal(found[0], expected[0])


@settings(deadline=None, max_examples=20)
@given(
    problem=problems(
        batch=st.integers(0, 2), m=st.integers(1, 12), n=st.integers(1, 60), d=st.integers(1, 5), may_tie=True
    ),
    k=st.integers(1, 60),
    signed=st.booleans(),
)
def test_equals_the_reference_to_the_last_bit(problem, k, signed):
    x, values, rows, bias = problem
    check((x, values, rows, min(k, len(values)), bias, signed))


@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize("ties", [False, True])
def test_shorter_columns(small, ties):
    x, values, rows, bias = columns(3, 2, 12, 40, 5, torch.float32, ties=ties)
    arguments = x, values, shortened(rows.cpu(), 3).to(DEVICE), 7, bias
    with small_blocks() if small else nullcontext():
        found, expected = (select(*arguments, implementation=name) for name in ("gpu", "reference"))
    assert torch.equal(found[1], expected[1])
    assert torch.equal(found[0], expected[0])


@settings(deadline=None, max_examples=5)
@given(
    problem=problems(
        batch=st.integers(3, 4),
        m=st.just(9),
        n=st.integers(30, 60),
        d=st.just(3),
        may_tie=True,
        dtypes=[torch.float32],
    ),
    k=st.integers(1, 12),
    signed=st.booleans(),
)
def test_many_tiles_blocks_and_parts_of_a_batch(problem, k, signed):
    x, values, rows, bias = problem
    with small_blocks():
        check((x, values, rows, k, bias, signed))


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("k", [1, 37])
def test_one_feature_and_all_features(k, signed):
    x, values, rows, bias = columns(0, 1, 8, 37, 2, torch.float32, ties=True)
    check((x, values, rows, k, bias, signed))


@pytest.mark.parametrize("small", [False, True])
def test_a_token_of_zeros_takes_the_first_features(small):
    x, values, rows, bias = columns(0, 2, 8, 50, 3, torch.float32)
    x[0], bias[:] = 0, 0
    with small_blocks() if small else nullcontext():
        found = gpu_select.select(x, values, rows, None, 6, bias, False)
    assert found[1][0].tolist() == [0, 1, 2, 3, 4, 5]
    check((x, values, rows, 6, bias, False), found)


@pytest.mark.parametrize("order", ["one group", "rising", "falling"])
def test_scores_laid_out_to_defeat_a_guess(order):
    """All of the best in one group of features; every score better than the one before it; or worse."""
    n, k = 64, 4
    x, values, rows, bias = columns(0, 1, 8, n, 2, torch.float32)
    x[:] = 0
    places = torch.arange(n, device=DEVICE, dtype=torch.float32)
    bias = {"one group": (places < 4) * (5 + places) - places, "rising": places, "falling": -places}[order]
    check((x, values, rows, k, bias, False))


@pytest.mark.parametrize("signed", [False, True])
def test_all_scores_negative(signed):
    """No zero of padding or of an unused lane may win."""
    x, values, rows, bias = columns(0, 1, 5, 23, 2, torch.float32)
    check((x, values, rows, 9, bias - 100, signed))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_read_as_it_is_and_summed_in_float32(dtype):
    x, values, rows, bias = columns(1, 2, 10, 40, 4, torch.float32)
    x, values = x.to(dtype), values.to(dtype)
    found = gpu_select.select(x, values, rows, None, 5, bias, True)
    assert found[0].dtype == torch.float32
    check((x.float(), values.float(), rows, 5, bias, True), found)


def test_the_public_function_takes_the_same_way_with_gradients():
    x, values, rows, bias = columns(2, 2, 10, 40, 4, torch.float64)
    gradients = []
    for implementation in ("gpu", "reference"):
        leaves = [tensor.clone().requires_grad_() for tensor in (x, values, bias)]
        scores, _ = select(leaves[0], leaves[1], rows, 5, leaves[2], implementation=implementation)
        scores.square().sum().backward()
        gradients.append([leaf.grad for leaf in leaves])
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs)


@settings(deadline=None)
@given(n=st.integers(1, 1 << 21), share=st.floats(0, 1))
def test_lists_are_short(n, share):
    """No list of [batch, n]: both rounds together hold about 3 sqrt(n k) scores of a token."""
    k = max(1, int(n**share))
    entries = torch.empty(n, 1, device="meta")
    tournament = gpu_select._Tournament(gpu_select.Columns(entries, entries, None), entries[:, 0], k, False)
    assert tournament.groups >= k
    assert tournament.groups + k * tournament.group_size <= 3 * (n * k) ** 0.5 + 1


@pytest.mark.skipif(DEVICE == "cuda", reason="needs a machine whose tensors Triton cannot reach")
def test_tensors_out_of_reach_are_refused(monkeypatch):
    monkeypatch.setattr(gpu_correlate, "INTERPRETED", False)
    with pytest.raises(ExpanderError, match="CUDA device, but one is on cpu"):
        gpu_select.select(*columns(0, 1, 4, 6, 2, torch.float32)[:3], None, 2, torch.zeros(6), False)


def test_a_missing_triton_is_told_in_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "expander_sae.kernels.gpu")
    with pytest.raises(ExpanderError, match=r"pip install 'expander-sae\[gpu\]'"):
        importlib.import_module("expander_sae.kernels.gpu")
