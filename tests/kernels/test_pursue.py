"""`pursue` on the CPU: the same codes as the textbook loop, by local updates and in lockstep."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from expander_sae import ExpanderError, Support
from expander_sae.kernels import Rules, pursue
from expander_sae.kernels.cpu import local as cpu_local
from expander_sae.kernels.cpu import lockstep as cpu_lockstep
from expander_sae.kernels.cpu import pursue as cpu_pursue
from expander_sae.kernels.cpu.columns import columns_of
from expander_sae.kernels.cpu.greedy import Scratch, limits_of, make_scratch
from tests.kernels.test_coarse import KINDS, drawn
from tests.uneven import uneven_support

FORMS = ["plain", "local", "lockstep"]
"""Matching pursuit, and the two forms of its orthogonal kind."""

ORTHOGONAL_FORMS = FORMS[1:]


CROWDED = [("shared", {}), ("clustered", {"cluster_size": 4}), ("banded", {})]
"""Constructions that put dependent columns side by side."""


def problem(seed, batch, m, n, d, dtype=torch.float64, construction="uniform", *, uneven=False, **parameters):
    generator = torch.Generator().manual_seed(seed)
    support = Support.make(construction, m=m, n=n, d=d, seed=seed, **parameters)
    support = uneven_support(m, n, d, seed) if uneven else support
    x = torch.randn(batch, m, generator=generator, dtype=dtype)
    return x, torch.randn(n, d, generator=generator, dtype=dtype), support


def run(x, values, support, rules, orthogonal, implementation):
    return pursue(
        x,
        values,
        support.rows,
        support.row_lists,
        rules,
        orthogonal=orthogonal,
        implementation=implementation,
    )


def run_form(form, x, values, support, rules):
    """`pursue` on the CPU in one form, whatever the sizes."""
    with mock.patch.object(cpu_pursue, "lockstep_is_cheaper", return_value=form == "lockstep"):
        return run(x, values, support, rules, form != "plain", "cpu")


def left_over(x, values, support, codes):
    """What the codes leave of x."""
    rows, values = support.rows.long(), values.to(x.dtype).masked_fill(support.rows < 0, 0)
    dense = torch.zeros(support.n, support.m, dtype=x.dtype).scatter_add_(1, rows.clamp_min(0), values)
    return x - torch.einsum("bk,bkm->bm", codes[0].to(x.dtype), dense[codes[1]])


@settings(deadline=None, max_examples=90)
@given(
    seed=st.integers(0, 10**6),
    batch=st.sampled_from([0, 1, 15, 17, 33, 70]),
    m=st.integers(6, 40),
    n=st.integers(1, 90),
    d=st.integers(1, 6),
    k=st.integers(1, 12),
    signed=st.booleans(),
    form=st.sampled_from(FORMS),
    tolerance=st.sampled_from([0.0, 0.5]),
    uneven=st.booleans(),
)
def test_equals_the_textbook_loop(seed, batch, m, n, d, k, signed, form, tolerance, uneven):
    x, values, support = problem(seed, batch, m, n, d, uneven=uneven)
    rules = Rules(min(k, n), signed, tolerance)
    ours = run_form(form, x, values, support, rules)
    textbook = run(x, values, support, rules, form != "plain", "reference")
    # Exact ties (columns with equal supports after normalising) may go either way; what is explained may not.
    left = [torch.linalg.vector_norm(left_over(x, values, support, codes), dim=1) for codes in (ours, textbook)]
    torch.testing.assert_close(left[0], left[1], rtol=1e-7, atol=1e-9)
    if support.degrees.min() > 1:
        assert torch.equal(ours[1] * (ours[0] != 0), textbook[1] * (textbook[0] != 0))
        torch.testing.assert_close(ours[0], textbook[0], rtol=1e-7, atol=1e-9)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    batch=st.sampled_from([1, 64, 90]),
    m=st.integers(6, 60),
    n=st.integers(1, 300),
    d=st.integers(1, 6),
    signed=st.booleans(),
    uneven=st.booleans(),
    kinds=st.tuples(st.sampled_from(KINDS), st.sampled_from(KINDS)),
)
def test_a_look_in_16_bits_changes_no_bit(seed, batch, m, n, d, signed, uneven, kinds):
    """Of tokens and columns that it can hold and of those that it cannot, with few and with many alike columns."""
    _, _, support = problem(seed, 1, m, n, d, uneven=uneven)
    generator = torch.Generator().manual_seed(seed)
    x, values = drawn(kinds[0], generator, batch, m), drawn(kinds[1], generator, n, d)
    rules = Rules(min(12, n), signed)
    ours = run_form("lockstep", x, values, support, rules)
    with mock.patch.object(cpu_lockstep, "in_16_bits", return_value=None):
        exact = run_form("lockstep", x, values, support, rules)
    assert torch.equal(ours[1], exact[1])
    assert torch.equal(ours[0].view(torch.int32), exact[0].view(torch.int32))


def greedy_state(x, values, support, k, *, signed, orthogonal):
    """Run the local form of one token by hand; returns (scratch, correlations after, unit columns, features used)."""
    unit = (values / torch.linalg.vector_norm(values, dim=1, keepdim=True)).numpy()
    row_lists = support.row_lists
    features, slots = row_lists.features.numpy(), row_lists.slots.numpy()
    columns = columns_of(torch.from_numpy(unit), support.rows)
    lists = cpu_local.Lists(row_lists.starts.numpy(), features.view(np.uint32), unit[features, slots])
    dense = np.zeros((support.n, support.m))
    np.put_along_axis(dense, support.rows.numpy().astype(np.int64), unit, axis=1)
    correlations = dense @ x.numpy()
    scratch = Scratch(*(array[0] for array in make_scratch(1, support.m, support.n, k, np.float64)))
    search = cpu_local.Search(np.zeros(support.m), np.zeros(cpu_local.SEARCH_LANES))
    run_token = cpu_local.orthogonal_matching_pursuit if orthogonal else cpu_local.matching_pursuit
    limits = limits_of(Rules(k, signed), np.float64)
    count = run_token(x.numpy(), correlations, columns, lists, limits, scratch, search)
    np.testing.assert_array_equal(search.seen, scratch.residual[: support.m])
    return scratch, correlations, dense, scratch.chosen[:count].copy()


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), k=st.integers(1, 14), signed=st.booleans(), orthogonal=st.booleans())
def test_correlations_stay_those_of_the_residual(seed, k, signed, orthogonal):
    x, values, support = problem(seed, 1, 30, 90, 4)
    scratch, correlations, dense, chosen = greedy_state(x[0], values, support, k, signed=signed, orthogonal=orthogonal)
    residual = x[0].numpy() - scratch.codes[: chosen.size] @ dense[chosen]
    np.testing.assert_allclose(scratch.residual[:30], residual, atol=1e-10)
    untouched = np.setdiff1d(np.arange(90), chosen)
    np.testing.assert_allclose(correlations[untouched], dense[untouched] @ residual, atol=1e-10)
    assert not scratch.stamp.any()
    assert not scratch.closed.any()
    assert not scratch.users.any()
    if orthogonal and signed:
        np.testing.assert_allclose(dense[chosen] @ residual, 0, atol=1e-9)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), k=st.integers(1, 10))
def test_a_step_changes_only_its_component(seed, k):
    """Correlations of features that touch no row of the new column's component keep every bit."""
    x, values, support = problem(seed, 1, 120, 150, 3)
    rows = support.rows.numpy()
    _, before, _, first = greedy_state(x[0], values, support, k, signed=True, orthogonal=True)
    _, after, _, second = greedy_state(x[0], values, support, k + 1, signed=True, orthogonal=True)
    assert list(second[:k]) == list(first)
    component, grown = {second[-1]}, True
    while grown:
        touched = {row for feature in component for row in rows[feature]}
        more = {feature for feature in second if touched & set(rows[feature])}
        grown, component = not more <= component, component | more
    touched = {row for feature in component for row in rows[feature]}
    far = [feature for feature in range(150) if not touched & set(rows[feature]) and feature not in second]
    assert far
    assert (before[far] == after[far]).all()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("signed", [True, False])
def test_float32_explains_as_much_as_float64(form, signed):
    x, values, support = problem(0, 40, 128, 1024, 5)
    rules = Rules(24, signed)
    double = run_form(form, x, values, support, rules)
    single = run_form(form, x.float(), values.float(), support, rules)
    left = [torch.linalg.vector_norm(left_over(x, values, support, codes), dim=1) for codes in (double, single)]
    torch.testing.assert_close(left[0], left[1], rtol=2e-3, atol=0)
    assert single[0].dtype == torch.float32


@pytest.mark.parametrize("form", ORTHOGONAL_FORMS)
@pytest.mark.parametrize(("construction", "parameters"), CROWDED)
def test_dependent_columns_are_passed_over(construction, parameters, form):
    """Few coordinates and many columns: the codes stay finite and the fit is the best there is."""
    x, values, support = problem(1, 40, 24, 96, 4, construction=construction, **parameters)
    codes, indices = run_form(form, x, values, support, Rules(24, True))
    assert codes.isfinite().all()
    dense = torch.zeros(96, 24, dtype=x.dtype).scatter_(1, support.rows.long(), values)
    rank = torch.linalg.matrix_rank(dense)
    best = x - x @ torch.linalg.pinv(dense) @ dense
    assert (codes != 0).sum(dim=1).max() <= rank
    torch.testing.assert_close(left_over(x, values, support, (codes, indices)), best, atol=1e-6, rtol=0)


@pytest.mark.parametrize("form", ORTHOGONAL_FORMS)
@pytest.mark.parametrize(("construction", "parameters"), CROWDED)
def test_non_negative_codes_on_dependent_columns_equal_the_textbook(construction, parameters, form):
    """Columns are refused, dropped and taken back here, and tokens need different numbers of steps."""
    x, values, support = problem(3, 70, 24, 60, 4, construction=construction, **parameters)
    rules = Rules(20, False)
    ours = run_form(form, x, values.abs(), support, rules)
    textbook = run(x, values.abs(), support, rules, True, "reference")
    left = [torch.linalg.vector_norm(left_over(x, values.abs(), support, codes), dim=1) for codes in (ours, textbook)]
    torch.testing.assert_close(left[0], left[1], rtol=1e-7, atol=1e-9)
    assert (ours[0] >= 0).all()
    assert (ours[0] != 0).sum(dim=1).unique().numel() > 3


@pytest.mark.parametrize("form", ORTHOGONAL_FORMS)
@pytest.mark.parametrize("signed", [True, False])
def test_more_columns_in_use_than_a_mask_has_bits(form, signed):
    x, values, support = problem(5, 6, 160, 500, 4)
    rules = Rules(150, signed)
    ours, textbook = run_form(form, x, values, support, rules), run(x, values, support, rules, True, "reference")
    assert (ours[0] != 0).sum(dim=1).max() > 128 or not signed
    left = [torch.linalg.vector_norm(left_over(x, values, support, codes), dim=1) for codes in (ours, textbook)]
    torch.testing.assert_close(left[0], left[1], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("form", FORMS)
def test_sums_that_leave_float32_disturb_no_other_token(form):
    x, values, support = problem(6, 70, 12, 90, 5, dtype=torch.float32)
    rules, usual = Rules(8, True), torch.arange(70) % 3 > 0
    expected = run_form(form, x, values, support, rules)
    x[~usual] = 3e38 * x[~usual].sign()
    found = run_form(form, x, values, support, rules)
    assert torch.equal(found[0][usual], expected[0][usual])
    assert torch.equal(found[1][usual], expected[1][usual])


@pytest.mark.parametrize("form", ORTHOGONAL_FORMS)
def test_zero_tokens_zero_columns_and_single_columns(form):
    x, values, support = problem(1, 4, 20, 30, 3)
    values[5] = 0
    x[0] = 0
    x[1] = 0
    x[1, support.rows[7].long()] = 2.5 * values[7]
    codes, indices = run_form(form, x, values, support, Rules(6))
    assert (codes[0] == 0).all()
    assert indices[1, 0] == 7
    torch.testing.assert_close(codes[1], torch.tensor([2.5, 0, 0, 0, 0, 0], dtype=x.dtype))
    assert not ((indices == 5) & (codes != 0)).any()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("signed", [True, False])
def test_codes_do_not_depend_on_the_batch(form, signed):
    """Not by a bit, though tokens end at different steps and share their lane with others."""
    x, values, support = problem(4, 150, 48, 200, 5, dtype=torch.float32)
    x[::3] = 0
    x[::3, :9] = 1
    rules = Rules(16, signed, 0.4)
    codes, indices = run_form(form, x, values, support, rules)
    assert (codes != 0).sum(dim=1).unique().numel() > 3
    order = torch.randperm(150, generator=torch.Generator().manual_seed(0))
    shuffled = run_form(form, x[order], values, support, rules)
    assert torch.equal(shuffled[0], codes[order])
    assert torch.equal(shuffled[1], indices[order])
    alone = run_form(form, x[100:101], values, support, rules)
    assert torch.equal(alone[0], codes[100:101])
    assert torch.equal(alone[1], indices[100:101])


def test_lockstep_is_for_columns_that_meet():
    def judged(support, k):
        return cpu_pursue.lockstep_is_cheaper(support.row_lists.starts.numpy(), support.n, k)

    assert judged(Support.make("uniform", m=576, n=4608, d=7, seed=0), 16)
    assert not judged(Support.make("uniform", m=4096, n=4608, d=10, seed=0), 16)
    assert judged(Support.make("uniform", m=4096, n=4608, d=64, seed=0), 64)
    # The same degree, but all columns on a sixty-fourth of the coordinates.
    assert judged(Support.make("uniform", m=64, n=4608, d=10, seed=0), 16)


def test_refuses_what_select_refuses():
    x, values, support = problem(2, 4, 20, 30, 3)
    with pytest.raises(ExpanderError, match="k must be between 1 and"):
        run(x, values, support, Rules(31), True, "auto")
    x[2, 3] = float("nan")
    with pytest.raises(ExpanderError, match=r"x must be finite, .* the first is row 2\."):
        run(x, values, support, Rules(3), True, "auto")


def test_operator_is_registered_correctly():
    x, values, support = problem(7, 4, 8, 12, 3, dtype=torch.float32)
    lists = support.row_lists
    arguments = (x, values, support.rows, lists.starts, lists.features, lists.slots, 4, True, 0.0, True, "auto")
    torch.library.opcheck(torch.ops.expander_sae.pursue.default, arguments)
