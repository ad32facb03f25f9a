"""The three products against plain torch, each other, and themselves on several threads."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from expander_sae import ExpanderError, kernels
from expander_sae.kernels import reference
from expander_sae.kernels.columns import SparseColumns
from expander_sae.kernels.products import select_gradients
from expander_sae.supports import Support
from tests.uneven import shortened


def problem(
    seed: int,
    batch: int = 5,
    m: int = 11,
    n: int = 9,
    d: int = 3,
    k: int = 4,
    dtype: torch.dtype = torch.float64,
    uneven: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Random x, weights, indices, values and rows."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, m, generator=generator, dtype=dtype)
    weights = torch.randn(batch, k, generator=generator, dtype=dtype)
    indices = torch.randint(0, n, (batch, k), generator=generator)
    values = torch.randn(n, d, generator=generator, dtype=dtype)
    rows = Support.make("uniform", m=m, n=n, d=d, seed=seed).rows
    return x, weights, indices, values, shortened(rows, seed) if uneven else rows


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 10**6),
    batch=st.sampled_from([0, 1, 70]),
    k=st.integers(1, 6),
    d=st.integers(1, 5),
    uneven=st.booleans(),
)
def test_compiled_and_plain_torch_agree(seed: int, batch: int, k: int, d: int, uneven: bool) -> None:
    x, weights, indices, values, rows = problem(seed, batch=batch, k=k, d=d, uneven=uneven)
    columns = SparseColumns(rows[indices].clamp_min(0), values[indices] * (rows[indices] >= 0))
    combined = kernels.combine(weights, indices, values, rows, x)
    torch.testing.assert_close(combined, columns.combine(weights, 11, x))
    torch.testing.assert_close(combined, reference.combine(weights, indices, values, rows, x))
    correlated = kernels.correlate_at(x, indices, values, rows)
    torch.testing.assert_close(correlated, columns.correlate(x))
    torch.testing.assert_close(correlated, reference.correlate_at(x, indices, values, rows))
    plain = kernels.combine(weights, indices, values, rows, x, implementation="reference")
    assert torch.equal(plain, reference.combine(weights, indices, values, rows, x))
    plain = kernels.correlate_at(x, indices, values, rows, implementation="reference")
    assert torch.equal(plain, reference.correlate_at(x, indices, values, rows))
    _, accumulated = select_gradients(weights, x, indices, values, rows, False, True)
    torch.testing.assert_close(accumulated, reference.accumulate(weights, indices, x, rows))
    assert accumulated is not None
    assert not accumulated[rows < 0].any()


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6), batch=st.integers(1, 70))
def test_three_views_of_one_sum(seed: int, batch: int) -> None:
    x, weights, indices, values, rows = problem(seed, batch=batch)
    by_x = (kernels.combine(weights, indices, values, rows, torch.zeros_like(x)) * x).sum()
    by_weights = (kernels.correlate_at(x, indices, values, rows) * weights).sum()
    _, accumulated = select_gradients(weights, x, indices, values, rows, False, True)
    assert accumulated is not None
    torch.testing.assert_close(by_x, by_weights)
    torch.testing.assert_close(by_x, (accumulated * values).sum())


def test_gradients() -> None:
    x, weights, indices, values, rows = problem(1)
    for tensor in (x, weights, values):
        tensor.requires_grad_()

    def combined(weights: Tensor, values: Tensor, onto: Tensor) -> Tensor:
        return kernels.combine(weights, indices, values, rows, onto)

    def correlated(x: Tensor, values: Tensor) -> Tensor:
        return kernels.correlate_at(x, indices, values, rows)

    assert torch.autograd.gradcheck(combined, (weights, values, x))
    assert torch.autograd.gradcheck(correlated, (x, values))


def test_gradients_of_plain_torch_are_those_of_the_compiled_version() -> None:
    x, weights, indices, values, rows = problem(6)
    found = []
    for implementation in ("cpu", "reference"):
        leaves = [tensor.clone().requires_grad_() for tensor in (x, weights, values)]
        total = kernels.combine(leaves[1], indices, leaves[2], rows, leaves[0], implementation=implementation)
        seen = kernels.correlate_at(leaves[0], indices, leaves[2], rows, implementation=implementation)
        found.append(torch.autograd.grad(total.square().sum() + seen.square().sum(), leaves))
    for ours, plain in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain)


def test_refuses_a_version_that_does_not_exist() -> None:
    x, weights, indices, values, rows = problem(7)
    for call in (
        lambda: kernels.combine(weights, indices, values, rows, x, implementation="tpu"),
        lambda: kernels.correlate_at(x, indices, values, rows, implementation="tpu"),
    ):
        with pytest.raises(ExpanderError, match="one of auto, reference, cpu, gpu, not tpu"):
            call()


def test_the_same_bits_on_any_number_of_threads() -> None:
    x, weights, indices, values, rows = problem(2, batch=1000, m=40, n=300, k=8, dtype=torch.float32)

    def everything() -> list[Tensor]:
        values_here = values.clone().requires_grad_()
        total = kernels.combine(weights, indices, values_here, rows, x)
        total.square().sum().backward()  # type: ignore[no-untyped-call]
        assert values_here.grad is not None
        return [total.detach(), values_here.grad, kernels.correlate_at(x, indices, values, rows)]

    threads = torch.get_num_threads()
    results = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        results.append(everything())
    torch.set_num_threads(threads)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_sums_in_single(dtype: torch.dtype) -> None:
    x, weights, indices, values, rows = problem(3, dtype=torch.float32)
    x, weights, values = (tensor.to(dtype) for tensor in (x, weights, values))
    total = kernels.combine(weights, indices, values, rows, x)
    exact = kernels.combine(weights.double(), indices, values.double(), rows, x.double())
    assert total.dtype == dtype
    torch.testing.assert_close(total, exact.to(dtype))


@pytest.mark.parametrize("feature", [-1, 9])
def test_refuses_features_that_do_not_exist(feature: int) -> None:
    x, weights, indices, values, rows = problem(4)
    indices[2, 1] = feature
    with pytest.raises(ExpanderError, match="between 0 and 8"):
        kernels.combine(weights, indices, values, rows, x)
    with pytest.raises(ExpanderError, match="between 0 and 8"):
        kernels.correlate_at(x, indices, values, rows)


def test_compiles_whole() -> None:
    x, weights, indices, values, rows = problem(5)

    def combined(weights: Tensor) -> Tensor:
        return kernels.combine(weights, indices, values, rows, x)

    compiled = torch.compile(combined, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(weights), combined(weights))
