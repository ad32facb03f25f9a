"""Sparse codes times columns on GPUs: what a token sees or is made of by one program, what a column learns by another.

Every sum is taken in an order that does not depend on how threads run: a token's columns are added one after the other,
and a column's tokens are read in their order, found by sorting the codes by features once. So gradients have the same
bits every time, which those of torch's scatters have not, and a product is one launch instead of a dozen.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from expander_sae.kernels.gpu.correlate import UNFUSED, check_device, device_of

ENTRIES_AT_ONCE = 1024
"""Entries of a token's columns that a program reads at once, at most."""

FIRINGS_AT_ONCE = 32
"""Tokens that a column reads at once."""


@triton.jit(do_not_specialize=["k"])
def _correlate_at(
    x: tl.tensor, indices: tl.tensor, values: tl.tensor, rows: tl.tensor, out: tl.tensor, width: tl.tensor,
    k: tl.tensor, DEGREE: tl.constexpr, ENTRIES: tl.constexpr, SLOTS: tl.constexpr,
) -> None:  # fmt: skip
    """out[token, slot] of some slots: a token times its own columns."""
    token = tl.program_id(0).to(tl.int64)
    slot, entry = tl.program_id(1) * SLOTS + tl.arange(0, SLOTS), tl.arange(0, ENTRIES)
    feature = tl.load(indices + token * k + slot, mask=slot < k, other=0).to(tl.int64)
    at, there = feature[:, None] * DEGREE + entry[None, :], (slot < k)[:, None] & (entry < DEGREE)[None, :]
    row = tl.load(rows + at, mask=there, other=-1)
    there = there & (row >= 0)
    value = tl.load(values + at, mask=there, other=0.0)
    picked = tl.load(x + token * width + row, mask=there, other=0.0)
    tl.store(out + token * k + slot, tl.sum(picked * value, axis=1), mask=slot < k)


@triton.jit(do_not_specialize=["k"])
def _add_columns(
    weights: tl.tensor, indices: tl.tensor, values: tl.tensor, rows: tl.tensor, out: tl.tensor, width: tl.tensor,
    k: tl.tensor, DEGREE: tl.constexpr, ENTRIES: tl.constexpr,
) -> None:  # fmt: skip
    """Add every column times its weight to a token, one after the other: they share coordinates, a column's differ."""
    token = tl.program_id(0).to(tl.int64)
    entry = tl.arange(0, ENTRIES)
    for slot in range(k):
        weight = tl.load(weights + token * k + slot)
        feature = tl.load(indices + token * k + slot).to(tl.int64)
        row = tl.load(rows + feature * DEGREE + entry, mask=entry < DEGREE, other=-1)
        value = tl.load(values + feature * DEGREE + entry, mask=row >= 0, other=0.0)
        place = out + token * width + row
        total = tl.load(place, mask=row >= 0, other=0.0) + weight * value
        tl.debug_barrier()  # some threads hold copies of others' entries: all have read before any writes
        tl.store(place, total, mask=row >= 0)
        tl.debug_barrier()


@triton.jit(do_not_specialize=["k"])
def _add_up(
    weights: tl.tensor, order: tl.tensor, starts: tl.tensor, x: tl.tensor, rows: tl.tensor, out: tl.tensor,
    width: tl.tensor, k: tl.tensor, DEGREE: tl.constexpr, ENTRIES: tl.constexpr, FIRINGS: tl.constexpr,
) -> None:  # fmt: skip
    """out[feature, entry]: what a column sees of the tokens that it fires on, weighted by its codes."""
    feature = tl.program_id(0).to(tl.int64)
    entry, lane = tl.arange(0, ENTRIES), tl.arange(0, FIRINGS)
    row = tl.load(rows + feature * DEGREE + entry, mask=entry < DEGREE, other=-1)
    first, stop = tl.load(starts + feature), tl.load(starts + feature + 1)
    seen = tl.zeros((FIRINGS, ENTRIES), dtype=out.dtype.element_ty)
    while first < stop:
        fires = first + lane < stop
        code = tl.load(order + first + lane, mask=fires, other=0)
        weight = tl.load(weights + code, mask=fires, other=0.0)
        there = fires[:, None] & (row >= 0)[None, :]
        picked = tl.load(x + (code // k)[:, None] * width + row[None, :], mask=there, other=0.0)
        seen += weight[:, None] * picked
        first += FIRINGS
    tl.store(out + feature * DEGREE + entry, tl.sum(seen, axis=0), mask=entry < DEGREE)


class Firings(NamedTuple):
    """The codes of a batch, feature after feature, those of one in the order of the tokens."""

    order: Int[Tensor, " codes"]
    """Where each is among the codes [batch, k] in one row."""
    starts: Int[Tensor, " n_plus_1"]
    """Where those of a feature begin, and the last one's end."""

    @classmethod
    def of(cls, indices: Int[Tensor, "batch k"], n: int) -> Firings:
        features, order = indices.flatten().to(torch.int32).sort(stable=True)
        every = torch.arange(n + 1, dtype=torch.int32, device=indices.device)
        return cls(order, torch.searchsorted(features, every))


def correlate_at(
    x: Float[Tensor, "batch m"], indices: Int[Tensor, "batch k"], values: Float[Tensor, "n d"], rows: Int[Tensor, "n d"]
) -> Float[Tensor, "batch k"]:
    """Every token times its own columns."""
    check_device(x, indices, values, rows)
    (batch, k), degree = indices.shape, rows.shape[1]
    out = x.new_empty(batch, k)
    entries = triton.next_power_of_2(degree)
    slots = min(triton.next_power_of_2(k), max(1, ENTRIES_AT_ONCE // entries))
    if out.numel():
        with device_of(x):
            _correlate_at[(batch, triton.cdiv(k, slots))](
                x, indices, values, rows, out, x.shape[1], k, degree, entries, slots, num_warps=4, **UNFUSED
            )
    return out


def add_columns(
    weights: Float[Tensor, "batch k"],
    indices: Int[Tensor, "batch k"],
    values: Float[Tensor, "n d"],
    rows: Int[Tensor, "n d"],
    total: Float[Tensor, "batch m"],
) -> None:
    """Add every token's weighted sum of its columns, in place."""
    check_device(weights, indices, values, rows, total)
    (batch, k), degree = indices.shape, rows.shape[1]
    entries = triton.next_power_of_2(degree)
    if batch:
        with device_of(total):
            _add_columns[(batch,)](
                weights, indices, values, rows, total, total.shape[1], k, degree, entries,
                num_warps=max(1, min(8, entries // 128)), **UNFUSED,
            )  # fmt: skip


def accumulate(
    weights: Float[Tensor, "batch k"], firings: Firings, x: Float[Tensor, "batch m"], rows: Int[Tensor, "n d"]
) -> Float[Tensor, "n d"]:
    """What every column sees of the tokens, weighted by its codes; zero where a shorter column has no row."""
    check_device(weights, firings.order, x, rows)
    n, degree = rows.shape
    out = x.new_empty(n, degree)
    entries = triton.next_power_of_2(degree)
    with device_of(x):
        _add_up[(n,)](
            weights, *firings, x, rows, out, x.shape[1], weights.shape[1], degree, entries, FIRINGS_AT_ONCE,
            num_warps=max(1, min(8, FIRINGS_AT_ONCE * entries // ENTRIES_AT_ONCE)), **UNFUSED,
        )  # fmt: skip
    return out


def pull_back(
    x: Float[Tensor, "batch m"],
    codes: Float[Tensor, "batch k"],
    indices: Int[Tensor, "batch k"],
    reading: tuple[Float[Tensor, "n d"], Int[Tensor, "n d"]],
    writing: tuple[Float[Tensor, "n d"], Int[Tensor, "n d"]],
    of_codes: Float[Tensor, "batch k"],
    of_residual: Float[Tensor, "batch m"],
) -> tuple[Float[Tensor, "batch k"], Float[Tensor, "batch m"], Float[Tensor, "n d"], Float[Tensor, "n d"]]:
    """What codes pass on, and the gradients by x, by the columns that read and by those that write (see `explain`).

    Codes are sorted by features once for both gradients of columns.
    """
    passed_on = torch.where(codes != 0, of_codes - correlate_at(of_residual, indices, *writing), 0)
    of_x = of_residual.clone()
    add_columns(passed_on, indices, *reading, of_x)
    firings = Firings.of(indices, len(reading[1]))
    of_encoder = accumulate(passed_on, firings, x, reading[1])
    return passed_on, of_x, of_encoder, accumulate(-codes, firings, of_residual, writing[1])
