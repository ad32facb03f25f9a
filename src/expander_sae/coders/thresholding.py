"""Hard thresholding: what NIHT and HTP share. Columns are taken at unit norm here, so their scale does not matter."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from expander_sae.dictionaries import Codes
from expander_sae.dictionaries.base import ScaledColumns

MARGIN = 0.01
"""How far below the longest safe step a step that changes the support must stay."""
SHORTENING = 0.5
"""What a step that is too long is multiplied by."""
ATTEMPTS = 40
"""Lengths tried for one step: the last is a million millionth of the first."""


class Iterate(NamedTuple):
    """Codes of every token, for unit columns, and what they leave of it."""

    values: Float[Tensor, "batch k"]
    indices: Int[Tensor, "batch k"]
    residual: Float[Tensor, "batch m"]

    @property
    def energy(self) -> Float[Tensor, " batch"]:
        """The squared norm of what is left."""
        return self.residual.square().sum(dim=1)

    def to_dense(self, n: int) -> Float[Tensor, "batch n"]:
        """All n codes."""
        return Codes(self.values, self.indices, n).to_dense()

    def replaced(self, mask: Bool[Tensor, " batch"], other: Iterate) -> Iterate:
        """The other iterate for the tokens of the mask."""
        return Iterate(*(torch.where(mask[:, None], new, old) for new, old in zip(other, self, strict=True)))


def start(x: Float[Tensor, "batch m"], k: int) -> Iterate:
    """The iterate that uses no feature."""
    values = x.new_zeros(x.shape[0], k)
    return Iterate(values, values.long(), x)


def keep_largest(
    dense: Float[Tensor, "batch n"], k: int, signed: bool
) -> tuple[Float[Tensor, "batch k"], Int[Tensor, "batch k"]]:
    """The best approximation with k entries (non-negative ones unless signed): values and indices, ties to any."""
    allowed = dense if signed else dense.clamp(min=0)
    indices = allowed.abs().topk(k, dim=1).indices
    return allowed.gather(1, indices), indices


def exact_step(
    columns: ScaledColumns, values: Float[Tensor, "batch k"], indices: Int[Tensor, "batch k"]
) -> Float[Tensor, " batch"]:
    """The length of the best step along a sparse gradient."""
    image = columns.synthesize(values, indices).square().sum(dim=1)
    return torch.where(image > 0, values.square().sum(dim=1) / image, 1.0)


def descend(
    columns: ScaledColumns,
    x: Float[Tensor, "batch m"],
    at: Iterate,
    gradient: Float[Tensor, "batch n"],
    step: Float[Tensor, " batch"],
    moving: Bool[Tensor, " batch"],
    signed: bool,
) -> tuple[Iterate, Bool[Tensor, " batch"]]:
    """One thresholded gradient step of the moving tokens, shortened until it is sure to help, and who took one.

    With t the step's length, D the change of the codes and t |W D|^2 < |D|^2, the error falls, because the
    thresholded point is at least as near to `codes + t gradient` as the codes were.
    """
    n = columns.dictionary.n
    old, k = at.to_dense(n), at.values.shape[1]
    result, moved, waiting = at, torch.zeros_like(moving), moving
    for _ in range(ATTEMPTS):
        values, indices = keep_largest(old + step[:, None] * gradient, k, signed)
        new = Iterate(values, indices, x - columns.synthesize(values, indices))
        dense = new.to_dense(n)
        same_support = ((dense != 0) == (old != 0)).all(dim=1)
        image = (new.residual - at.residual).square().sum(dim=1)
        safe = same_support | (step * image <= (1 - MARGIN) * (dense - old).square().sum(dim=1))
        # Rounding can spoil a safe step near the end; a token that it spoils is as good as it gets.
        taken = waiting & safe & (new.energy < at.energy)
        result, moved, waiting = result.replaced(taken, new), moved | taken, waiting & ~safe
        if not waiting.any():
            break
        step = step * SHORTENING
    return result, moved
