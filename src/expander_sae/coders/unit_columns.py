"""A dictionary with its columns at unit norm, and least squares on some of them."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from expander_sae.dictionaries import Dictionary
from expander_sae.dictionaries.base import UnitColumns
from expander_sae.kernels.greedy import DEPENDENT
from expander_sae.kernels.refit import least_squares


@dataclass(frozen=True)
class FittingColumns(UnitColumns):
    """Unit columns that can be fitted: what counts as linearly dependent then does not depend on a column's scale."""

    def fit(
        self,
        x: Float[Tensor, "batch m"],
        values: Float[Tensor, "batch k"],
        indices: Int[Tensor, "batch k"],
        *,
        signed: bool,
    ) -> Float[Tensor, "batch k"]:
        """The least-squares codes of each token's nonzero values, non-negative unless signed; zeros stay zero."""
        scale = self.scale[indices]
        gram = self.dictionary.gram(indices, x.dtype) * scale[:, :, None] * scale[:, None, :]
        target = self.dictionary.correlate_at(x, indices) * scale
        dependent = DEPENDENT[x.element_size()]
        return least_squares(gram, target, values, values != 0, signed=signed, dependent=dependent)


def fitting_columns(dictionary: Dictionary, x: Float[Tensor, "batch m"]) -> FittingColumns:
    """The dictionary's columns at unit norm, in x's precision."""
    return FittingColumns(dictionary, dictionary.inverse_norms(x.dtype))
