"""`select` on GPUs: a tournament of groups of features, exact whatever the scores are, in a fixed number of launches.

Neighbouring features form groups of g, a power of two near sqrt(n / k).

1. The maximum of every group, for every token: all n correlations are made, but only n / g numbers are written.
2. The k groups with the largest maxima, ties to the lower group. They hold the k best features: if one were in another
   group, each of those k groups would have a member that ranks before it.
3. The scores of all members of those k groups: k * g / n of the work of step 1.
4. The k best of them, put in order.

Steps 2 and 4 find the k-th largest of a list by bisection over the bits of its order-preserving integer image, which
costs the same for any k and any scores, then keep what is above it and the first of what equals it. There are no
thresholds to guess, no lists that could overflow and no atomics: n / g + k * g numbers per token are the workspace.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor, nn

from expander_sae.kernels.gpu.correlate import (
    BLOCK_LAUNCH,
    TILE,
    UNFUSED,
    check_device,
    correlate_block,
    device_of,
    features_at_once,
    longest,
    splits_of,
    tiled,
)

WORKSPACE_BYTES = 256 << 20
"""Memory of a call beside its inputs and outputs; a batch that would need more is done in parts."""

MEMBERS_AT_ONCE = 256
"""Members of chosen groups that a program of step 3 scores: two for every thread. A token has k * g, often 512."""

KEYS_AT_ONCE = 4096
"""Scores that a program of steps 2 and 4 holds at once, mostly a token's whole list; it then reads them only once."""

KEYS_PER_WARP = 1024
"""32 for every thread. One warp alone needs no barrier when it counts, which is most of what it does."""


@triton.jit(do_not_specialize=["features", "groups", "group_size", "splits"])
def maxima_of_groups(
    x: tl.tensor,
    width: tl.tensor,
    values: tl.tensor,
    rows: tl.tensor,
    lengths: tl.tensor,
    order: tl.tensor,
    bias: tl.tensor,
    maxima: tl.tensor,
    features: tl.tensor,
    groups: tl.tensor,
    group_size: tl.tensor,
    splits: tl.tensor,
    DEGREE: tl.constexpr,
    UNEVEN: tl.constexpr,
    SIGNED: tl.constexpr,
    BIASED: tl.constexpr,
    GROUPS: tl.constexpr,
    TOKENS: tl.constexpr,
) -> None:
    """maxima[token, group], of magnitudes if SIGNED.

    A thread owns its groups and loops over their members, so that no maximum crosses threads. UNEVEN columns are done
    as far as the longest that is done with them, and `order` puts groups of like lengths together.
    """
    tile = (tl.program_id(0) // splits).to(tl.int64)
    tokens = tile * TOKENS + tl.arange(0, TOKENS)
    x += tile * width * TOKENS
    for first in range(tl.program_id(0) % splits * GROUPS, groups, splits * GROUPS):
        place = first + tl.arange(0, GROUPS)
        group = tl.load(order + tl.minimum(place, groups - 1)) if UNEVEN else place
        best = tl.full((GROUPS, TOKENS), float("-inf"), dtype=maxima.dtype.element_ty)
        for member in range(group_size):
            # Behind the last feature it is scored again: no load needs a mask, and a maximum does not mind.
            feature = tl.minimum(group * group_size + member, features - 1)
            entry = feature.to(tl.int64) * DEGREE
            degree = longest(lengths, feature, DEGREE, UNEVEN)
            score = correlate_block(x, values + entry, rows + entry, degree, UNEVEN, TOKENS, maxima.dtype.element_ty)
            if BIASED:
                score += tl.load(bias + feature)[:, None]
            best = tl.maximum(best, tl.abs(score) if SIGNED else score)
        # Transposed before it is stored, so that neighbouring lanes write neighbouring groups.
        target = maxima + tokens[:, None] * groups + group[None, :]
        tl.store(target, tl.trans(best), mask=(place < groups)[None, :])


@triton.jit(do_not_specialize=["features", "k", "group_size"])
def _scores_of_members(
    x: tl.tensor,
    width: tl.tensor,
    values: tl.tensor,
    rows: tl.tensor,
    lengths: tl.tensor,
    bias: tl.tensor,
    chosen: tl.tensor,
    scores: tl.tensor,
    features: tl.tensor,
    k: tl.tensor,
    group_size: tl.tensor,
    DEGREE: tl.constexpr,
    UNEVEN: tl.constexpr,
    SIGNED: tl.constexpr,
    MEMBERS: tl.constexpr,
) -> None:
    """scores[token, rank * group_size + member] for the k chosen groups of one token, features along the lanes."""
    token = tl.program_id(0).to(tl.int64)
    position = tl.program_id(1) * MEMBERS + tl.arange(0, MEMBERS)
    inside = position < k * group_size
    group = tl.load(chosen + token * k + position // group_size, mask=inside, other=0)
    feature = group * group_size + position % group_size
    real = feature < features
    feature = tl.minimum(feature, features - 1)
    entry = feature.to(tl.int64) * DEGREE
    degree = longest(lengths, feature, DEGREE, UNEVEN)
    score = correlate_block(x + token * width, values + entry, rows + entry, degree, UNEVEN, 1, bias.dtype.element_ty)
    score += tl.load(bias + feature)[:, None]
    # Places behind the last feature must not win. They are the last ones of a token, so they also lose every tie.
    score = tl.where(real[:, None], score, 0.0 if SIGNED else float("-inf"))
    tl.store(scores + token * k * group_size + position[:, None], score, mask=inside[:, None])


@triton.jit
def _ordered(score: tl.tensor, SIGNED: tl.constexpr, INTEGER: tl.constexpr) -> tl.tensor:
    """Integers in the order of the scores, or of their magnitudes if SIGNED."""
    score = tl.abs(score) if SIGNED else score
    score = tl.where(score == 0, 0.0, score)  # -0.0 and 0.0 are a tie
    bits = score.to(INTEGER, bitcast=True)
    lowest = tl.full((), 1, INTEGER) << (INTEGER.primitive_bitwidth - 1)
    return tl.where(bits < 0, bits ^ ~lowest, bits)


@triton.jit
def _keys(
    scores: tl.tensor, position: tl.tensor, width: tl.tensor, SIGNED: tl.constexpr, INTEGER: tl.constexpr
) -> tl.tensor:
    """The ordered integers of scores[position], the smallest of all behind the end."""
    score = tl.load(scores + position, mask=position < width, other=0.0)
    lowest = tl.full((), 1, INTEGER) << (INTEGER.primitive_bitwidth - 1)
    return tl.where(position < width, _ordered(score, SIGNED, INTEGER), lowest)


@triton.jit(do_not_specialize=["k"])
def _positions_of_largest(
    scores: tl.tensor,
    positions: tl.tensor,
    width: tl.tensor,
    k: tl.tensor,
    SIGNED: tl.constexpr,
    INTEGER: tl.constexpr,
    BLOCK: tl.constexpr,
    WHOLE: tl.constexpr,
) -> None:
    """positions[token, k] of the k largest of scores[token, width], ascending; of equal ones the first are taken.

    WHOLE says that a list is no longer than BLOCK, so that its keys stay in registers.
    """
    token = tl.program_id(0).to(tl.int64)
    scores += token * width
    one = tl.full((), 1, INTEGER)
    limit = one << (INTEGER.primitive_bitwidth - 1)
    above = tl.full((), 0, tl.int32)
    whole = _keys(scores, tl.arange(0, BLOCK), width, SIGNED, INTEGER)
    for step in range(INTEGER.primitive_bitwidth):
        # Exclusive or sets a bit that is not set yet; in the sign bit, where it clears it, that is also the upper half.
        middle = limit ^ (one << (INTEGER.primitive_bitwidth - 1 - step))
        count = tl.sum((whole >= middle).to(tl.int32), axis=0)
        if not WHOLE:
            for start in range(BLOCK, width, BLOCK):
                keys = _keys(scores, start + tl.arange(0, BLOCK), width, SIGNED, INTEGER)
                count += tl.sum((keys >= middle).to(tl.int32), axis=0)
        limit = tl.where(count >= k, middle, limit)
        above = tl.where(count >= k, above, count)
    # `limit` is the k-th largest key, and `above` keys exceed it: the last count of those that fell short of k.
    positions += token * k
    written = tl.full((), 0, tl.int32)
    equals_left = k - above
    for start in range(0, width, BLOCK):
        position = start + tl.arange(0, BLOCK)
        keys = _keys(scores, position, width, SIGNED, INTEGER)
        equal = (keys == limit).to(tl.int32)
        keep = (keys > limit) | ((equal > 0) & (tl.cumsum(equal, axis=0) <= equals_left))
        kept = keep.to(tl.int32)
        tl.store(positions + written + tl.cumsum(kept, axis=0) - 1, position, mask=keep)
        written += tl.sum(kept, axis=0)
        equals_left -= tl.sum(equal, axis=0)


@triton.jit(do_not_specialize=["k", "group_size"])
def _in_order(
    scores: tl.tensor,
    width: tl.tensor,
    positions: tl.tensor,
    chosen: tl.tensor,
    best_values: tl.tensor,
    best_indices: tl.tensor,
    k: tl.tensor,
    group_size: tl.tensor,
    SIGNED: tl.constexpr,
    INTEGER: tl.constexpr,
    K: tl.constexpr,
) -> None:
    """The k best scores and their features, from the best score to the last; of equal ones the first feature is first.

    The place of one is the number of those that come before it. They are compared one by one with all k.
    """
    token = tl.program_id(0).to(tl.int64)
    scores, positions, chosen = scores + token * width, positions + token * k, chosen + token * k
    slot = tl.arange(0, K)
    position = tl.load(positions + slot, mask=slot < k, other=0)
    score = tl.load(scores + position)
    key = _ordered(score, SIGNED, INTEGER)
    place = tl.zeros((K,), dtype=tl.int32)
    for other in range(k):
        its_key = _ordered(tl.load(scores + tl.load(positions + other)), SIGNED, INTEGER)
        place += ((its_key > key) | ((its_key == key) & (other < slot))).to(tl.int32)
    feature = tl.load(chosen + position // group_size).to(tl.int64) * group_size + position % group_size
    tl.store(best_values + token * k + place, score, mask=slot < k)
    tl.store(best_indices + token * k + place, feature, mask=slot < k)


class Columns(NamedTuple):
    """What the kernels read of a dictionary: entries of columns, zeros behind the last of one."""

    values: Float[Tensor, "n d"]
    rows: Int[Tensor, "n d"]
    lengths: Int[Tensor, " n"] | None
    """Entries of every column, where some have fewer than d."""

    def by_length(self) -> tuple[Columns, Int[Tensor, " n"] | None]:
        """The same columns from the shortest to the longest, and which each of them was, if lengths differ.

        A group is read as far as its longest column, so it costs least among its like.
        """
        if self.lengths is None:
            return self, None
        number = self.lengths.argsort(stable=True)
        return Columns(self.values[number], self.rows[number], self.lengths[number]), number

    def order(self, group_size: int) -> Int[Tensor, " groups"] | None:
        """Groups by the length of their longest column, if lengths differ."""
        if self.lengths is None:
            return None
        missing = -len(self.lengths) % group_size
        longest_of_groups = nn.functional.pad(self.lengths, (0, missing)).reshape(-1, group_size).amax(dim=1)
        return longest_of_groups.argsort().to(torch.int32)

    def fill_maxima(
        self,
        tiles: Float[Tensor, "tiles m tile"],
        order: Int[Tensor, " groups"] | None,
        bias: Float[Tensor, " n"] | None,
        maxima: Float[Tensor, "tokens groups"],
        group_size: int,
        signed: bool,
    ) -> None:
        """Write down the largest score (or magnitude, if signed) of every group for every token of the tiles."""
        (features, degree), groups = self.values.shape, maxima.shape[1]
        at_once = features_at_once(tiles)
        splits = splits_of(triton.cdiv(groups, at_once), len(tiles))
        maxima_of_groups[(len(tiles) * splits,)](
            tiles, tiles.shape[1], *self, order, bias, maxima, features, groups, group_size, splits,
            degree, order is not None, signed, bias is not None, at_once, TILE, **BLOCK_LAUNCH, **UNFUSED,
        )  # fmt: skip


@dataclass(frozen=True)
class _Tournament:
    """Two rounds among the features of a dictionary: the best groups, then the best of their members."""

    columns: Columns
    bias: Float[Tensor, " n"]
    k: int
    signed: bool

    @cached_property
    def group_size(self) -> int:
        """The power of two at most sqrt(n / k), which makes the lists of both rounds about equally long."""
        return 1 << (math.isqrt(len(self.columns.values) // self.k).bit_length() - 1)

    @cached_property
    def groups(self) -> int:
        """Groups of features, the last of which may be short."""
        return int(triton.cdiv(len(self.columns.values), self.group_size))

    @cached_property
    def _order(self) -> Int[Tensor, " groups"] | None:
        return self.columns.order(self.group_size)

    @property
    def _integer(self) -> tl.dtype:
        """As long as a score."""
        return tl.int64 if self.bias.dtype == torch.float64 else tl.int32

    def maxima(self, x: Float[Tensor, "batch m"]) -> Float[Tensor, "batch groups"]:
        """The largest score (or magnitude, if signed) in every group."""
        maxima = self.bias.new_empty(triton.cdiv(len(x), TILE) * TILE, self.groups)
        self.columns.fill_maxima(tiled(x), self._order, self.bias, maxima, self.group_size, self.signed)
        return maxima[: len(x)]

    def scores(self, x: Float[Tensor, "batch m"], chosen: Int[Tensor, "batch k"]) -> Float[Tensor, "batch members"]:
        """The scores, with their signs, of all members of the chosen groups."""
        features, degree = self.columns.values.shape
        members = self.k * self.group_size
        scores = self.bias.new_empty(len(x), members)
        _scores_of_members[(len(x), triton.cdiv(members, MEMBERS_AT_ONCE))](
            x, x.shape[1], *self.columns, self.bias, chosen, scores, features, self.k, self.group_size,
            degree, self.columns.lengths is not None, self.signed, MEMBERS_AT_ONCE, num_warps=4, **UNFUSED,
        )  # fmt: skip
        return scores

    def largest(self, scores: Float[Tensor, "batch width"]) -> Int[Tensor, "batch k"]:
        """Positions of the k largest scores of every token, ascending, as int32."""
        batch, width = scores.shape
        positions = torch.empty(batch, self.k, dtype=torch.int32, device=scores.device)
        block = min(KEYS_AT_ONCE, max(KEYS_PER_WARP, triton.next_power_of_2(width)))
        _positions_of_largest[(batch,)](
            scores, positions, width, self.k, self.signed, self._integer, block, width <= block,
            num_warps=max(1, block // KEYS_PER_WARP),
        )  # fmt: skip
        return positions

    def fill(
        self, best_values: Float[Tensor, "batch k"], best_indices: Int[Tensor, "batch k"], x: Float[Tensor, "batch m"]
    ) -> None:
        """Write down the k best features of every token, sorted."""
        chosen = self.largest(self.maxima(x))
        scores = self.scores(x, chosen)
        _in_order[(len(x),)](
            scores, scores.shape[1], self.largest(scores), chosen, best_values, best_indices, self.k, self.group_size,
            self.signed, self._integer, triton.next_power_of_2(self.k), num_warps=1,
        )  # fmt: skip

    def tokens_at_once(self, x: Float[Tensor, "batch m"]) -> int:
        """Tokens whose tiles and lists fit into the workspace."""
        lists = (self.groups + self.k * self.group_size) * self.bias.element_size()
        return max(1, WORKSPACE_BYTES // (x.shape[1] * x.element_size() + lists))


def select(
    x: Tensor, values: Tensor, rows: Tensor, lengths: Tensor | None, k: int, bias: Tensor, signed: bool
) -> tuple[Tensor, Tensor]:
    """(values [batch, k], indices [batch, k]) like `reference.select`, from contiguous tensors.

    Sums and results have the precision of `bias`, float32 or float64; x and values may be stored in less.
    """
    check_device(x, values, rows, bias)
    tournament = _Tournament(Columns(values, rows, lengths), bias, k, signed)
    best_values = bias.new_empty(len(x), k)
    best_indices = torch.empty(len(x), k, dtype=torch.int64, device=x.device)
    step = tournament.tokens_at_once(x)
    with device_of(x):
        for start in range(0, len(x), step):
            part = slice(start, start + step)
            tournament.fill(best_values[part], best_indices[part], x[part])
    return best_values, best_indices
