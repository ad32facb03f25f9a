"""Hard thresholding pursuit: choose k features by a gradient step, fit them by least squares, repeat."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from expander_sae.checks import at_least
from expander_sae.coders.base import Coder
from expander_sae.coders.chunks import code_in_chunks
from expander_sae.coders.thresholding import Iterate, descend, exact_step, keep_largest, start
from expander_sae.dictionaries import Codes, Dictionary


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
