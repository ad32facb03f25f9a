"""Matching pursuit: take the best column, subtract it, repeat; the orthogonal one refits all columns every time."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from expander_sae.checks import at_least
from expander_sae.coders.base import Coder
from expander_sae.dictionaries import Codes, Dictionary
from expander_sae.kernels import Rules


@dataclass(frozen=True)
class MatchingPursuit(Coder):
    """Greedy codes without refitting; cheap and local, may take a column twice.

    Costs one correlation of x, then per step a search over n correlations and, on an expander dictionary, about
    d*d*n/m multiply-adds. Use it where OMP is too slow; its codes are a little worse.
    """

    k: int
    """Steps per token."""
    tolerance: float = 0.0
    """Stop a token once its residual is below this share of its norm."""
    signed: bool = False
    """Allow negative codes."""

    def __post_init__(self) -> None:
        at_least("k", self.k, 1)
        at_least("tolerance", self.tolerance, 0)

    def __call__(self, dictionary: Dictionary, x: Float[Tensor, "*batch m"]) -> Codes:
        return dictionary.pursue(x, Rules(self.k, self.signed, self.tolerance), orthogonal=False)


@dataclass(frozen=True)
class OMP(Coder):
    """Greedy codes, refitted by least squares (non-negative least squares unless signed) after every step.

    Costs one correlation of x, then per step a search over n correlations, a row of a Cholesky factor and, on an
    expander dictionary, an update of the few correlations that the step changed. The best codes for their price on any
    dictionary; columns that depend on those already taken are passed over.
    """

    k: int
    """Features per token at most."""
    tolerance: float = 0.0
    """Stop a token once its residual is below this share of its norm."""
    signed: bool = False
    """Allow negative codes."""

    def __post_init__(self) -> None:
        at_least("k", self.k, 1)
        at_least("tolerance", self.tolerance, 0)

    def __call__(self, dictionary: Dictionary, x: Float[Tensor, "*batch m"]) -> Codes:
        return dictionary.pursue(x, Rules(self.k, self.signed, self.tolerance), orthogonal=True)
