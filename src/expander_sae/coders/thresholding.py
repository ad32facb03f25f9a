"""Hard thresholding (NIHT and HTP): a gradient step, the k largest entries kept, and with HTP a fit of these; repeat.

Columns are taken at unit norm here, so their scale does not matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from expander_sae.checks import at_least
from expander_sae.coders.base import Coder, code_in_chunks
from expander_sae.dictionaries import Codes, Dictionary
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


@dataclass(frozen=True)
class NIHT(Coder):
    """Codes by gradient steps of adaptive length, each followed by keeping the k largest entries.

    Costs a product with the dictionary, in each direction, per iteration. The error never rises. Columns are scaled to
    unit norm inside, so codes do not depend on their scale. A baseline: its guarantees ask for columns that are nearly
    orthogonal, which sparse ones are not, and OMP is better for the same price.
    """

    k: int
    """Features per token at most."""
    iterations: int = 100
    """Steps per token at most."""
    tolerance: float = 0.0
    """Stop a token once its residual is below this share of its norm."""
    signed: bool = False
    """Allow negative codes."""

    def __post_init__(self) -> None:
        at_least("k", self.k, 1)
        at_least("iterations", self.iterations, 1)
        at_least("tolerance", self.tolerance, 0)

    def __call__(self, dictionary: Dictionary, x: Float[Tensor, "*batch m"]) -> Codes:
        return code_in_chunks(dictionary, x, self.k, 4 * dictionary.n, lambda chunk: self._solve(dictionary, chunk))

    def _solve(self, dictionary: Dictionary, x: Float[Tensor, "batch m"]) -> tuple[Tensor, Tensor]:
        columns = dictionary.unit_columns(x.dtype)
        at = start(x, self.k)
        goal = self.tolerance**2 * at.energy
        moving = at.energy > goal
        for _ in range(self.iterations):
            if not moving.any():
                break
            gradient = columns.correlate(at.residual)
            # The step is the best one along the gradient on the support, or on the support that it would start with.
            active = at.values != 0
            values, indices = keep_largest(gradient, self.k, self.signed)
            started = active.any(dim=1, keepdim=True)
            values = torch.where(started, gradient.gather(1, at.indices) * active, values)
            indices = torch.where(started, at.indices, indices)
            step = exact_step(columns, values, indices)
            at, moved = descend(columns, x, at, gradient, step, moving, self.signed)
            moving = moved & (at.energy > goal)
        return at.values * columns.scale[at.indices], at.indices


@dataclass(frozen=True)
class HTP(Coder):
    """Codes that are the least-squares fit of their k features, which a gradient step would choose again.

    Costs a product with the dictionary, in each direction, and a k by k solve per iteration, of which it takes a few.
    The error never rises. Columns are scaled to unit norm inside, so codes do not depend on their scale. It replaces
    many features at once, so it is quick where it works; where features overlap much, OMP finds more of the right ones.
    """

    k: int
    """Features per token at most."""
    iterations: int = 30
    """Choices of features per token at most."""
    tolerance: float = 0.0
    """Stop a token once its residual is below this share of its norm."""
    signed: bool = False
    """Allow negative codes."""

    def __post_init__(self) -> None:
        at_least("k", self.k, 1)
        at_least("iterations", self.iterations, 1)
        at_least("tolerance", self.tolerance, 0)

    def __call__(self, dictionary: Dictionary, x: Float[Tensor, "*batch m"]) -> Codes:
        elements = 4 * dictionary.n + 4 * self.k * self.k
        return code_in_chunks(dictionary, x, self.k, elements, lambda chunk: self._solve(dictionary, chunk))

    def _solve(self, dictionary: Dictionary, x: Float[Tensor, "batch m"]) -> tuple[Tensor, Tensor]:
        columns = dictionary.unit_columns(x.dtype)
        at = start(x, self.k)
        goal = self.tolerance**2 * at.energy
        moving = at.energy > goal
        for _ in range(self.iterations):
            if not moving.any():
                break
            gradient = columns.correlate(at.residual)
            # After a fit nothing is left of the gradient on the support, so its k largest entries set the step.
            step = exact_step(columns, *keep_largest(gradient, self.k, self.signed))
            chosen, moved = descend(columns, x, at, gradient, step, moving, self.signed)
            values = columns.fit(x, chosen.values, chosen.indices, signed=self.signed)
            fitted = Iterate(values, chosen.indices, x - columns.synthesize(values, chosen.indices))
            moving = moved & (fitted.energy < at.energy)
            at = at.replaced(moving, fitted)
            moving = moving & (at.energy > goal)
        return at.values * columns.scale[at.indices], at.indices
