"""The dense dictionary: m learned values per column; what every expander dictionary is measured against."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from expander_sae.dictionaries.base import Dictionary, UnitColumns, flatten
from expander_sae.dictionaries.codes import Codes
from expander_sae.errors import ExpanderError
from expander_sae.kernels import Rules, greedy
from expander_sae.kernels.columns import SparseColumns
from expander_sae.kernels.inputs import check_finite

GRAM_BYTES = 1 << 30
"""The largest Gram matrix [n, n] that a pursuit may keep."""


class DenseDictionary(Dictionary):
    """Column j is `values[j]`, all m entries of it; starts with random unit columns."""

    values: nn.Parameter

    def __init__(
        self,
        m: int,
        n: int,
        values: Float[Tensor, "n m"] | None = None,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if m < 1 or n < 1:
            raise ExpanderError(f"A dictionary needs a width and a number of features of at least 1, not {m} and {n}.")
        self.m, self.n = m, n
        if values is None:
            values = nn.functional.normalize(torch.randn(n, m, generator=generator), dim=1)
        if tuple(values.shape) != (n, m):
            raise ExpanderError(f"values must be [{n}, {m}], one row per column of W, not {list(values.shape)}.")
        self.values = nn.Parameter(values.detach().to(device=device, dtype=dtype or values.dtype).clone())

    def columns(self, indices: Int[Tensor, "*shape"]) -> SparseColumns:
        values = nn.functional.embedding(indices, self.values)
        return SparseColumns(torch.arange(self.m, device=self.device).expand(values.shape), values)

    def correlate(self, x: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch n"]:
        flatten(x, self.m)
        dtype = torch.promote_types(x.dtype, self.dtype)
        return x.to(dtype) @ self.values.to(dtype).T

    def select(
        self, x: Float[Tensor, "*batch m"], k: int, bias: Float[Tensor, " n"] | None = None, signed: bool = False
    ) -> Codes:
        """As for every dictionary, but it does hold all [batch, n] correlations: that is what dense costs."""
        if not 1 <= k <= self.n:
            raise ExpanderError(f"k must be between 1 and the number of features, {self.n}, not {k}.")
        check_finite("x", flatten(x, self.m).detach())
        scores = self.correlate(x)
        if bias is not None:
            scores = scores + bias
        indices = (scores.abs() if signed else scores).topk(k, dim=-1).indices
        return Codes(scores.gather(-1, indices), indices, self.n)

    def normalise_columns(self) -> None:
        with torch.no_grad():
            self.values.mul_(self.inverse_norms(self.dtype)[:, None])

    def norms(self) -> Float[Tensor, " n"]:
        return torch.linalg.vector_norm(self.values, dim=1)

    def to_dense(self) -> Float[Tensor, "m n"]:
        return self.values.T

    @property
    def learned_values(self) -> int:
        return self.n * self.m

    def _pursue(self, x: Float[Tensor, "batch m"], rules: Rules, orthogonal: bool) -> tuple[Tensor, Tensor]:
        # A Gram matrix turns a step from m*n into about k/2*n multiply-adds, once it has cost m*n*n.
        saved = x.shape[0] * rules.k * max(0, self.m - rules.k)
        affordable = self.n * self.n * x.element_size() <= GRAM_BYTES
        if not (affordable and saved > self.m * self.n):
            return super()._pursue(x, rules, orthogonal)
        scale = self.inverse_norms(x.dtype)
        unit = self.values.to(x.dtype) * scale[:, None]
        algorithm = greedy.orthogonal_matching_pursuit if orthogonal else greedy.matching_pursuit
        values, indices = algorithm(GramColumns(self, scale, unit @ unit.T), x, rules)
        return values * scale[indices], indices


@dataclass(frozen=True)
class GramColumns(UnitColumns):
    """Unit columns whose correlations are kept up to date through the Gram matrix."""

    inner_products: Float[Tensor, "n n"]

    def update(
        self,
        correlations: Float[Tensor, "batch n"],
        residual: Tensor,
        change: Float[Tensor, "batch k"],
        indices: Int[Tensor, "batch k"],
    ) -> Float[Tensor, "batch n"]:
        for slot in range(change.shape[1]):
            moved = change[:, slot].nonzero()[:, 0]
            correlations = correlations.index_add(
                0, moved, change[moved, slot, None] * self.inner_products[indices[moved, slot]], alpha=-1
            )
        return correlations

    def gram(self, indices: Int[Tensor, "batch k"]) -> Float[Tensor, "batch k k"]:
        return self.inner_products[indices[:, :, None], indices[:, None, :]]
