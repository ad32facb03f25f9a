"""Orthogonal matching pursuit among a few candidates of every token, from their inner products alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from expander_sae.kernels.columns import SparseColumns
from expander_sae.kernels.greedy import Rules, UnitColumns, orthogonal_matching_pursuit
from expander_sae.kernels.inputs import Implementation, choose, padded_with_zeros, with_lengths

Synthesis = Callable[[Tensor, Tensor], Tensor]
"""The weighted sum of a token's candidates, from values [batch, k] and their places among the candidates."""


@dataclass(frozen=True)
class CandidateColumns(UnitColumns):
    """The c candidates of every token at unit norm: to the greedy loops, a dictionary of c columns for each token."""

    gram: Float[Tensor, "batch c c"]
    """Inner products of the candidates with each other."""
    target: Float[Tensor, "batch c"]
    """Inner products of the candidates with the token."""
    synthesis: Synthesis

    @property
    def n(self) -> int:
        return self.gram.shape[1]

    def correlate(self, x: Float[Tensor, "batch m"]) -> Float[Tensor, "batch c"]:
        """Of the tokens themselves; what is left of them goes through `update`."""
        return self.target

    def inner_products(
        self, feature: Int[Tensor, " batch"], indices: Int[Tensor, "batch k"]
    ) -> Float[Tensor, "batch k"]:
        tokens = torch.arange(len(feature), device=feature.device)
        return self.gram[tokens, feature].gather(1, indices)

    def synthesize(self, values: Float[Tensor, "batch k"], indices: Int[Tensor, "batch k"]) -> Float[Tensor, "batch m"]:
        return self.synthesis(values, indices)

    def update(
        self,
        correlations: Float[Tensor, "batch c"],
        residual: Float[Tensor, "batch m"],
        change: Float[Tensor, "batch k"],
        indices: Int[Tensor, "batch k"],
    ) -> Float[Tensor, "batch c"]:
        taken = self.gram.gather(2, indices[:, None, :].expand(-1, correlations.shape[1], -1))
        return correlations - (taken @ change[..., None])[..., 0]


def pursue_candidates(
    columns: CandidateColumns, x: Float[Tensor, "batch m"], rules: Rules, implementation: Implementation = "auto"
) -> tuple[Float[Tensor, "batch k"], Int[Tensor, "batch k"]]:
    """Values and places among the candidates of the (at most) k that the pursuit takes, all amplitudes refitted."""
    version = choose(implementation, x.device)
    if version == "cpu":
        from expander_sae.kernels.cpu.candidates import pursue

        return pursue(columns.gram, columns.target, x, rules)
    if version == "gpu":
        from expander_sae.kernels.gpu.candidates import pursue as pursue_on_gpu

        return pursue_on_gpu(columns.gram, columns.target, x, rules)
    return orthogonal_matching_pursuit(columns, x, rules)


def gram_among(
    values: Float[Tensor, "n d"],
    rows: Int[Tensor, "n d"],
    indices: Int[Tensor, "batch c"],
    m: int,
    implementation: Implementation = "auto",
) -> Float[Tensor, "batch c c"]:
    """Inner products of every token's columns with each other; only the reference forms dense columns."""
    version = choose(implementation, values.device)
    if version == "cpu":
        from expander_sae.kernels.cpu.candidates import gram_of

        return gram_of(values, rows, indices, m)
    if version == "gpu":
        from expander_sae.kernels.gpu.candidates import gram_of as gram_on_gpu

        return gram_on_gpu(*with_lengths(values.contiguous(), rows.contiguous(), True), indices)
    values, rows = padded_with_zeros(values, rows)
    return SparseColumns(rows[indices], values[indices]).gram(m)
