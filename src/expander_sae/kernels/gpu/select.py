"""`select` on GPUs: a tournament of groups of features, exact whatever the scores are, in a fixed number of launches.

Neighbouring features form groups of g, a power of two near sqrt(n / k).

1. The maximum of every group, for every token: all n correlations are made, but only n / g numbers are written.
2. The k groups with the largest maxima, ties to the lower group. They hold the k best features: if one were in another
   group, each of those k groups would have a member that ranks before it.
3. The scores of all members of those k groups: k * g / n of the work of step 1.
4. The k best of them, and one stable sort of those.

Steps 2 and 4 find the k-th largest of a list by bisection over the bits of its order-preserving integer image, which
costs the same for any k and any scores, then keep what is above it and the first of what equals it. There are no
thresholds to guess, no lists that could overflow and no atomics: n / g + k * g numbers per token are the workspace.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from expander_sae.kernels.gpu.correlate import (
    BLOCK_LAUNCH,
    BLOCK_SIZE,
    UNFUSED,
    check_device,
    correlate_block,
    device_of,
    splits_of,
    tile_size,
    tiled,
)

WORKSPACE_BYTES = 256 << 20
"""Memory of a call beside its inputs, a second copy of the dictionary and its outputs; a batch that would need more is
done in parts."""

MEMBERS_AT_ONCE = 256
"""Members of chosen groups that a program of step 3 scores: two for every thread. A token has k * g, often 512."""

SCORES_AT_ONCE = 1024
"""Scores of a list that a program of steps 2 and 4 compares at once: eight for every thread, mostly the whole list."""


@triton.jit
def _maxima_of_groups(
    x: tl.tensor,
    width: tl.tensor,
    values: tl.tensor,
    rows: tl.tensor,
    bias: tl.tensor,
    maxima: tl.tensor,
    groups: tl.tensor,
    group_size: tl.tensor,
    splits: tl.tensor,
    DEGREE: tl.constexpr,
    SIGNED: tl.constexpr,
    GROUPS: tl.constexpr,
    TOKENS: tl.constexpr,
) -> None:
    """maxima[token, group], of magnitudes if SIGNED, from columns in the order of `_by_member`.

    A thread owns its groups and loops over their members, so that no maximum crosses threads.
    """
    tile = (tl.program_id(0) // splits).to(tl.int64)
    tokens = tile * TOKENS + tl.arange(0, TOKENS)
    x += tile * width * TOKENS
    for first in range(tl.program_id(0) % splits * GROUPS, groups, splits * GROUPS):
        group = first + tl.arange(0, GROUPS)
        known = tl.minimum(group, groups - 1)  # no load needs a mask
        member_values, member_rows, member_bias = values + known, rows + known, bias + known
        best = tl.full((GROUPS, TOKENS), float("-inf"), dtype=bias.dtype.element_ty)
        for _ in range(group_size):
            score = correlate_block(x, member_values, member_rows, groups, TOKENS, DEGREE, bias.dtype.element_ty)
            score += tl.load(member_bias)[:, None]
            best = tl.maximum(best, tl.abs(score) if SIGNED else score)
            member_values += DEGREE * groups
            member_rows += DEGREE * groups
            member_bias += groups
        # Transposed before it is stored, so that neighbouring lanes write neighbouring groups.
        place = tokens[:, None] * groups + group[None, :]
        tl.store(maxima + place, tl.trans(best), mask=(group < groups)[None, :])


@triton.jit
def _scores_of_members(
    x: tl.tensor,
    width: tl.tensor,
    values: tl.tensor,
    rows: tl.tensor,
    bias: tl.tensor,
    chosen: tl.tensor,
    scores: tl.tensor,
    features: tl.tensor,
    k: tl.tensor,
    group_size: tl.tensor,
    DEGREE: tl.constexpr,
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
    score = correlate_block(x + token * width, values + entry, rows + entry, 1, 1, DEGREE, bias.dtype.element_ty)
    score += tl.load(bias + feature)[:, None]
    # Places behind the last feature must not win. They are the last ones of a token, so they also lose every tie.
    score = tl.where(real[:, None], score, 0.0 if SIGNED else float("-inf"))
    tl.store(scores + token * k * group_size + position[:, None], score, mask=inside[:, None])


@triton.jit
def _ordered(
    scores: tl.tensor, position: tl.tensor, width: tl.tensor, SIGNED: tl.constexpr, INTEGER: tl.constexpr
) -> tl.tensor:
    """Integers in the order of the scores (of their magnitudes if SIGNED), the smallest of all behind the end."""
    score = tl.load(scores + position, mask=position < width, other=0.0)
    score = tl.abs(score) if SIGNED else score
    score = tl.where(score == 0, 0.0, score)  # -0.0 and 0.0 are a tie
    bits = score.to(INTEGER, bitcast=True)
    lowest = tl.full((), 1, INTEGER) << (INTEGER.primitive_bitwidth - 1)
    return tl.where(position < width, tl.where(bits < 0, bits ^ ~lowest, bits), lowest)


@triton.jit
def _positions_of_largest(
    scores: tl.tensor,
    positions: tl.tensor,
    width: tl.tensor,
    k: tl.tensor,
    SIGNED: tl.constexpr,
    INTEGER: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """positions[token, k] of the k largest of scores[token, width], ascending; of equal ones the first are taken."""
    token = tl.program_id(0).to(tl.int64)
    scores += token * width
    one = tl.full((), 1, INTEGER)
    limit = one << (INTEGER.primitive_bitwidth - 1)
    above = tl.full((), 0, tl.int32)
    for step in range(INTEGER.primitive_bitwidth):
        # Exclusive or sets a bit that is not set yet; in the sign bit, where it clears it, that is also the upper half.
        middle = limit ^ (one << (INTEGER.primitive_bitwidth - 1 - step))
        count = tl.full((), 0, tl.int32)
        for start in range(0, width, BLOCK):
            keys = _ordered(scores, start + tl.arange(0, BLOCK), width, SIGNED, INTEGER)
            count += tl.sum((keys >= middle).to(tl.int32), axis=0)
        limit = tl.where(count >= k, middle, limit)
        above = tl.where(count >= k, above, count)
    # `limit` is the k-th largest key, and `above` keys exceed it: the last count of those that fell short of k.
    positions += token * k
    written = tl.full((), 0, tl.int32)
    equals_left = k - above
    for start in range(0, width, BLOCK):
        position = start + tl.arange(0, BLOCK)
        keys = _ordered(scores, position, width, SIGNED, INTEGER)
        equal = (keys == limit).to(tl.int32)
        keep = (keys > limit) | ((equal > 0) & (tl.cumsum(equal, axis=0) <= equals_left))
        kept = keep.to(tl.int32)
        tl.store(positions + written + tl.cumsum(kept, axis=0) - 1, position, mask=keep)
        written += tl.sum(kept, axis=0)
        equals_left -= tl.sum(equal, axis=0)


def _largest(scores: Float[Tensor, "batch width"], k: int, signed: bool) -> Int[Tensor, "batch k"]:
    """Positions of the k largest scores of every token, ascending, as int32."""
    batch, width = scores.shape
    positions = torch.empty(batch, k, dtype=torch.int32, device=scores.device)
    integer = tl.int64 if scores.dtype == torch.float64 else tl.int32
    _positions_of_largest[(batch,)](scores, positions, width, k, signed, integer, SCORES_AT_ONCE, num_warps=4)
    return positions


def _by_member(
    entries: Shaped[Tensor, "n *rest"], groups: int, group_size: int
) -> Shaped[Tensor, "members *rest groups"]:
    """What features have, with that of neighbouring groups side by side, where a warp finds it in one piece.

    The last feature is repeated until its group is full; a maximum does not mind.
    """
    missing = groups * group_size - len(entries)
    filled = torch.cat([entries, entries[-1:].expand(missing, *entries.shape[1:])])
    return filled.reshape(groups, group_size, *entries.shape[1:]).movedim(0, -1).contiguous()


@dataclass(frozen=True)
class _Tournament:
    """A dictionary laid out for both rounds: the best groups, then the best of their members."""

    values: Float[Tensor, "n d"]
    rows: Int[Tensor, "n d"]
    bias: Float[Tensor, " n"]
    k: int
    signed: bool

    @cached_property
    def group_size(self) -> int:
        """The power of two at most sqrt(n / k), which makes the lists of both rounds about equally long."""
        return 1 << (math.isqrt(len(self.values) // self.k).bit_length() - 1)

    @cached_property
    def groups(self) -> int:
        """Groups of features, the last of which may be short."""
        return int(triton.cdiv(len(self.values), self.group_size))

    @cached_property
    def _members(self) -> tuple[Tensor, Tensor, Tensor]:
        """Values [members, d, groups], rows [members, d, groups] and bias [members, groups]."""
        return (
            _by_member(self.values, self.groups, self.group_size),
            _by_member(self.rows, self.groups, self.group_size),
            _by_member(self.bias, self.groups, self.group_size),
        )

    def maxima(self, x: Float[Tensor, "batch m"]) -> Float[Tensor, "batch groups"]:
        """The largest score (or magnitude, if signed) in every group."""
        tile = tile_size(x.shape[1], x.element_size())
        tiles, groups_at_once = tiled(x, tile), BLOCK_SIZE // tile
        maxima = self.bias.new_empty(len(tiles) * tile, self.groups)
        splits = splits_of(triton.cdiv(self.groups, groups_at_once), len(tiles))
        _maxima_of_groups[(len(tiles) * splits,)](
            tiles, x.shape[1], *self._members, maxima, self.groups, self.group_size, splits,
            self.values.shape[1], self.signed, groups_at_once, tile, **BLOCK_LAUNCH, **UNFUSED,
        )  # fmt: skip
        return maxima[: len(x)]

    def scores(self, x: Float[Tensor, "batch m"], chosen: Int[Tensor, "batch k"]) -> Float[Tensor, "batch members"]:
        """The scores, with their signs, of all members of the chosen groups."""
        features, degree = self.values.shape
        members = self.k * self.group_size
        scores = self.bias.new_empty(len(x), members)
        _scores_of_members[(len(x), triton.cdiv(members, MEMBERS_AT_ONCE))](
            x, x.shape[1], self.values, self.rows, self.bias, chosen, scores, features, self.k, self.group_size,
            degree, self.signed, MEMBERS_AT_ONCE, num_warps=4, **UNFUSED,
        )  # fmt: skip
        return scores

    def best(self, x: Float[Tensor, "batch m"]) -> tuple[Float[Tensor, "batch k"], Int[Tensor, "batch k"]]:
        """The k best features of every token, sorted."""
        chosen = _largest(self.maxima(x), self.k, self.signed)
        scores = self.scores(x, chosen)
        positions = _largest(scores, self.k, self.signed).long()
        group, member = positions // self.group_size, positions % self.group_size
        indices = chosen.long().gather(1, group) * self.group_size + member
        scores = scores.gather(1, positions)
        # They come in the order of their features, so a stable sort leaves ties to the lowest.
        order = (scores.abs() if self.signed else scores).sort(dim=1, descending=True, stable=True).indices
        return scores.gather(1, order), indices.gather(1, order)

    def tokens_at_once(self, x: Float[Tensor, "batch m"]) -> int:
        """Tokens whose tiles and lists fit into the workspace."""
        lists = (self.groups + self.k * self.group_size) * self.bias.element_size()
        return max(1, WORKSPACE_BYTES // (x.shape[1] * x.element_size() + lists))


def select(x: Tensor, values: Tensor, rows: Tensor, k: int, bias: Tensor, signed: bool) -> tuple[Tensor, Tensor]:
    """(values [batch, k], indices [batch, k]) like `reference.select`, from contiguous tensors.

    Sums and results have the precision of `bias`, float32 or float64; x and values may be stored in less.
    """
    check_device(x, values, rows, bias)
    tournament = _Tournament(values, rows, bias, k, signed)
    best_values = bias.new_empty(len(x), k)
    best_indices = torch.empty(len(x), k, dtype=torch.int64, device=x.device)
    step = tournament.tokens_at_once(x)
    with device_of(x):
        for start in range(0, len(x), step):
            part = slice(start, start + step)
            best_values[part], best_indices[part] = tournament.best(x[part])
    return best_values, best_indices
