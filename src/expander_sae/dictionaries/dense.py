"""The dense dictionary: m learned values per column; what every expander dictionary is measured against."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from expander_sae.dictionaries.base import Dictionary, flatten
from expander_sae.dictionaries.codes import Codes
from expander_sae.errors import ExpanderError
from expander_sae.kernels.columns import SparseColumns
from expander_sae.kernels.inputs import check_finite
from expander_sae.means import check_memory


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
            # The random numbers, and the columns of unit norm that are made of them.
            check_memory(f"A dense dictionary of {n:,} columns of {m:,} values", 8.0 * n * m, instead="give fewer")
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

    def correlate_at(self, x: Float[Tensor, "*batch m"], indices: Int[Tensor, "*batch k"]) -> Float[Tensor, "*batch k"]:
        dtype = torch.promote_types(x.dtype, self.dtype)
        return (nn.functional.embedding(indices, self.values).to(dtype) @ x.to(dtype)[..., None])[..., 0]

    def synthesize(self, codes: Codes, onto: Float[Tensor, "*batch m"] | None = None) -> Float[Tensor, "*batch m"]:
        dtype = torch.promote_types(codes.values.dtype, self.dtype)
        k = codes.indices.shape[-1]
        flat = nn.functional.embedding_bag(
            codes.indices.reshape(-1, k),
            self.values.to(dtype),
            per_sample_weights=codes.values.to(dtype).reshape(-1, k),
            mode="sum",
        )
        total = flat.reshape(*codes.indices.shape[:-1], self.m)
        return total if onto is None else onto + total

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
