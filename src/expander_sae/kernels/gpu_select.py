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

import torch
from jaxtyping import Float, Int
from torch import Tensor

from expander_sae.kernels.gpu_correlate import (
    BLOCK_SIZE,
    BLOCK_WARPS,
    UNFUSED,
    check_device,
    correlate_block,
    grid,
    tile_size,
    transposed,
)
from expander_sae.kernels.gpu_language import tl, triton

WORKSPACE_BYTES = 256 << 20
"""Memory of a call beside its inputs and outputs; a batch that would need more is done in parts."""

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
    features: tl.tensor,
    groups: tl.tensor,
    group_size: tl.tensor,
    DEGREE: tl.constexpr,
    SIGNED: tl.constexpr,
    GROUPS: tl.constexpr,
    TOKENS: tl.constexpr,
) -> None:
    """maxima[token, group], of magnitudes if SIGNED. A warp owns its groups and loops over their members, so that no
    maximum crosses threads."""
    tile = tl.program_id(1).to(tl.int64)
    tokens = tile * TOKENS + tl.arange(0, TOKENS)
    x += tile * width * TOKENS
    for first in range(tl.program_id(0) * GROUPS, groups, tl.num_programs(0) * GROUPS):
        group = first + tl.arange(0, GROUPS)
        best = tl.full((GROUPS, TOKENS), float("-inf"), dtype=bias.dtype.element_ty)
        for member in range(group_size):
            # Past the end the last feature is scored again: its group does not mind, and no load needs a mask.
            feature = tl.minimum(group * group_size + member, features - 1)
            score = correlate_block(x, values, rows, feature, TOKENS, DEGREE, bias.dtype.element_ty)
            score += tl.load(bias + feature)[:, None]
            best = tl.maximum(best, tl.abs(score) if SIGNED else score)
        # Turned round before it is stored, so that neighbouring lanes write neighbouring groups.
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
    score = correlate_block(x + token * width, values, rows, feature, 1, DEGREE, bias.dtype.element_ty)
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


def _members_of_groups(
    x: Float[Tensor, "batch m"],
    values: Float[Tensor, "n d"],
    rows: Int[Tensor, "n d"],
    bias: Float[Tensor, " n"],
    chosen: Int[Tensor, "batch k"],
    group_size: int,
    signed: bool,
) -> Float[Tensor, "batch members"]:
    """The scores, with their signs, of all members of the chosen groups."""
    batch, k = chosen.shape
    members = k * group_size
    scores = bias.new_empty(batch, members)
    blocks = triton.cdiv(members, MEMBERS_AT_ONCE)
    _scores_of_members[(batch, blocks)](
        x, x.shape[1], values, rows, bias, chosen, scores, values.shape[0], k, group_size,
        values.shape[1], signed, MEMBERS_AT_ONCE, num_warps=4, **UNFUSED,
    )  # fmt: skip
    return scores


def _maxima(
    x: Float[Tensor, "batch m"],
    values: Float[Tensor, "n d"],
    rows: Int[Tensor, "n d"],
    bias: Float[Tensor, " n"],
    group_size: int,
    signed: bool,
) -> Float[Tensor, "batch groups"]:
    """The largest score (or magnitude, if signed) in every group."""
    features, degree = values.shape
    tile = tile_size(x.shape[1], x.element_size())
    turned = transposed(x, tile)
    groups, groups_at_once = triton.cdiv(features, group_size), BLOCK_SIZE // tile
    maxima = bias.new_empty(turned.shape[1], groups)
    _maxima_of_groups[grid(turned.shape[1] // tile, triton.cdiv(groups, groups_at_once))](
        turned, turned.shape[1], values, rows, bias, maxima, features, groups, group_size,
        degree, signed, groups_at_once, tile, num_warps=BLOCK_WARPS, **UNFUSED,
    )  # fmt: skip
    return maxima[: x.shape[0]]


def _tokens_at_once(x: Float[Tensor, "batch m"], features: int, k: int, group_size: int, element_bytes: int) -> int:
    """Tokens whose transpose, group maxima and candidates fit into the workspace."""
    scores = triton.cdiv(features, group_size) + k * group_size
    return max(1, WORKSPACE_BYTES // (x.shape[1] * x.element_size() + scores * element_bytes))


def select(
    x: Float[Tensor, "batch m"],
    values: Float[Tensor, "n d"],
    rows: Int[Tensor, "n d"],
    k: int,
    bias: Float[Tensor, " n"],
    signed: bool,
) -> tuple[Float[Tensor, "batch k"], Int[Tensor, "batch k"]]:
    """(values [batch, k], indices [batch, k]) like `reference.select`, from contiguous tensors.

    Sums and results have the precision of `bias`, float32 or float64; x and values may be stored in less.
    """
    check_device(x, values, rows, bias)
    batch, features = x.shape[0], values.shape[0]
    group_size = 1 << int(math.log2(features / k) / 2)
    step = _tokens_at_once(x, features, k, group_size, bias.element_size())
    best_values = bias.new_empty(batch, k)
    best_indices = torch.empty(batch, k, dtype=torch.int64, device=x.device)
    for start in range(0, batch, step):
        tokens = x[start : start + step]
        chosen = _largest(_maxima(tokens, values, rows, bias, group_size, signed), k, signed)
        scores = _members_of_groups(tokens, values, rows, bias, chosen, group_size, signed)
        positions = _largest(scores, k, signed).long()
        indices = chosen.long().gather(1, positions // group_size) * group_size + positions % group_size
        scores = scores.gather(1, positions)
        # Candidates come in the order of their features, so a stable sort leaves ties to the lowest.
        order = (scores.abs() if signed else scores).sort(dim=1, descending=True, stable=True).indices
        best_values[start : start + step] = scores.gather(1, order)
        best_indices[start : start + step] = indices.gather(1, order)
    return best_values, best_indices
