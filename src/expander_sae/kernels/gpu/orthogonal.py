"""Orthogonal matching pursuit on GPUs: two launches a step, and nothing that the host has to wait for.

A step first makes the largest correlation of every group of features with what is left of a token, as `select` does.
All correlations are made anew: by the time that a token has k columns, most features share a row with one of them, and
tiles of tokens share what is loaded of a column. Then one program a token takes its step:

1. It finds the best feature that is open (neither in use nor refused). The maximum of a group may be that of a closed
   one, so the best group's members are scored again; while an open one falls short of the group's maximum, the maximum
   is corrected and the best group is looked for again.
2. It borders the Gram matrix of the token's columns and its inverse (with u = G^-1 g and s = 1 - g u, G^-1 grows by
   (u, -1) (u, -1)^T / s), and solves; one step of refinement makes up for the rounding of the updates. Without signs,
   columns that turn negative are dropped as Lawson and Hanson do, each by one update of the inverse.
3. It writes what is left where the rows of its columns are, anew from the token at every step, so that no rounding
   piles up, and column after column, so that it does not matter in which order threads work.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from expander_sae.kernels import greedy
from expander_sae.kernels.gpu.correlate import (
    PROGRAMS,
    TILE,
    UNFUSED,
    check_device,
    correlate_block,
    device_of,
    features_at_once,
    longest,
    tiled,
)
from expander_sae.kernels.gpu.refit import KEPT_PER_WARP, length_of, order_of, solved, without_dropped
from expander_sae.kernels.gpu.select import Columns

SMALLEST_GROUP = 4
"""Features of a group at least: a group's maximum is a number to be read, and its members are scored again."""

GROUPS_AT_ONCE = 1024
"""Maxima that a program compares at once."""

COORDINATES_AT_ONCE = 1024
"""Coordinates whose squares a program adds at once."""


@triton.jit
def _best_open(
    maxima: tl.tensor, residual: tl.tensor, values: tl.tensor, rows: tl.tensor, lengths: tl.tensor,
    indices: tl.tensor, refused: tl.tensor, features: tl.tensor, groups: tl.tensor, DEGREE: tl.constexpr,
    UNEVEN: tl.constexpr, SIGNED: tl.constexpr, K: tl.constexpr, REFUSED: tl.constexpr, MEMBERS: tl.constexpr,
    GROUPS: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor]:  # fmt: skip
    """The largest correlation of a token with an open feature, and which; of equal ones the first."""
    taken = tl.load(indices + tl.arange(0, K))
    banned = tl.load(refused + tl.arange(0, REFUSED))
    lane = tl.arange(0, GROUPS)
    member = tl.arange(0, MEMBERS)
    best = tl.full((), float("-inf"), maxima.dtype.element_ty)
    feature = tl.full((), 0, tl.int32)
    searching = tl.full((), 1, tl.int32)
    while searching > 0:
        top = tl.full((GROUPS,), float("-inf"), maxima.dtype.element_ty)
        place = tl.zeros((GROUPS,), dtype=tl.int32)
        for first in range(0, groups, GROUPS):
            value = tl.load(maxima + first + lane, mask=first + lane < groups, other=float("-inf"))
            place = tl.where(value > top, first + lane, place)
            top = tl.maximum(top, value)
        bound = tl.max(top, axis=0)
        group = tl.min(tl.where(top == bound, place, groups), axis=0)
        each = group * MEMBERS + member
        real = tl.minimum(each, features - 1)
        entry = real.to(tl.int64) * DEGREE
        degree = longest(lengths, real, DEGREE, UNEVEN)
        found = correlate_block(residual, values + entry, rows + entry, degree, UNEVEN, 1, maxima.dtype.element_ty)
        score = tl.sum(found, axis=1)  # of one
        score = tl.abs(score) if SIGNED else score
        closed = tl.sum((taken[:, None] == each[None, :]).to(tl.int32), axis=0)
        closed += tl.sum((banned[:, None] == each[None, :]).to(tl.int32), axis=0)
        score = tl.where((each < features) & (closed == 0), score, float("-inf"))
        best = tl.max(score, axis=0)
        feature = tl.min(tl.where(score == best, each, features), axis=0)
        # An open feature with the group's maximum wins; if no group is left, there is none.
        searching = ((best < bound) & (bound > float("-inf"))).to(tl.int32)
        tl.debug_barrier()  # every thread has read the maxima
        tl.store(maxima + group, best)
        tl.debug_barrier()
    return best, feature


@triton.jit
def _entries(
    lengths: tl.tensor, index: tl.tensor, used: tl.tensor, DEGREE: tl.constexpr, UNEVEN: tl.constexpr,
    ENTRIES: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor]:  # fmt: skip
    """Where the entries of a token's columns are, and which of them there are."""
    known, entry = tl.where(used, index, 0), tl.arange(0, ENTRIES)
    length = tl.where(used, length_of(lengths, known, DEGREE, UNEVEN), 0)
    return known.to(tl.int64)[:, None] * DEGREE + entry[None, :], entry[None, :] < length[:, None]


@triton.jit
def _bordered(
    x: tl.tensor, values: tl.tensor, rows: tl.tensor, lengths: tl.tensor, feature: tl.tensor, index: tl.tensor,
    used: tl.tensor, free: tl.tensor, aims: tl.tensor, kept: tl.tensor, turned: tl.tensor,
    DEGREE: tl.constexpr, UNEVEN: tl.constexpr, ENTRIES: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor, tl.tensor, tl.tensor]:  # fmt: skip
    """Target, Gram matrix and inverse with a column more in the free place, and its squared distance from the others.

    What it shares with a column in use is found by comparing rows.
    """
    at, there = _entries(lengths, index, used, DEGREE, UNEVEN, ENTRIES)
    its_rows = tl.load(rows + at, mask=there, other=-1)
    its_values = tl.load(values + at, mask=there, other=0.0)
    shared = tl.zeros(there.shape, dtype=x.dtype.element_ty)
    seen = tl.full((), 0.0, x.dtype.element_ty)
    for number in range(length_of(lengths, feature, DEGREE, UNEVEN)):
        row = tl.load(rows + feature.to(tl.int64) * DEGREE + number)
        value = tl.load(values + feature.to(tl.int64) * DEGREE + number)
        seen += tl.load(x + row) * value
        shared += tl.where(its_rows == row, its_values * value, 0.0)
    products = tl.sum(shared, axis=1)
    solution = tl.sum(turned * products[None, :], axis=1)
    apart = 1.0 - tl.sum(products * solution, axis=0)
    kept = tl.where(free[:, None], products[None, :], kept)
    kept = tl.where(free[None, :], products[:, None], kept)
    kept = tl.where(free[:, None] & free[None, :], 1.0, kept)
    border = tl.where(free, -1.0, solution)
    return tl.where(free, seen, aims), kept, turned + border[:, None] * border[None, :] / apart, apart


@triton.jit
def _leave(
    x: tl.tensor, residual: tl.tensor, codes: tl.tensor, indices: tl.tensor, values: tl.tensor, rows: tl.tensor,
    lengths: tl.tensor, place: tl.tensor, there: tl.tensor, width: tl.tensor, k: tl.tensor,
    DEGREE: tl.constexpr, UNEVEN: tl.constexpr, ENTRIES: tl.constexpr, COORDINATES: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor]:  # fmt: skip
    """Write what the codes leave of a token to the places where that can have changed; gives it back, and its norm.

    Columns are taken away one after the other, since they share places; a column's own differ.
    """
    tl.debug_barrier()  # codes and indices are written
    tl.store(residual + place, tl.load(x + place), mask=there)
    tl.debug_barrier()
    entry = tl.arange(0, ENTRIES)
    for slot in range(k):
        code = tl.load(codes + slot)
        if code != 0:
            feature = tl.load(indices + slot).to(tl.int64)
            real = entry < length_of(lengths, feature, DEGREE, UNEVEN)
            row = tl.load(rows + feature * DEGREE + entry, mask=real, other=0)
            value = tl.load(values + feature * DEGREE + entry, mask=real, other=0.0)
            less = tl.load(residual + row, mask=real, other=0.0) - code * value
            tl.debug_barrier()  # some threads hold copies of others' entries: all have read before any writes
            tl.store(residual + row, less, mask=real)
            tl.debug_barrier()
    left = tl.load(residual + place, mask=there, other=0.0)
    squares = tl.zeros((COORDINATES,), dtype=x.dtype.element_ty)
    for first in range(0, width, COORDINATES):
        lane = first + tl.arange(0, COORDINATES)
        some = tl.load(residual + lane, mask=lane < width, other=0.0)
        squares += some * some
    tl.debug_barrier()  # before anybody writes codes again
    return left, tl.sqrt(tl.sum(squares, axis=0))


@triton.jit
def _refuse(refused: tl.tensor, refusals: tl.tensor, feature: tl.tensor) -> None:
    """A token does not get this feature again."""
    count = tl.load(refusals)
    tl.store(refused + count, feature)
    tl.store(refusals, count + 1)


@triton.jit
def _fit(
    x: tl.tensor, residual: tl.tensor, tile: tl.tensor, values: tl.tensor, rows: tl.tensor, lengths: tl.tensor,
    codes: tl.tensor, indices: tl.tensor, now: tl.tensor, used: tl.tensor, new: tl.tensor, most: tl.tensor,
    width: tl.tensor, k: tl.tensor, DEGREE: tl.constexpr, UNEVEN: tl.constexpr, ENTRIES: tl.constexpr,
    K: tl.constexpr, COORDINATES: tl.constexpr, TOKENS: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """Give a token new codes for columns, and back the norm of what they leave.

    Where that is more than it may be, the token keeps its old ones: in rounded arithmetic, several columns that nearly
    depend on others can be fitted to anything.
    """
    slot = tl.arange(0, K)
    old, index = tl.load(codes + slot), tl.load(indices + slot)
    # What is left changes in the rows of the columns that were in use, and of the new one.
    at, there = _entries(lengths, now, now >= 0, DEGREE, UNEVEN, ENTRIES)
    place = tl.load(rows + at, mask=there, other=0)
    tl.store(codes + slot, tl.where(used, new, 0.0))
    tl.store(indices + slot, now)
    left, norm = _leave(x, residual, codes, indices, values, rows, lengths, place, there, width, k,
                        DEGREE, UNEVEN, ENTRIES, COORDINATES)  # fmt: skip
    if norm > most:
        tl.store(codes + slot, old)
        tl.store(indices + slot, index)
        _leave(x, residual, codes, indices, values, rows, lengths, place, there, width, k,
               DEGREE, UNEVEN, ENTRIES, COORDINATES)  # fmt: skip
    else:
        tl.store(tile + place * TOKENS, left, mask=there)
        tl.store(indices + slot, tl.where(used, now, -1))
    return norm


@triton.jit(do_not_specialize=["features", "groups", "k", "step"])
def _take_step(
    maxima: tl.tensor, x: tl.tensor, residual: tl.tensor, tiles: tl.tensor, values: tl.tensor, rows: tl.tensor,
    lengths: tl.tensor, norms: tl.tensor, left_norms: tl.tensor, codes: tl.tensor, indices: tl.tensor,
    target: tl.tensor, taken_at: tl.tensor, gram: tl.tensor, inverse: tl.tensor, refused: tl.tensor,
    refusals: tl.tensor, going: tl.tensor, width: tl.tensor, features: tl.tensor, groups: tl.tensor, k: tl.tensor,
    step: tl.tensor, tolerance: tl.tensor, rounding: tl.tensor, dependent: tl.tensor,
    DEGREE: tl.constexpr, UNEVEN: tl.constexpr, ENTRIES: tl.constexpr, SIGNED: tl.constexpr, K: tl.constexpr,
    REFUSED: tl.constexpr, MEMBERS: tl.constexpr, GROUPS: tl.constexpr, COORDINATES: tl.constexpr,
    TOKENS: tl.constexpr,
) -> None:  # fmt: skip
    """One step of one token: a column more, refused or fitted with the others, unless the token is finished."""
    token = tl.program_id(0).to(tl.int64)
    if tl.load(going + token) != 0:
        x, residual, tiles = x + token * width, residual + token * width, tiles + token // TOKENS * width * TOKENS
        codes, indices, refused = codes + token * K, indices + token * K, refused + token * REFUSED
        slot = tl.arange(0, K)
        row, square = token * K + slot, token * K * K + slot[:, None] * K + slot[None, :]
        best, feature = _best_open(
            maxima + token * groups, residual, values, rows, lengths, indices, refused, features, groups,
            DEGREE, UNEVEN, SIGNED, K, REFUSED, MEMBERS, GROUPS,
        )  # fmt: skip
        norm, left_norm, index = tl.load(norms + token), tl.load(left_norms + token), tl.load(indices + slot)
        used = index >= 0
        full = tl.sum(used.to(tl.int32), axis=0) >= k
        if (best <= rounding * norm) | (left_norm <= tolerance * norm) | full:
            tl.store(going + token, 0)
        else:
            free = slot == tl.min(tl.where(used, K, slot), axis=0)
            aims, kept, turned, apart = _bordered(
                x, values, rows, lengths, feature, index, used, free, tl.load(target + row),
                tl.load(gram + square), tl.load(inverse + square), DEGREE, UNEVEN, ENTRIES,
            )  # fmt: skip
            most = left_norm + rounding * norm
            norm_now = tl.full((), float("inf"), x.dtype.element_ty)
            if apart >= dependent:
                use = used | free
                new = solved(turned, kept, aims, use)
                if not SIGNED:
                    use, turned, new = without_dropped(tl.load(codes + slot), turned, kept, aims, use, new, slot)
                norm_now = _fit(
                    x, residual, tiles + token % TOKENS, values, rows, lengths, codes, indices,
                    tl.where(free, feature, index), use, new, most, width, k,
                    DEGREE, UNEVEN, ENTRIES, K, COORDINATES, TOKENS,
                )  # fmt: skip
            if norm_now <= most:
                tl.store(left_norms + token, norm_now)
                tl.store(target + row, aims)
                tl.store(taken_at + row, step, mask=free)
                tl.store(gram + square, kept)
                tl.store(inverse + square, turned)
            else:
                _refuse(refused, refusals + token, feature)


@dataclass(frozen=True)
class _Tokens:
    """Tokens on their way, each with K places for columns, a power of two."""

    x: Float[Tensor, "batch m"]
    residual: Float[Tensor, "batch m"]
    norms: Float[Tensor, " batch"]
    left_norms: Float[Tensor, " batch"]
    codes: Float[Tensor, "batch K"]
    indices: Int[Tensor, "batch K"]
    """-1 where a place is free."""
    target: Float[Tensor, "batch K"]
    """The token's inner products with its columns."""
    taken_at: Int[Tensor, "batch K"]
    """The step at which a column was taken."""
    gram: Float[Tensor, "batch K K"]
    inverse: Float[Tensor, "batch K K"]
    refused: Int[Tensor, "batch refusals"]
    """Features that a token does not get, -1 behind the last."""
    refusals: Int[Tensor, " batch"]
    going: Int[Tensor, " batch"]

    @classmethod
    def begin(cls, x: Float[Tensor, "batch m"], k: int) -> _Tokens:
        """Tokens without a column."""
        batch, places = len(x), max(16, triton.next_power_of_2(k))
        refusals = triton.next_power_of_2(greedy.PICKS_PER_FEATURE * k)
        norms = torch.linalg.vector_norm(x, dim=1)
        whole = x.new_empty(0, dtype=torch.int32)
        return cls(
            x, x.clone(), norms, norms.clone(), x.new_zeros(batch, places), whole.new_full((batch, places), -1),
            x.new_zeros(batch, places), whole.new_zeros(batch, places), x.new_zeros(batch, places, places),
            x.new_zeros(batch, places, places), whole.new_full((batch, refusals), -1), whole.new_zeros(batch),
            whole.new_ones(batch),
        )  # fmt: skip

    def of(self, chosen: Int[Tensor, " some"]) -> _Tokens:
        """Some of them, as copies."""
        return _Tokens(*(getattr(self, field.name)[chosen] for field in fields(self)))

    def put(self, chosen: Int[Tensor, " some"], others: _Tokens) -> None:
        """Let some of them be what those copies have become."""
        for field in fields(self):
            getattr(self, field.name)[chosen] = getattr(others, field.name)

    def in_order(self, k: int) -> tuple[Float[Tensor, "batch k"], Int[Tensor, "batch k"]]:
        """Codes and features in the order in which they were taken; zeros behind them."""
        order = order_of(self.taken_at, self.indices >= 0)[:, :k]
        return self.codes.gather(1, order), self.indices.clamp_min(0).gather(1, order).long()


def _group_size(features: int, tiles: int, at_once: int) -> int:
    """A power of two: groups as large as leaves every multiprocessor enough of them."""
    wanted = features * tiles // (PROGRAMS * at_once)
    return max(SMALLEST_GROUP, 1 << max(0, wanted.bit_length() - 1))


def _take_steps(tokens: _Tokens, columns: Columns, rules: greedy.Rules, first: int, count: int) -> None:
    """So many steps, numbered from the first one on, of every token that has not finished."""
    x, (features, degree), places = tokens.x, columns.values.shape, tokens.codes.shape[1]
    tiles = tiled(tokens.residual)
    group_size = _group_size(features, len(tiles), features_at_once(tiles))
    groups, order = triton.cdiv(features, group_size), columns.order(group_size)
    maxima = x.new_empty(len(tiles) * TILE, groups)
    state = [getattr(tokens, field.name) for field in fields(tokens) if field.name not in ("x", "residual")]
    limits = rules.tolerance, greedy.ROUNDING * torch.finfo(x.dtype).eps, greedy.DEPENDENT[x.element_size()]
    for step in range(first, first + count):
        columns.fill_maxima(tiles, order, None, maxima, group_size, rules.signed)
        _take_step[(len(x),)](
            maxima, x, tokens.residual, tiles, *columns, *state, x.shape[1], features, groups, rules.k, step, *limits,
            degree, order is not None, triton.next_power_of_2(degree), rules.signed, places, tokens.refused.shape[1],
            group_size, min(GROUPS_AT_ONCE, triton.next_power_of_2(groups)),
            min(COORDINATES_AT_ONCE, triton.next_power_of_2(x.shape[1])), TILE,
            num_warps=min(16, max(x.element_size(), places * places // KEPT_PER_WARP)), **UNFUSED,
        )  # fmt: skip


def pursue(
    x: Float[Tensor, "batch m"], columns: Columns, rules: greedy.Rules
) -> tuple[Float[Tensor, "batch k"], Int[Tensor, "batch k"]]:
    """Codes for unit columns by orthogonal matching pursuit, like `greedy.orthogonal_matching_pursuit`.

    Where the textbook loop factors a Gram matrix anew at every step, its inverse is updated here; so codes, and which
    of two nearly equal features is taken, can differ by rounding.
    """
    check_device(x, columns.values, columns.rows)
    columns, number = columns.by_length()
    tokens = _Tokens.begin(x, rules.k)
    step, last = 0, greedy.PICKS_PER_FEATURE * rules.k
    everybody = going = torch.arange(len(x), device=x.device)
    with device_of(x):
        # Most have finished after k steps. Those who dropped a column or were refused one go on among themselves.
        while len(going) > 0 and step < last:
            count = min(last - step, rules.k if step == 0 else rules.k // 8 + 1)
            some = tokens if going is everybody else tokens.of(going)
            _take_steps(some, columns, rules, step, count)
            if some is not tokens:
                tokens.put(going, some)
            step += count
            going = tokens.going.nonzero()[:, 0]
    codes, indices = tokens.in_order(rules.k)
    return codes, indices if number is None else number[indices]
