"""The look in 16 bits: its bound holds, and what `select` finds by it is what the definition finds, to the last bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from expander_sae import Support
from expander_sae.kernels import select
from expander_sae.kernels.cpu.coarse import fill_coarsely, in_16_bits, make_rows
from expander_sae.kernels.cpu.columns import columns_of
from expander_sae.kernels.cpu.select import LOOK_FEATURES, LOOK_TOKENS, PROBE_GROUPS, PROBES_PER_RANK
from expander_sae.kernels.cpu.tiles import LANES, aligned
from tests.uneven import shortened


def drawn(kind, generator, *shape):
    """Numbers that are easy or hard to tell apart in 16 bits."""
    normal = torch.randn(*shape, generator=generator)
    if kind == "heavy":
        return normal / torch.rand(*shape, generator=generator).clamp_min(1e-6)
    if kind == "unequal":
        return normal * 10.0 ** torch.randint(-6, 7, (shape[0], *[1] * (len(shape) - 1)), generator=generator)
    if kind == "huge":
        return normal * 1e18
    if kind == "tiny":
        return normal * 1e-21
    if kind == "denormal":
        return normal * 1e-39
    if kind == "grid":
        return torch.randint(-2, 3, shape, generator=generator).float()
    if kind == "positive":
        return normal.abs() + 10
    if kind == "mostly zero":
        return normal * (torch.rand(shape[0], *[1] * (len(shape) - 1), generator=generator) < 0.5)
    return normal


KINDS = ["normal", "heavy", "unequal", "huge", "tiny", "denormal", "grid", "positive", "mostly zero"]


@st.composite
def problems(draw):
    """What a problem is made from; large enough that `select` takes a look."""
    m = draw(st.integers(1, 80))
    n = draw(st.integers(LOOK_FEATURES, 500))
    return {
        "seed": draw(st.integers(0, 10**6)),
        "batch": draw(st.sampled_from([LOOK_TOKENS, LOOK_TOKENS + 1, 3 * LANES + 5])),
        "m": m,
        "n": n,
        "d": draw(st.integers(1, min(m, 12))),
        "k": draw(st.integers(1, n // LOOK_FEATURES)),
        "uneven": draw(st.booleans()),
        "signed": draw(st.booleans()),
        "kinds": (draw(st.sampled_from(KINDS)), draw(st.sampled_from(KINDS)), draw(st.sampled_from([None, *KINDS]))),
    }


def made(case):
    """x, values, rows, k, bias or None, signed."""
    generator = torch.Generator().manual_seed(case["seed"])
    m, n, d, (kind_of_x, kind_of_values, kind_of_bias) = case["m"], case["n"], case["d"], case["kinds"]
    rows = Support.make("uniform", m=m, n=n, d=d, seed=case["seed"]).rows
    rows = shortened(rows, case["seed"]) if case["uneven"] else rows
    x, values = drawn(kind_of_x, generator, case["batch"], m), drawn(kind_of_values, generator, n, d)
    bias = None if kind_of_bias is None else drawn(kind_of_bias, generator, n)
    return x, values, rows, case["k"], bias, case["signed"]


@settings(deadline=None, max_examples=300)
@given(case=problems())
def test_what_a_look_finds_is_what_the_definition_finds(case):
    expected = select(*made(case), implementation="reference")
    found = select(*made(case), implementation="cpu")
    assert torch.equal(found[1], expected[1])
    assert torch.equal(found[0], expected[0])


@settings(deadline=None, max_examples=150)
@given(case=problems())
def test_a_feature_that_scores_more_by_the_margin_is_the_better_one(case):
    x, values, rows, _, bias, signed = made(case)
    shifts = np.zeros(len(values), np.float32) if bias is None else bias.numpy()
    tokens, columns = x.numpy()[:LANES].copy(), columns_of(values, rows)
    coarse = in_16_bits(tokens, columns, shifts)
    if coarse is None:
        return
    tile = aligned((tokens.shape[1] + (coarse.constant > 0), LANES), np.int16)
    if not fill_coarsely(tokens, coarse, make_rows(tokens.shape[1]), tile):
        return
    whole = [tile[coarse.columns.rows[entry]].astype(np.int64) for entry in range(coarse.columns.values.size)]
    halves = [row * int(value) >> 16 for row, value in zip(whole, coarse.columns.values, strict=True)]
    scores = np.add.reduceat(halves, coarse.columns.starts[:-1].astype(np.int64)) + coarse.offsets[:, None]
    assert np.abs(scores).max() < 2**15
    dense = torch.zeros(tokens.shape[1] + 1, len(values), dtype=torch.float64)
    dense = dense.scatter_(0, rows.T.long() % len(dense), values.T.double())[:-1]
    exact = (torch.from_numpy(tokens).double() @ dense + torch.from_numpy(shifts)).T.numpy()
    if signed:
        scores, exact = np.abs(scores), np.abs(exact)
    for lane in range(0, LANES, 9):
        order = np.argsort(exact[:, lane])
        # Of all features that are no better, none scores as much as the margin more.
        assert (scores[order, lane] > np.maximum.accumulate(scores[order, lane]) - (coarse.margin - 1)).all()


@pytest.mark.parametrize("signed", [False, True])
def test_a_misled_guess_of_a_look_is_corrected(signed):
    """Only the features that the guess probes are large, so that it lies far above the k-th best score."""
    m, n, k, generator = 16, 4000, 100, torch.Generator().manual_seed(0)
    rows = Support.make("uniform", m=m, n=n, d=3, seed=0).rows
    x, values = torch.randn(LOOK_TOKENS + 70, m, generator=generator), torch.randn(n, 3, generator=generator)
    values[:: n // (PROBE_GROUPS * int(PROBES_PER_RANK * n / k))] *= 1000
    found = select(x, values, rows, k, None, signed, implementation="cpu")
    expected = select(x, values, rows, k, None, signed, implementation="reference")
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])


def test_lists_of_a_look_overflow_without_loss():
    """Scores that keep rising make every feature a candidate, and equal ones cannot be told apart at all."""
    n, k = 5000, 3
    rows, x = torch.zeros(n, 1, dtype=torch.int32), torch.ones(LOOK_TOKENS + 1, 2)
    rising, falling = torch.arange(n) + 1.0, n - torch.arange(n) * 1.0
    for values, expected in ((rising, [4999, 4998, 4997]), (falling, [0, 1, 2]), (torch.ones(n), [0, 1, 2])):
        assert select(x, values[:, None], rows, k, implementation="cpu")[1].tolist() == [expected] * len(x)


def test_numbers_near_the_ends_of_float32_are_not_put_in_16_bits():
    rows = torch.zeros(4, 1, dtype=torch.int32)
    x, no_bias = np.ones((2, 1), np.float32), np.zeros(4, np.float32)
    for size in (0.0, 1e-40, 1e30):
        columns = columns_of(torch.full((4, 1), size), rows)
        assert in_16_bits(x, columns, no_bias) is None
    coarse = in_16_bits(x, columns_of(torch.ones(4, 1), rows), no_bias)
    tile = aligned((1, LANES), np.int16)
    for size, fits in ((1.0, True), (0.0, False), (1e-30, False), (1e30, False)):
        assert fill_coarsely(x * np.float32(size), coarse, make_rows(1), tile) == fits
