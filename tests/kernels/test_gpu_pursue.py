"""Local correlations by Triton: the same bits as making all of them anew, and the same codes as the textbook loop."""

from __future__ import annotations

from contextlib import nullcontext
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from expander_sae import ExpanderError, Support
from expander_sae.kernels import Rules, pursue, reference
from expander_sae.kernels.candidates import CandidateColumns, gram_among, pursue_candidates
from expander_sae.kernels.gpu import pursue as gpu_pursue
from expander_sae.kernels.gpu.pursue import LocalCorrelations
from expander_sae.supports import RowLists
from expander_sae.supports.support import build_row_lists
from tests.kernels.gpu_problems import DEVICE, columns, problems, small_blocks
from tests.uneven import shortened

ALWAYS_LOCAL = {"SCATTERED_COST": 0}


def lists_of(rows, m):
    lists = build_row_lists(rows.cpu(), m)
    return RowLists(lists.starts.to(DEVICE), lists.features.to(DEVICE), lists.slots.to(DEVICE))


def step(operator, x, k, seed, share=0.5):
    """A change to the codes of every token, features [batch, k], and the residual that it leaves."""
    generator = torch.Generator().manual_seed(seed)
    features = operator.values.shape[0]
    indices = torch.stack([torch.randperm(features, generator=generator)[:k] for _ in range(len(x))])
    change = torch.randn(len(x), k, generator=generator, dtype=x.dtype)
    change *= torch.rand(len(x), k, generator=generator) < share
    change, indices = change.to(DEVICE), indices.to(DEVICE)
    return change, indices, x - operator.synthesize(change, indices)


@settings(deadline=None, max_examples=15)
@given(
    problem=problems(batch=st.integers(0, 4), m=st.integers(2, 16), n=st.integers(5, 50), d=st.integers(1, 10)),
    small=st.booleans(),
)
def test_correlate_has_the_bits_of_the_definition(problem, small):
    x, values, rows, _ = problem
    m = x.shape[1]
    with small_blocks() if small else nullcontext():
        found = LocalCorrelations(values, rows, m, lists_of(rows, m)).correlate(x)
    assert torch.equal(found, reference.correlate(x, values, rows))


@settings(deadline=None, max_examples=30)
@given(
    problem=problems(batch=st.integers(1, 4), m=st.integers(2, 16), n=st.integers(5, 50), d=st.integers(1, 10)),
    seed=st.integers(0, 10**6),
    small=st.booleans(),
)
def test_update_equals_fresh_correlations(problem, seed, small):
    x, values, rows, _ = problem
    m = x.shape[1]
    operator = LocalCorrelations(values, rows, m, lists_of(rows, m))
    change, indices, residual = step(operator, x, 5, seed)
    before = reference.correlate(x, values, rows)
    with mock.patch.multiple(gpu_pursue, **ALWAYS_LOCAL), small_blocks() if small else nullcontext():
        after = operator.update(before, residual, change, indices)
    assert after is before
    assert torch.equal(after, reference.correlate(residual, values, rows))


@pytest.mark.parametrize("construction", ["shared", "banded", "uniform"])
def test_update_with_row_lists_of_very_different_lengths(construction):
    m, n = 24, 150
    x, values, _, _ = columns(0, 2, m, n, 3, torch.float64)
    rows = Support.make(construction, m=m, n=n, d=3, seed=0).rows.to(DEVICE)
    operator = LocalCorrelations(values, rows, m, lists_of(rows, m))
    change, indices, residual = step(operator, x, 3, 0)
    with mock.patch.multiple(gpu_pursue, **ALWAYS_LOCAL):
        after = operator.update(reference.correlate(x, values, rows), residual, change, indices)
    assert torch.equal(after, reference.correlate(residual, values, rows))


def test_update_touches_nothing_but_the_features_that_share_a_row():
    m, n, d = 30, 40, 2
    x, values, rows, _ = columns(3, 2, m, n, d, torch.float64)
    operator = LocalCorrelations(values, rows, m, lists_of(rows, m))
    change, indices, residual = step(operator, x, 2, 3, share=1.0)
    change[1] = 0
    before = torch.full((2, n), 7.0, dtype=torch.float64, device=DEVICE)
    with mock.patch.multiple(gpu_pursue, **ALWAYS_LOCAL):
        after = operator.update(before.clone(), residual, change, indices)
    neighbours = torch.isin(rows, rows[indices[0]]).any(dim=1)
    assert 0 < neighbours.sum() < n
    assert torch.equal(after[0] != 7, neighbours)
    assert torch.equal(after[1], before[1])


def test_a_change_of_many_columns_makes_all_correlations_anew():
    m, n = 16, 30
    x, values, rows, _ = columns(1, 2, m, n, 4, torch.float64)
    operator = LocalCorrelations(values, rows, m, lists_of(rows, m))
    change, indices, residual = step(operator, x, 20, 1, share=1.0)
    before = torch.full((2, n), 7.0, dtype=torch.float64, device=DEVICE)
    after = operator.update(before, residual, change, indices)
    assert torch.equal(after, reference.correlate(residual, values, rows))
    assert (before == 7).all()


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("orthogonal", [False, True])
@settings(deadline=None, max_examples=6)
@given(
    seed=st.integers(0, 10**6),
    batch=st.integers(1, 3),
    d=st.integers(1, 4),
    k=st.integers(1, 6),
    small=st.booleans(),
    uneven=st.booleans(),
)
def test_pursue_takes_the_features_that_the_reference_takes(orthogonal, signed, seed, batch, d, k, small, uneven):
    m, n = 20, 45
    x, values, rows, _ = columns(seed, batch, m, n, d, torch.float64)
    if uneven and d > 1:
        rows = shortened(rows.cpu(), d - 1).to(DEVICE)
    lists = None if orthogonal else lists_of(rows, m)
    with mock.patch.multiple(gpu_pursue, **ALWAYS_LOCAL), small_blocks() if small else nullcontext():
        found, expected = (
            pursue(x, values, rows, lists, Rules(k, signed), orthogonal=orthogonal, implementation=name)
            for name in ("gpu", "reference")
        )
    assert torch.equal(found[1], expected[1])
    torch.testing.assert_close(found[0], expected[0], rtol=1e-10, atol=1e-10)


def test_a_pursuit_that_follows_row_lists_asks_for_them():
    x, values, rows, _ = columns(0, 1, 4, 6, 2, torch.float32)
    for name, orthogonal in (("gpu", False), ("cpu", True), ("cpu", False)):
        with pytest.raises(ExpanderError, match="follows the row lists of the support"):
            pursue(x.cpu(), values.cpu(), rows.cpu(), None, Rules(2), orthogonal=orthogonal, implementation=name)


@pytest.mark.parametrize("signed", [False, True])
def test_dependent_and_repeated_columns_are_taken_once(signed):
    """Five columns three times each, in four coordinates: most of what is left to take depends on what was taken."""
    x, values, rows, _ = columns(5, 3, 4, 5, 3, torch.float64)
    values, rows = values.repeat(3, 1), rows.repeat(3, 1)
    found, expected = (
        pursue(x, values, rows, lists_of(rows, 4), Rules(6, signed, 0.01), orthogonal=True, implementation=name)
        for name in ("gpu", "reference")
    )
    norms = [torch.linalg.vector_norm(reference.combine(-c, i, values, rows, x), dim=1) for c, i in (found, expected)]
    torch.testing.assert_close(norms[0], norms[1], rtol=1e-6, atol=1e-9)


@settings(deadline=None, max_examples=10)
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(1, 17),
    d=st.integers(1, 5),
    k=st.integers(1, 6),
    signed=st.booleans(),
    uneven=st.booleans(),
)
def test_a_pursuit_among_candidates_is_the_textbook_loop(seed, count, d, k, signed, uneven):
    m, n, batch = 12, 30, 3
    x, values, rows, _ = columns(seed, batch, m, n, d, torch.float64)
    if uneven and d > 1:
        rows = shortened(rows.cpu(), d - 1).to(DEVICE)
    values = torch.nn.functional.normalize(values.masked_fill(rows < 0, 0), dim=1)
    generator = torch.Generator().manual_seed(seed)
    among = torch.stack([torch.randperm(n, generator=generator)[:count] for _ in range(batch)]).to(DEVICE)
    grams = [gram_among(values, rows, among, m, implementation) for implementation in ("gpu", "reference")]
    torch.testing.assert_close(*grams)

    def left(implementation):
        target = reference.correlate_at(x, among, values, rows)
        candidates = CandidateColumns(
            grams[1], target, lambda v, at: reference.combine(v, among.gather(1, at), values, rows, torch.zeros_like(x))
        )
        codes, places = pursue_candidates(candidates, x, Rules(min(k, count), signed), implementation)
        return torch.zeros_like(target).scatter_add(1, places, codes)

    torch.testing.assert_close(left("gpu"), left("reference"), rtol=1e-9, atol=1e-9)
