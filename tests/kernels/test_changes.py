"""Other rows for columns: the compiled version against the one in torch, and both against their definitions."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from expander_sae.kernels.changes import codes_by_feature, in_order, largest_entries, relocate
from expander_sae.supports import NO_ROW


def _rows(n: int, m: int, d: int, generator: torch.Generator) -> Tensor:
    """Distinct ascending rows of one to d entries, then -1."""
    rows = torch.rand(n, m, generator=generator).argsort(dim=1)[:, :d]
    lengths = torch.randint(1, d + 1, (n, 1), generator=generator)
    rows = torch.where(torch.arange(d) < lengths, rows, m).sort(dim=1).values
    return torch.where(rows < m, rows, NO_ROW).to(torch.int32)


@st.composite
def problems(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor]:
    """Changes, values and rows of columns of either precision, many of them equal or zero."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    n, m = draw(st.integers(1, 200)), draw(st.integers(1, 300))
    d, dtype = draw(st.integers(1, min(m, 70))), draw(st.sampled_from([torch.float32, torch.float64]))
    change = torch.randn(n, m, generator=generator, dtype=dtype)
    values = torch.randn(n, d, generator=generator, dtype=dtype)
    if draw(st.booleans()):
        change, values = change.round(), values.round()  # ties, zeros and negative zeros
    change[torch.rand(n, generator=generator) < 0.2] = 0
    rows = _rows(n, m, d, generator)
    return change, values * (rows >= 0), rows


@settings(deadline=None, max_examples=100)
@given(problem=problems())
def test_the_largest_entries_are_those_of_the_definition(problem: tuple[Tensor, Tensor, Tensor]) -> None:
    change, values, rows = problem
    found, largest = largest_entries(change.clone(), values, rows, "cpu")
    expected = largest_entries(change.clone(), values, rows, "reference")
    assert torch.equal(found, expected[0])
    assert torch.equal(largest, expected[1])
    for column in range(len(rows)):
        entries = change[column].tolist()
        for row, value in zip(rows[column].tolist(), values[column].tolist(), strict=True):
            if row >= 0:
                entries[row] = value
        best = sorted(range(len(entries)), key=lambda row: (-abs(entries[row]), row))[: rows.shape[1]]
        assert found[column].tolist() == best
        assert largest[column].tolist() == [entries[row] for row in best]


@settings(deadline=None, max_examples=100)
@given(problem=problems(), seed=st.integers(0, 10**6), share=st.sampled_from([0.0, 0.5, 1.0]))
def test_kept_entries_come_in_the_order_of_their_rows(
    problem: tuple[Tensor, Tensor, Tensor], seed: int, share: float
) -> None:
    change, values, rows = problem
    generator = torch.Generator().manual_seed(seed)
    wanted, largest = largest_entries(change, values, rows)
    kept = torch.rand(rows.shape, generator=generator) < share
    placed, ordered, source = in_order(wanted, largest, kept, rows, "cpu")
    expected = in_order(wanted, largest, kept, rows, "reference")
    assert all(torch.equal(one, other) for one, other in zip((placed, ordered, source), expected, strict=True))
    for column in range(len(rows)):
        here = kept[column]
        entries = sorted(zip(wanted[column][here].tolist(), largest[column][here].tolist(), strict=True))
        none = rows.shape[1] - len(entries)
        before = rows[column].tolist()
        assert placed[column].tolist() == [row for row, _ in entries] + [NO_ROW] * none
        assert ordered[column].tolist() == [value for _, value in entries] + [0.0] * none
        assert (
            source[column].tolist() == [before.index(row) if row in before else -1 for row, _ in entries] + [-1] * none
        )


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10**6), tokens=st.integers(1, 40), k=st.integers(1, 6), n=st.integers(1, 30))
def test_codes_are_sorted_by_features(seed: int, tokens: int, k: int, n: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randn(tokens, k, generator=generator) * (torch.rand(tokens, k, generator=generator) < 0.7)
    indices = torch.randint(0, n, (tokens, k), generator=generator)
    found, expected = (codes_by_feature(codes, indices, n, implementation) for implementation in ("cpu", "reference"))
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    for feature in range(n):
        there = [
            (token, codes[token, rank].item())
            for token in range(tokens)
            for rank in range(k)
            if indices[token, rank] == feature and codes[token, rank] != 0
        ]
        here = slice(int(found.starts[feature]), int(found.starts[feature + 1]))
        assert list(zip(found.tokens[here].tolist(), found.weights[here].tolist(), strict=True)) == there


@settings(deadline=None, max_examples=100)
@given(problem=problems(), seed=st.integers(0, 10**6), one=st.booleans())
def test_entries_follow_their_rows(problem: tuple[Tensor, Tensor, Tensor], seed: int, one: bool) -> None:
    change, values, rows = problem
    generator = torch.Generator().manual_seed(seed)
    wanted, largest = largest_entries(change, values, rows)
    placed, _, source = in_order(wanted, largest, torch.rand(rows.shape, generator=generator) < 0.5, rows)
    features = torch.randperm(len(rows), generator=generator)[: 1 + len(rows) // 2]
    new = torch.randn(len(features), 1 if one else rows.shape[1], generator=generator, dtype=values.dtype)
    found, expected = values.clone(), values.clone()
    for entries, implementation in ((found, "cpu"), (expected, "reference")):
        relocate(entries, features, placed[features], source[features], new, implementation)
    assert torch.equal(found, expected)
    assert found._version > 0
    for place, feature in enumerate(features.tolist()):
        for slot, row in enumerate(placed[feature].tolist()):
            before = rows[feature].tolist()
            kept = values[feature, before.index(row)] if row in before else new[place, 0 if one else slot]
            assert found[feature, slot] == (0 if row < 0 else kept)


@pytest.mark.parametrize("threads", [2, 5])
def test_threads_do_not_change_the_result(threads: int) -> None:
    generator = torch.Generator().manual_seed(0)
    n, m, d = 1000, 150, 20
    change, values = torch.randn(n, m, generator=generator), torch.randn(n, d, generator=generator)
    rows, kept = _rows(n, m, d, generator), torch.rand(n, d, generator=generator) < 0.5
    before = torch.get_num_threads()
    results = []
    try:
        for count in (1, threads):
            torch.set_num_threads(count)
            largest = largest_entries(change.clone(), values, rows, "cpu")
            results.append((*largest, *in_order(*largest, kept, rows, "cpu")))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))
