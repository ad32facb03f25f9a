"""`pursue`: greedy codes of every token by matching pursuit, plain or orthogonal."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from expander_sae.kernels import reference
from expander_sae.kernels.columns import SparseColumns
from expander_sae.kernels.dispatch import Implementation, choose
from expander_sae.kernels.greedy import Rules, matching_pursuit, orthogonal_matching_pursuit
from expander_sae.kernels.inputs import check_columns, check_finite, padded_with_zeros, working_dtype
from expander_sae.supports import RowLists


@dataclass(frozen=True)
class FreshCorrelations:
    """Unit columns in plain torch: the textbook loop, which makes all correlations anew at every step."""

    values: Float[Tensor, "n d"]
    rows: Int[Tensor, "n d"]
    m: int

    def correlate(self, x: Float[Tensor, "batch m"]) -> Float[Tensor, "batch n"]:
        """x times every column."""
        return reference.correlate(x, self.values, self.rows)

    def update(
        self,
        correlations: Float[Tensor, "batch n"],
        residual: Float[Tensor, "batch m"],
        change: Float[Tensor, "batch k"],
        indices: Int[Tensor, "batch k"],
    ) -> Float[Tensor, "batch n"]:
        """The correlations of the new residual."""
        return self.correlate(residual)

    def inner_products(
        self, feature: Int[Tensor, " batch"], indices: Int[Tensor, "batch k"]
    ) -> Float[Tensor, "batch k"]:
        """One column of each token times some columns of it."""
        return self._columns(indices).correlate(self._columns(feature).to_dense(self.m))

    def synthesize(self, values: Float[Tensor, "batch k"], indices: Int[Tensor, "batch k"]) -> Float[Tensor, "batch m"]:
        """The weighted sum of a token's columns."""
        return self._columns(indices).combine(values, self.m)

    def _columns(self, indices: Int[Tensor, "batch k"]) -> SparseColumns:
        return SparseColumns(self.rows[indices], self.values[indices])


@torch.library.custom_op("expander_sae::pursue", mutates_args=())
def _pursue(
    x: Tensor,
    values: Tensor,
    rows: Tensor,
    starts: Tensor,
    features: Tensor,
    slots: Tensor,
    k: int,
    signed: bool,
    tolerance: float,
    orthogonal: bool,
    implementation: str,
) -> tuple[Tensor, Tensor]:
    uneven = check_columns(x, values, rows, k)
    check_finite("x", x)
    check_finite("values", values)
    rules = Rules(k, signed, tolerance)
    result = x.dtype
    dtype = working_dtype(x, values)
    x, values = x.to(dtype).contiguous(), values.to(dtype)
    values, indexable = padded_with_zeros(values, rows) if uneven else (values, rows)
    norms = torch.linalg.vector_norm(values, dim=1)
    scale = torch.where(norms > 0, 1 / norms, 0.0)
    unit = (values * scale[:, None]).contiguous()
    version = choose(implementation, x.device)
    if version == "cpu":
        from expander_sae.kernels import cpu_pursue

        lists = starts.numpy(), features.numpy(), slots.numpy()
        arrays = cpu_pursue.pursue(x.numpy(), unit.numpy(), rows.contiguous().numpy(), lists, rules, orthogonal)
        codes, indices = (torch.from_numpy(array) for array in arrays)
    else:
        operator = FreshCorrelations(unit, indexable, x.shape[1])
        if version == "gpu":
            from expander_sae.kernels.gpu_pursue import LocalCorrelations

            operator = LocalCorrelations(unit, indexable, x.shape[1], RowLists(starts, features, slots))
        algorithm = orthogonal_matching_pursuit if orthogonal else matching_pursuit
        codes, indices = algorithm(operator, x, rules)
    return (codes * scale[indices]).to(result), indices


@_pursue.register_fake
def _(
    x: Tensor,
    values: Tensor,
    rows: Tensor,
    starts: Tensor,
    features: Tensor,
    slots: Tensor,
    k: int,
    signed: bool,
    tolerance: float,
    orthogonal: bool,
    implementation: str,
) -> tuple[Tensor, Tensor]:
    shape = (x.shape[0], k)
    return x.new_empty(shape), x.new_empty(shape, dtype=torch.int64)


def pursue(
    x: Float[Tensor, "batch m"],
    values: Float[Tensor, "n d"],
    rows: Int[Tensor, "n d"],
    row_lists: RowLists,
    rules: Rules,
    *,
    orthogonal: bool,
    implementation: Implementation = "auto",
) -> tuple[Float[Tensor, "batch k"], Int[Tensor, "batch k"]]:
    """Greedy codes (values [batch, k], indices [batch, k]) of every token, in the order the features were taken.

    Each step takes the column that correlates best with what is left of the token, columns scaled to unit norm, then
    subtracts its share (matching pursuit) or refits all columns taken so far (orthogonal). Entries that a token did not
    need are zero. No gradient flows through the choice.
    """
    lists = row_lists.starts, row_lists.features, row_lists.slots
    codes, indices = _pursue(
        x.detach(), values.detach(), rows, *lists, rules.k, rules.signed, rules.tolerance, orthogonal, implementation
    )
    return codes, indices
