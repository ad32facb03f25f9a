"""`pursue` on the CPU: the same codes as the textbook loop, from updates that touch only what a step changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from expander_sae import ExpanderError, Support
from expander_sae.kernels import Rules, cpu_greedy, pursue
from expander_sae.kernels.cpu_local import Columns
from expander_sae.kernels.greedy import DEPENDENT, ROUNDING


def problem(seed, batch, m, n, d, dtype=torch.float64, construction="uniform"):
    generator = torch.Generator().manual_seed(seed)
    support = Support.make(construction, m=m, n=n, d=d, seed=seed)
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


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    batch=st.sampled_from([0, 1, 15, 17]),
    m=st.integers(6, 40),
    n=st.integers(1, 90),
    d=st.integers(1, 6),
    k=st.integers(1, 12),
    signed=st.booleans(),
    orthogonal=st.booleans(),
    tolerance=st.sampled_from([0.0, 0.5]),
)
def test_equals_the_textbook_loop(seed, batch, m, n, d, k, signed, orthogonal, tolerance):
    x, values, support = problem(seed, batch, m, n, d)
    rules = Rules(min(k, n), signed, tolerance)
    ours = run(x, values, support, rules, orthogonal, "cpu")
    textbook = run(x, values, support, rules, orthogonal, "reference")
    dense = torch.zeros(n, m, dtype=x.dtype).scatter_(1, support.rows.long(), values)

    def left(codes):
        return torch.linalg.vector_norm(x - torch.einsum("bk,bkm->bm", codes[0], dense[codes[1]]), dim=1)

    # Exact ties (columns with equal supports after normalising) may go either way; what is explained may not.
    torch.testing.assert_close(left(ours), left(textbook), rtol=1e-7, atol=1e-9)
    if d > 1:
        assert torch.equal(ours[1] * (ours[0] != 0), textbook[1] * (textbook[0] != 0))
        torch.testing.assert_close(ours[0], textbook[0], rtol=1e-7, atol=1e-9)


def greedy_state(x, values, support, k, *, signed, orthogonal):
    """Run the compiled loop of one token by hand; returns (room, correlations after, unit columns, features used)."""
    unit = (values / torch.linalg.vector_norm(values, dim=1, keepdim=True)).numpy()
    lists = support.row_lists
    features, slots = lists.features.numpy(), lists.slots.numpy()
    columns = Columns(
        unit,
        support.rows.numpy().view(np.uint32),
        lists.starts.numpy(),
        features.view(np.uint32),
        unit[features, slots],
    )
    dense = np.zeros((support.n, support.m))
    np.put_along_axis(dense, support.rows.numpy().astype(np.int64), unit, axis=1)
    correlations = dense @ x.numpy()
    limits = cpu_greedy.Limits(signed, 0.0, ROUNDING * np.finfo(np.float64).eps, DEPENDENT[8])
    room = cpu_greedy.make_room(support.m, support.n, k, np.float64)
    run_token = cpu_greedy.orthogonal_matching_pursuit if orthogonal else cpu_greedy.matching_pursuit
    count = run_token(x.numpy(), correlations, columns, limits, room)
    return room, correlations, dense, room.chosen[:count].copy()


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), k=st.integers(1, 14), signed=st.booleans(), orthogonal=st.booleans())
def test_correlations_stay_those_of_the_residual(seed, k, signed, orthogonal):
    x, values, support = problem(seed, 1, 30, 90, 4)
    room, correlations, dense, chosen = greedy_state(x[0], values, support, k, signed=signed, orthogonal=orthogonal)
    residual = x[0].numpy() - room.codes[: chosen.size] @ dense[chosen]
    np.testing.assert_allclose(room.residual, residual, atol=1e-10)
    untouched = np.setdiff1d(np.arange(90), chosen)
    np.testing.assert_allclose(correlations[untouched], dense[untouched] @ residual, atol=1e-10)
    assert not room.change.any()
    assert not room.stamp.any()
    assert not room.closed.any()
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


@pytest.mark.parametrize("orthogonal", [True, False])
@pytest.mark.parametrize("signed", [True, False])
def test_float32_explains_as_much_as_float64(orthogonal, signed):
    x, values, support = problem(0, 40, 128, 1024, 5)
    rules = Rules(24, signed)
    double = run(x, values, support, rules, orthogonal, "cpu")
    single = run(x.float(), values.float(), support, rules, orthogonal, "cpu")
    dense = torch.zeros(1024, 128, dtype=x.dtype).scatter_(1, support.rows.long(), values)
    left = [
        torch.linalg.vector_norm(x - torch.einsum("bk,bkm->bm", codes.double(), dense[indices]), dim=1)
        for codes, indices in (double, single)
    ]
    torch.testing.assert_close(left[0], left[1], rtol=2e-3, atol=0)
    assert single[0].dtype == torch.float32


@pytest.mark.parametrize("construction", ["shared", "clustered", "banded"])
def test_dependent_columns_are_passed_over(construction):
    """Few coordinates and many columns: the codes stay finite and the fit is the best there is."""
    parameters = {"clustered": {"cluster_size": 4}}.get(construction, {})
    support = Support.make(construction, m=24, n=96, d=4, seed=1, **parameters)
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(96, 4, generator=generator, dtype=torch.float64)
    x = torch.randn(20, 24, generator=generator, dtype=torch.float64)
    codes, indices = run(x, values, support, Rules(24, True), True, "cpu")
    assert codes.isfinite().all()
    dense = torch.zeros(96, 24, dtype=x.dtype).scatter_(1, support.rows.long(), values)
    left = x - torch.einsum("bk,bkm->bm", codes, dense[indices])
    rank = torch.linalg.matrix_rank(dense)
    best = x - x @ torch.linalg.pinv(dense) @ dense
    assert (codes != 0).sum(dim=1).max() <= rank
    torch.testing.assert_close(left, best, atol=1e-6, rtol=0)


def test_zero_tokens_zero_columns_and_single_columns():
    x, values, support = problem(1, 4, 20, 30, 3)
    values[5] = 0
    x[0] = 0
    x[1] = 0
    x[1, support.rows[7].long()] = 2.5 * values[7]
    codes, indices = run(x, values, support, Rules(6), True, "cpu")
    assert (codes[0] == 0).all()
    assert indices[1, 0] == 7
    torch.testing.assert_close(codes[1], torch.tensor([2.5, 0, 0, 0, 0, 0], dtype=x.dtype))
    assert not ((indices == 5) & (codes != 0)).any()


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
