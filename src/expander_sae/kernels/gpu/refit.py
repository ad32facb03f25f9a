"""What a GPU's pursuits share: least squares on the columns in use by their inverse Gram matrix, in registers."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from jaxtyping import Bool, Int
from torch import Tensor

KEPT_PER_WARP = 1024
"""Entries of the Gram matrix that a warp holds: 32 for every thread, and as many of its inverse."""


@triton.jit
def solved(inverse: tl.tensor, gram: tl.tensor, target: tl.tensor, used: tl.tensor) -> tl.tensor:
    """The least-squares codes of the columns in use, refined once; zero elsewhere."""
    codes = tl.sum(inverse * target[None, :], axis=1)
    left = tl.where(used, target - tl.sum(gram * codes[None, :], axis=1), 0.0)
    return codes + tl.sum(inverse * left[None, :], axis=1)


@triton.jit
def without_dropped(
    codes: tl.tensor,
    inverse: tl.tensor,
    gram: tl.tensor,
    target: tl.tensor,
    used: tl.tensor,
    new: tl.tensor,
    slot: tl.tensor,
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """Columns in use, inverse and codes when no code is negative: by walking from the old codes towards the new.

    What reaches zero on the way is dropped, and then there is a new aim, as Lawson and Hanson have it.
    """
    negative = used & (new <= 0)
    while tl.max(negative.to(tl.int32), axis=0) > 0:
        share = tl.where(negative, codes / tl.maximum(codes - new, 1e-37), float("inf"))
        shortest = tl.min(share, axis=0)
        dropped = negative & (share <= shortest)
        codes += tl.where(used, tl.minimum(shortest, 1.0) * (new - codes), 0.0)
        codes = tl.where(dropped, 0.0, codes)
        used = used & (dropped == 0)
        while tl.max(dropped.to(tl.int32), axis=0) > 0:  # the inverse without them, one after the other
            it = slot == tl.min(tl.where(dropped, slot, slot.shape[0]), axis=0)
            column = tl.sum(tl.where(it[None, :], inverse, 0.0), axis=1)
            inverse -= column[:, None] * column[None, :] / tl.sum(tl.where(it, column, 0.0), axis=0)
            inverse = tl.where(it[:, None] | it[None, :], 0.0, inverse)
            dropped = dropped & (it == 0)
        new = solved(inverse, gram, target, used)
        negative = used & (new <= 0)
    return used, inverse, new


@triton.jit
def length_of(lengths: tl.tensor, feature: tl.tensor, DEGREE: tl.constexpr, UNEVEN: tl.constexpr) -> tl.tensor:
    """Entries of columns."""
    if UNEVEN:
        return tl.load(lengths + feature)
    else:
        return DEGREE


def order_of(taken_at: Int[Tensor, "batch places"], taken: Bool[Tensor, "batch places"]) -> Int[Tensor, "batch places"]:
    """Places in the order of the steps at which columns were taken, those without a column behind them."""
    return taken_at.masked_fill(~taken, torch.iinfo(torch.int32).max).sort(dim=1, stable=True).indices
