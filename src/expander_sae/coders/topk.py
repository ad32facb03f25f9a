"""TopK: one product with the dictionary, the k largest entries kept."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from expander_sae.checks import at_least
from expander_sae.coders.base import OneShotCoder
from expander_sae.dictionaries import Codes, Dictionary


@dataclass(frozen=True)
class TopK(OneShotCoder):
    """One-shot codes: the k largest correlations themselves, cut at zero unless signed.

    Costs one `select`, the cheapest there is. Differentiable, so it can be trained through. Needs columns (or an
    encoder) trained for it: on a given dictionary it finds fewer of the right features than a pursuit.
    """

    k: int
    """Features per token."""
    signed: bool = False
    """Keep the largest by magnitude, with their signs."""

    def __post_init__(self) -> None:
        at_least("k", self.k, 1)

    def __call__(
        self, dictionary: Dictionary, x: Float[Tensor, "*batch m"], bias: Float[Tensor, " n"] | None = None
    ) -> Codes:
        codes = dictionary.select(x, self.k, bias, self.signed)
        return codes if self.signed else Codes(codes.values.relu(), codes.indices, codes.n)
