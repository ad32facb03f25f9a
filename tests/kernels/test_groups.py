"""Looking at groups of features: everything gives what `select` gives, some of it what is best among that."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from expander_sae import ExpanderError
from expander_sae.kernels import select
from expander_sae.kernels.groups import GroupedColumns, Groups, _Scaled, group_columns
from tests.kernels.test_select import problem, sizes


def grouped(values, rows, bias, x):
    return GroupedColumns(group_columns(values, rows, bias, x.square().mean(dim=0).sqrt()), rows)


def in_pieces(n, pieces, seed):
    """Groups without rhyme or reason, some of them of one feature."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(0, pieces, (n,), generator=generator)
    counts = torch.bincount(label, minlength=pieces)
    counts = counts[counts > 0]
    others = len(counts) - 1
    edges = torch.nn.functional.pad(counts.cumsum(0), (1, 0))
    mean = torch.randn(others, 1, generator=generator), torch.zeros(others, 1, dtype=torch.int32)
    return Groups(label.argsort(stable=True), edges, *mean, torch.zeros(others))


@settings(deadline=None, max_examples=150)
@given(case=sizes(), pieces=st.integers(1, 12))
def test_who_looks_at_everything_chooses_what_select_chooses(case, pieces):
    sizes_of_problem = [case[name] for name in ("seed", "batch", "m", "n", "d")]
    x, values, rows, bias = problem(*sizes_of_problem, **{name: case[name] for name in ("grid", "dtype", "uneven")})
    bias = bias if case["with_bias"] else None
    columns = GroupedColumns(in_pieces(case["n"], pieces, case["seed"]), rows)
    k = min(case["k"], columns.groups.everyones)
    found = columns.select(x, values, bias, k, 1.0, case["signed"])
    torch.testing.assert_close(found, select(x, values, rows, k, bias, case["signed"])[1], rtol=0, atol=0)


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 1000), look=st.floats(0.05, 0.9), signed=st.booleans(), uneven=st.booleans())
def test_what_a_token_looks_at_is_a_share_and_the_best_of_it_is_chosen(seed, look, signed, uneven):
    x, values, rows, bias = problem(seed, 70, 24, 3000, 5, uneven=uneven)
    columns = grouped(values, rows, bias, x)
    k = 20
    found = columns.select(x, values, bias, k, look, signed)
    assert (found.sort(dim=1).values.diff(dim=1) > 0).all()
    # The last one chosen beats every feature of the first group that was not.
    scores = select(x, values, rows, len(values), bias, signed)
    ranks = torch.empty_like(scores[1]).scatter_(1, scores[1], torch.arange(len(values)).expand(len(x), -1))
    assert (ranks.gather(1, found).diff(dim=1) > 0).all()  # in the order of select
    everyones = columns.groups.order[: columns.groups.everyones]
    best_of_everyones = ranks[:, everyones].sort(dim=1).values[:, :k]
    assert (ranks.gather(1, found) <= best_of_everyones).all()
    wider = columns.select(x, values, bias, k, min(1.0, 2 * look), signed)
    assert (ranks.gather(1, wider) <= ranks.gather(1, found)).all()


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1000), n=st.integers(1, 4000), uneven=st.booleans())
def test_every_feature_is_in_one_group(seed, n, uneven):
    x, values, rows, bias = problem(seed, 30, 16, n, 4, uneven=uneven)
    groups = group_columns(values, rows, bias, x.square().mean(dim=0).sqrt(), seed)
    assert torch.equal(groups.order.sort().values, torch.arange(n))
    assert (groups.edges.diff() > 0).all()
    assert groups.edges[0] == 0
    assert groups.edges[-1] == n
    assert len(groups.values) == len(groups.rows) == len(groups.lead) == len(groups.edges) - 2
    for start, stop in zip(groups.edges, groups.edges[1:], strict=False):
        assert (groups.order[start:stop].diff() > 0).all()


def test_a_tenth_of_the_dictionary_has_nearly_all_that_tokens_plainly_point_at():
    """Tokens are three columns each and noise; columns are in clusters, as those of real tokens are."""
    generator = torch.Generator().manual_seed(0)
    n, m, d, clusters = 1 << 15, 256, 8, 256
    at = torch.stack([torch.randperm(m, generator=generator)[:d] for _ in range(clusters)]).sort(dim=1).values
    cluster = torch.randint(0, clusters, (n,), generator=generator)
    rows, centre = at[cluster].to(torch.int32), torch.randn(clusters, d, generator=generator)
    values = torch.nn.functional.normalize(centre[cluster] + 0.3 * torch.randn(n, d, generator=generator), dim=1)
    planted = torch.randint(0, n, (200, 3), generator=generator)
    x = 0.02 * torch.randn(200, m, generator=generator)
    x.scatter_add_(1, rows[planted].flatten(1).long(), values[planted].flatten(1))
    columns = grouped(values, rows, None, x)
    exact = select(x, values, rows, 8)[1]
    recalls = [
        (columns.select(x, values, None, 8, look)[:, :, None] == exact[:, None, :]).any(dim=1).float().mean()
        for look in (0.05, 0.1, 0.2)
    ]
    assert recalls == sorted(recalls)
    assert recalls[0] > 0.4
    assert recalls[1] > 0.8
    assert recalls[2] > 0.98


def test_columns_that_change_are_seen_and_those_that_may_not_be_chosen_are_not():
    x, values, rows, bias = problem(3, 50, 24, 2000, 5)
    columns = grouped(values, rows, bias, x)
    before = columns.select(x, values, bias, 4, 1.0)
    values.data[before[:, 0]] = 0  # which no version counts
    bias = bias.clone()
    bias[before[:, 1]] -= 100
    expected = select(x, values, rows, 4, bias)[1]
    assert not torch.equal(before, expected)
    assert torch.equal(columns.select(x, values, bias, 4, 1.0), expected)
    few = torch.zeros(2000, dtype=torch.bool)
    few[[7, 1999]] = True
    found = columns.select(x, values, bias, 4, 1.0, allowed=few)
    assert (found[:, :2].sort(dim=1).values == torch.tensor([7, 1999])).all()
    assert (found[:, 2:] == 2000).all()


def test_more_than_all_tokens_look_at_cannot_be_chosen():
    x, values, rows, bias = problem(3, 50, 24, 2000, 5)
    with pytest.raises(ExpanderError, match="between 1 and the number of those that all look at, 256, not 257"):
        grouped(values, rows, bias, x).select(x, values, bias, 257, 0.5)


def test_numbers_that_are_none_are_refused():
    x, values, rows, bias = problem(3, 50, 24, 2000, 5)
    columns = grouped(values, rows, bias, x)
    for name, number in (("x", x), ("values", values), ("bias", bias)):
        broken = {"x": x, "values": values, "bias": bias, name: number.clone().fill_(torch.nan)}
        with pytest.raises(ExpanderError, match=f"{name} must be finite"):
            columns.select(broken["x"], broken["values"], broken["bias"], 4, 0.5)


def test_held_columns_are_as_they_were_when_they_were_first_looked_at():
    x, values, rows, bias = problem(3, 50, 24, 2000, 5)
    columns = grouped(values, rows, bias, x)
    for _ in range(2):
        with columns.held():
            before = columns.select(x, values, bias, 4, 1.0)
            assert torch.equal(before, select(x, values, rows, 4, bias)[1])
            values[before[:, 0]] = 0
            assert torch.equal(columns.select(x, values, bias, 4, 1.0), before)
        assert not torch.equal(columns.select(x, values, bias, 4, 1.0), before)
    values[7, 0] = torch.inf
    with columns.held(), pytest.raises(ExpanderError, match="values must be finite"):
        columns.select(x, values, bias, 4, 1.0)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1000), groups=st.integers(1, 150), uneven=st.booleans())
def test_columns_are_put_to_the_nearest_centre(seed, groups, uneven):
    x, values, rows, _ = problem(seed, 150, 24, 400, 5, uneven=uneven)
    columns, centres = _Scaled(values, rows, torch.linspace(0.5, 2, 24)), x[:groups]
    features = torch.arange(0, 400, 3)
    found = columns.nearest(features, centres)
    scores = select(centres * columns.spread, values, rows, 400)
    of = torch.empty(groups, 400).scatter_(1, scores[1], scores[0])[:, features]
    torch.testing.assert_close(of.gather(0, found[None])[0], of.max(dim=0).values)
