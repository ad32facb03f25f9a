"""All kernels in plain torch: they run on any device, are easy to believe, and are the oracle of every other version.

A correlation is *defined* here: products are summed one by one in the order of the rows, each rounded, then the bias
is added. The compiled versions follow the same order, so that all of them choose the same features to the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from expander_sae.kernels import greedy
from expander_sae.kernels.columns import SparseColumns
from expander_sae.kernels.inputs import padded_with_zeros
from expander_sae.supports import RowLists

CHUNK_ELEMENTS = 1 << 24
"""Correlations held at a time; bounds the memory of a call whatever the number of features."""


def correlate(
    x: Float[Tensor, "batch m"], values: Float[Tensor, "n d"], rows: Int[Tensor, "n d"]
) -> Float[Tensor, "batch n"]:
    """`x @ W` for the dictionary that `values` and `rows` describe, in the precision of the inputs."""
    total = x.new_zeros(x.shape[0], values.shape[0])
    for slot in range(values.shape[1]):
        total += x.index_select(1, rows[:, slot]) * values[:, slot]
    return total


def select(
    x: Float[Tensor, "batch m"],
    values: Float[Tensor, "n d"],
    rows: Int[Tensor, "n d"],
    k: int,
    bias: Float[Tensor, " n"],
    signed: bool,
) -> tuple[Float[Tensor, "batch k"], Int[Tensor, "batch k"]]:
    """The k largest of `x @ W + bias` (by magnitude when `signed`), descending, ties to the lowest index.

    Sums have the precision of `bias`.
    """
    x, values = x.to(bias.dtype), values.to(bias.dtype)
    features = values.shape[0]
    chunk = max(k, CHUNK_ELEMENTS // max(1, x.shape[0]))
    best_values = x.new_zeros(x.shape[0], 0)
    best_indices = torch.zeros(x.shape[0], 0, dtype=torch.int64, device=x.device)
    for start in range(0, features, chunk):
        stop = min(start + chunk, features)
        scores = correlate(x, values[start:stop], rows[start:stop]) + bias[start:stop]
        indices = torch.arange(start, stop, device=x.device).expand(x.shape[0], -1)
        all_values = torch.cat([best_values, scores], dim=1)
        all_indices = torch.cat([best_indices, indices], dim=1)
        ranking = all_values.abs() if signed else all_values
        # A stable sort keeps equal entries in index order; topk promises nothing about ties.
        order = ranking.sort(dim=1, descending=True, stable=True).indices[:, :k]
        best_values, best_indices = all_values.gather(1, order), all_indices.gather(1, order)
    return best_values, best_indices


@dataclass(frozen=True)
class GatheredColumns(greedy.UnitColumns):
    """The unit columns `values` at `rows`, in tokens of width m."""

    values: Float[Tensor, "n d"]
    rows: Int[Tensor, "n d"]
    m: int

    @property
    def n(self) -> int:
        return len(self.rows)

    def correlate(self, x: Float[Tensor, "batch m"]) -> Float[Tensor, "batch n"]:
        return correlate(x, self.values, self.rows)

    def inner_products(
        self, feature: Int[Tensor, " batch"], indices: Int[Tensor, "batch k"]
    ) -> Float[Tensor, "batch k"]:
        return self._at(indices).correlate(self._at(feature).to_dense(self.m))

    def synthesize(self, values: Float[Tensor, "batch k"], indices: Int[Tensor, "batch k"]) -> Float[Tensor, "batch m"]:
        return self._at(indices).combine(values, self.m)

    def _at(self, indices: Int[Tensor, "*shape"]) -> SparseColumns:
        return SparseColumns(self.rows[indices], self.values[indices])


def pursue(
    x: Float[Tensor, "batch m"],
    unit: Float[Tensor, "n d"],
    rows: Int[Tensor, "n d"],
    row_lists: RowLists,
    rules: greedy.Rules,
    orthogonal: bool,
) -> tuple[Float[Tensor, "batch k"], Int[Tensor, "batch k"]]:
    """Greedy codes for unit columns, by the textbook loop; it has no use for the row lists."""
    return greedy.pursue(GatheredColumns(unit, rows, x.shape[1]), x, rules, orthogonal)


def combine(
    weights: Float[Tensor, "batch k"],
    indices: Int[Tensor, "batch k"],
    values: Float[Tensor, "n d"],
    rows: Int[Tensor, "n d"],
    onto: Float[Tensor, "batch m"],
) -> Float[Tensor, "batch m"]:
    """`onto` plus every token's weighted sum of its columns."""
    values, rows = padded_with_zeros(values, rows)
    products = weights[..., None] * values[indices]
    return onto.scatter_add(1, rows[indices].flatten(1).long(), products.flatten(1))


def correlate_at(
    x: Float[Tensor, "batch m"], indices: Int[Tensor, "batch k"], values: Float[Tensor, "n d"], rows: Int[Tensor, "n d"]
) -> Float[Tensor, "batch k"]:
    """Every token times its own columns."""
    values, rows = padded_with_zeros(values, rows)
    return (_picked(x, indices, rows) * values[indices]).sum(dim=-1)


def accumulate(
    weights: Float[Tensor, "batch k"],
    indices: Int[Tensor, "batch k"],
    x: Float[Tensor, "batch m"],
    rows: Int[Tensor, "n d"],
) -> Float[Tensor, "n d"]:
    """What every column sees of the tokens, weighted by its codes; zero where a shorter column has no row."""
    products = weights[..., None] * _picked(x, indices, rows.clamp_min(0))
    # The backward pass of a gather, by the operator that torch has tuned for embeddings.
    seen = torch.ops.aten.embedding_dense_backward(products.flatten(0, 1), indices.flatten(), len(rows), -1, False)
    return seen.masked_fill(rows < 0, 0)


def _picked(
    x: Float[Tensor, "batch m"], indices: Int[Tensor, "batch k"], rows: Int[Tensor, "n d"]
) -> Float[Tensor, "batch k d"]:
    """Every token at the coordinates of its columns."""
    return x.gather(1, rows[indices].flatten(1).long()).reshape(*indices.shape, rows.shape[1])
