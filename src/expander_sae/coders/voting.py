"""Voting: coordinates that only one active feature touches agree on its code."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from expander_sae.checks import at_least
from expander_sae.coders.base import Coder, code_in_chunks, rounding_unit
from expander_sae.dictionaries import Codes, Dictionary
from expander_sae.kernels.columns import SparseColumns

ARRAYS = 12
"""Arrays [chunk, n, d] that one round of votes holds at a time."""
ROUNDING_UNITS = 64
"""The default tolerance, in rounding units of the activations' precision."""


@dataclass(frozen=True)
class VotingDecoder(Coder):
    """Exact codes of activations that are exactly sparse, without any least squares; for noise-free data only.

    Every coordinate votes for what a feature's code would have to be to explain all that is left there. Features that
    are alone on `agree` coordinates get that many equal votes, are accepted and subtracted, all at once, and uncover
    others: a few rounds of n * d * log(d) each. For weights without structure two equal votes cannot happen by chance;
    weights of equal size need `agree` above the largest overlap of two columns. A token whose votes stop agreeing,
    or need more than k features, keeps the codes that explain most of it. On real activations nothing agrees.
    """

    k: int
    """Features per token at most."""
    agree: int = 2
    """Equal votes needed to accept a code; 3 is safer in float32."""
    tolerance: float | None = None
    """Share of the token's largest entry by which coordinates that agree may differ (default: what rounding needs)."""
    signed: bool = False
    """Allow negative codes."""

    def __post_init__(self) -> None:
        at_least("k", self.k, 1)
        at_least("agree", self.agree, 2)
        if self.tolerance is not None:
            at_least("tolerance", self.tolerance, 0)

    def __call__(self, dictionary: Dictionary, x: Float[Tensor, "*batch m"]) -> Codes:
        with torch.no_grad():
            rows, values = dictionary.columns(torch.arange(dictionary.n, device=dictionary.device))
        columns = SparseColumns(rows.long(), values)
        usual = ROUNDING_UNITS * rounding_unit(dictionary, x)
        tolerance = usual if self.tolerance is None else self.tolerance
        elements = ARRAYS * values.numel()
        return code_in_chunks(dictionary, x, self.k, elements, lambda chunk: self._solve(columns, chunk, tolerance))

    def _solve(
        self, columns: SparseColumns, x: Float[Tensor, "batch m"], tolerance: float
    ) -> tuple[Float[Tensor, "batch k"], Int[Tensor, "batch k"]]:
        columns = SparseColumns(columns.rows, columns.values.to(x.dtype))
        noise = tolerance * x.abs().amax(dim=1, keepdim=True)
        codes = x.new_zeros(x.shape[0], columns.rows.shape[0])
        best, least = codes, x.square().sum(dim=1)
        moving = torch.ones_like(least, dtype=torch.bool)
        residual = x
        # A round that is right accepts at least one of k features.
        for _ in range(self.k):
            accepted = self._accepted(columns, residual, codes, noise) * moving[:, None]
            codes = codes + accepted
            moving = moving & (accepted != 0).any(dim=1) & ((codes != 0).sum(dim=1) <= self.k)
            if not moving.any():
                break
            used = Codes.from_dense(codes, min(self.k, codes.shape[1]))
            picked = SparseColumns(columns.rows[used.indices], columns.values[used.indices])
            residual = x - picked.combine(used.values, x.shape[1])
            better = moving & (residual.square().sum(dim=1) < least)
            best = torch.where(better[:, None], codes, best)
            least = torch.where(better, residual.square().sum(dim=1), least)
            moving = moving & (residual.abs().amax(dim=1) > noise[:, 0])
        kept = Codes.from_dense(best, self.k)
        return kept.values, kept.indices

    def _accepted(
        self,
        columns: SparseColumns,
        residual: Float[Tensor, "batch m"],
        codes: Float[Tensor, "batch n"],
        noise: Float[Tensor, "batch 1"],
    ) -> Float[Tensor, "batch n"]:
        """The change of code that enough coordinates of a feature agree on, zero for the others."""
        left = residual[:, columns.rows]
        valid = (columns.values != 0) & (left.abs() > noise[..., None])
        votes = torch.where(valid, left / columns.values, torch.inf)
        # A coordinate that is off by the noise puts its vote off by the noise over its weight.
        doubt = torch.where(valid, noise[..., None] / columns.values.abs(), 0.0)
        votes, order = votes.sort(dim=-1)
        doubt = doubt.gather(-1, order)
        agrees = (votes[..., 1:] - votes[..., :-1] <= doubt[..., 1:] + doubt[..., :-1]) & votes[..., 1:].isfinite()
        count, last = longest_run(agrees)
        place = torch.arange(votes.shape[-1], device=votes.device)
        inside = (place <= last[..., None]) & (place > (last - count)[..., None])
        # The least-squares value of the agreeing votes.
        confidence = torch.where(inside, doubt.clamp(min=torch.finfo(doubt.dtype).tiny) ** -2, 0.0)
        value = torch.where(inside, votes * confidence, 0.0).sum(dim=-1) / confidence.sum(dim=-1)
        accepted = count >= self.agree
        if not self.signed:
            accepted &= codes + value >= 0
        return torch.where(accepted, value, 0.0)


def longest_run(agrees: Bool[Tensor, "*batch gaps"]) -> tuple[Int[Tensor, "*batch"], Int[Tensor, "*batch"]]:
    """The length of the longest run of equal neighbours among gaps + 1 entries, and where it ends; 1 and 0 if none."""
    length = torch.ones(agrees.shape[:-1], dtype=torch.int64, device=agrees.device)
    longest, end = length, torch.zeros_like(length)
    for gap in range(agrees.shape[-1]):
        length = torch.where(agrees[..., gap], length + 1, 1)
        longer = length > longest
        longest, end = torch.where(longer, length, longest), torch.where(longer, gap + 1, end)
    return longest, end
