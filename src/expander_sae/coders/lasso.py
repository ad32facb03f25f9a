"""The lasso, 1/2 |x - W codes|^2 + penalty * sum |codes|: what its solvers share."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from expander_sae.checks import at_least
from expander_sae.coders.base import Coder, code_in_chunks, largest
from expander_sae.dictionaries import Codes, Dictionary
from expander_sae.errors import ExpanderError

ARRAYS = 12
"""Arrays [chunk, n] that a solver holds at a time."""


@dataclass(frozen=True)
class LassoCoder(Coder):
    """Codes that minimise 1/2 |x - W codes|^2 + penalty * sum |codes|, up to a gap that is known, not guessed."""

    penalty: float
    """Share of the token's largest useful penalty, the one at which its codes become zero."""
    iterations: int = 1000
    """Iterations per token at most."""
    gap: float = 1e-4
    """Stop a token once its objective is proved to be this close to the best, as a share of that of zero codes."""
    k: int | None = None
    """Keep only this many features per token, the largest codes."""
    refit: bool = False
    """Fit the k features by least squares (non-negative unless signed), which undoes the penalty's shrinkage."""
    signed: bool = False
    """Allow negative codes."""

    def __post_init__(self) -> None:
        if not 0 < self.penalty <= 1:
            raise ExpanderError(f"penalty must be above 0 and at most 1, not {self.penalty}.")
        at_least("iterations", self.iterations, 1)
        at_least("gap", self.gap, 0)
        if self.k is not None:
            at_least("k", self.k, 1)
        elif self.refit:
            raise ExpanderError("refit needs k, the number of features to fit.")

    def __call__(self, dictionary: Dictionary, x: Float[Tensor, "*batch m"]) -> Codes:
        def solve(chunk: Tensor) -> tuple[Tensor, Tensor]:
            penalty = self.penalty * largest_penalty(dictionary.correlate(chunk), self.signed)
            codes = self._minimise(dictionary, chunk, penalty)
            codes = largest(codes, self.k or max(1, int(codes.l0.max())))
            return (refitted(dictionary, chunk, codes, self.signed) if self.refit else codes.values), codes.indices

        return code_in_chunks(dictionary, x, self.k, ARRAYS * dictionary.n, solve)

    @abstractmethod
    def _minimise(self, dictionary: Dictionary, x: Float[Tensor, "batch m"], penalty: Float[Tensor, " batch"]) -> Codes:
        """The codes of a chunk of tokens, each with a penalty of its own."""


def refitted(
    dictionary: Dictionary, x: Float[Tensor, "batch m"], codes: Codes, signed: bool
) -> Float[Tensor, "batch k"]:
    """The least-squares values of the features that the codes use."""
    columns = dictionary.unit_columns(x.dtype)
    scale = columns.scale[codes.indices]
    unit = torch.where(scale > 0, codes.values / scale, 0.0)
    return columns.fit(x, unit, codes.indices, signed=signed) * scale


def largest_penalty(correlations: Float[Tensor, "batch n"], signed: bool) -> Float[Tensor, " batch"]:
    """The penalty from which on a token's codes are zero; zero itself if they are zero without any penalty."""
    return (correlations.abs() if signed else correlations.clamp(min=0)).amax(dim=1)


def soft_threshold(values: Tensor, threshold: Tensor, signed: bool) -> Tensor:
    """Values moved towards zero by the threshold, and stopped there."""
    if signed:
        return values.sign() * (values.abs() - threshold).clamp(min=0)
    return (values - threshold).clamp(min=0)


def duality_gap(
    residual_energy: Float[Tensor, " batch"],
    correlations: Float[Tensor, "batch n"],
    codes: Float[Tensor, "batch n"],
    penalty: Float[Tensor, " batch"],
    signed: bool,
) -> Float[Tensor, " batch"]:
    """How far the objective of the codes is above the minimum, at most; correlations are those of their residual.

    The dual point is the residual, shrunk by s until all its correlations are within the penalty. The gap is written
    as (1 - s)^2 / 2 |residual|^2 + sum |code| (penalty - s sign(code) correlation): no term is negative, so nothing
    cancels, and the gap can be trusted far below the rounding of the objective itself.
    """
    largest = largest_penalty(correlations, signed)
    shrinkage = penalty / torch.maximum(largest, penalty).clamp(min=torch.finfo(penalty.dtype).tiny)
    # A token with no penalty has no use for any column, and its residual is dual as it is.
    shrinkage = torch.where(largest > penalty, shrinkage, 1.0)
    slack = penalty[:, None] * codes.abs() - shrinkage[:, None] * codes * correlations
    return (1 - shrinkage).square() / 2 * residual_energy + slack.clamp(min=0).sum(dim=1)
