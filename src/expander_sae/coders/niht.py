"""Normalised iterative hard thresholding: a gradient step, the k largest entries kept, repeat."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from expander_sae.checks import at_least
from expander_sae.coders.base import Coder
from expander_sae.coders.chunks import code_in_chunks
from expander_sae.coders.thresholding import descend, exact_step, keep_largest, start
from expander_sae.dictionaries import Codes, Dictionary


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
