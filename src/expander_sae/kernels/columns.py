"""Some columns of a dictionary, as coordinates and values: the gathers that everything but `select` is made of."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

GRAM_ELEMENTS = 1 << 24
"""Elements of dense columns formed at a time."""


class SparseColumns(NamedTuple):
    """Columns with d entries each: `values[..., d]` at `rows[..., d]`; padding has value zero."""

    rows: Int[Tensor, "*shape d"]
    values: Float[Tensor, "*shape d"]

    def correlate(self, x: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch k"]:
        """Every token times its own columns [*batch, k, d]."""
        picked = x.gather(-1, self.rows.flatten(-2).long()).reshape(self.rows.shape)
        return (picked * self.values).sum(dim=-1)

    def combine(
        self, weights: Float[Tensor, "*batch k"], m: int, onto: Float[Tensor, "*batch m"] | None = None
    ) -> Float[Tensor, "*batch m"]:
        """The weighted sum of every token's own columns, added to `onto` if there is one."""
        parts = (weights[..., None] * self.values).flatten(-2)
        base = parts.new_zeros(*parts.shape[:-1], m) if onto is None else onto.to(parts.dtype)
        return base.scatter_add(-1, self.rows.flatten(-2).long(), parts)

    def to_dense(self, m: int) -> Float[Tensor, "*shape m"]:
        """The columns written out."""
        dense = self.values.new_zeros(*self.values.shape[:-1], m)
        return dense.scatter_add(-1, self.rows.long(), self.values)

    def gram(self, m: int) -> Float[Tensor, "*batch k k"]:
        """Inner products between the columns of each token, through dense columns, some tokens at a time.

        Looking for the coordinates that two columns share takes d*d comparisons a pair and measured slower at every
        size tried.
        """
        *batch, k, degree = self.rows.shape
        rows, values = self.rows.reshape(-1, k, degree), self.values.reshape(-1, k, degree)
        step = max(1, GRAM_ELEMENTS // max(1, k * m))
        pieces = []
        for start in range(0, max(1, rows.shape[0]), step):
            dense = SparseColumns(rows[start : start + step], values[start : start + step]).to_dense(m)
            pieces.append(dense @ dense.mT)
        return torch.cat(pieces).reshape(*batch, k, k)
