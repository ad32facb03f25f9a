"""Sequential sparse matching pursuit: greedy steps that lower the sum of absolute residuals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from expander_sae.checks import at_least
from expander_sae.coders.base import Coder, code_in_chunks
from expander_sae.dictionaries import Codes, Dictionary
from expander_sae.kernels.columns import SparseColumns
from expander_sae.kernels.greedy import ROUNDING

ARRAYS = 12
"""Arrays [chunk, n, d] that a look at all features holds at a time."""


class Votes(NamedTuple):
    """For every feature, the best change of its code, and by how much that lowers the sum of absolute residuals."""

    steps: Float[Tensor, "batch n"]
    gains: Float[Tensor, "batch n"]


@dataclass(frozen=True)
class SSMP(Coder):
    """Codes for the l1 norm: each step moves one code to the weighted median of its coordinates' votes.

    Costs n * d * log(d) per round and n * d per step, of which it takes `rounds * steps * k` at most: slow, and on a
    dense dictionary, where d is m, very slow. Use it where a few coordinates are wrong by a lot, which the median does
    not mind. The column's l1 norm measures codes, so codes do not depend on the columns' scale.
    """

    k: int
    """Features per token at most."""
    rounds: int = 8
    """Rounds at most: each takes some steps, then drops all but the k largest codes."""
    steps: int = 4
    """Steps in a round, as a multiple of k."""
    tolerance: float = 0.0
    """Stop a token once the sum of its absolute residuals is below this share of that of the token."""
    signed: bool = False
    """Allow negative codes."""

    def __post_init__(self) -> None:
        at_least("k", self.k, 1)
        at_least("rounds", self.rounds, 1)
        at_least("steps", self.steps, 1)
        at_least("tolerance", self.tolerance, 0)

    def __call__(self, dictionary: Dictionary, x: Float[Tensor, "*batch m"]) -> Codes:
        with torch.no_grad():
            rows, values = dictionary.columns(torch.arange(dictionary.n, device=dictionary.device))
        columns = SparseColumns(rows.long(), values)
        elements = ARRAYS * values.numel()
        return code_in_chunks(dictionary, x, self.k, elements, lambda chunk: self._solve(columns, chunk))

    def _solve(self, columns: SparseColumns, x: Float[Tensor, "batch m"]) -> tuple[Tensor, Tensor]:
        columns = SparseColumns(columns.rows, columns.values.to(x.dtype))
        goal = x.abs().sum(dim=1) * max(self.tolerance, ROUNDING * torch.finfo(x.dtype).eps)
        best = Codes(x.new_zeros(x.shape[0], self.k), x.new_zeros(x.shape[0], self.k).long(), columns.rows.shape[0])
        least = x.abs().sum(dim=1)
        moving = least > goal
        for _ in range(self.rounds):
            if not moving.any():
                break
            codes = self._round(columns, x, best.to_dense(), goal, moving)
            kept = self._keep_largest(columns, codes)
            error = _residual(columns, x, kept).abs().sum(dim=1)
            moving = moving & (error < least)
            best = Codes(
                torch.where(moving[:, None], kept.values, best.values),
                torch.where(moving[:, None], kept.indices, best.indices),
                best.n,
            )
            least = torch.where(moving, error, least)
            moving = moving & (least > goal)
        return best.values, best.indices

    def _round(
        self,
        columns: SparseColumns,
        x: Float[Tensor, "batch m"],
        codes: Float[Tensor, "batch n"],
        goal: Float[Tensor, " batch"],
        moving: Bool[Tensor, " batch"],
    ) -> Float[Tensor, "batch n"]:
        """The codes after as many greedy steps as a round has."""
        residual = _residual(columns, x, Codes.from_dense(codes))
        votes = Votes(torch.zeros_like(codes), torch.zeros_like(codes))
        changed = torch.ones_like(residual, dtype=torch.bool)
        floor = ROUNDING * torch.finfo(x.dtype).eps * x.abs().sum(dim=1)
        for _ in range(self.steps * self.k):
            votes = self._refresh(columns, residual, codes, votes, changed)
            gain, feature = votes.gains.max(dim=1)
            stepping = moving & (gain > floor) & (residual.abs().sum(dim=1) > goal)
            if not stepping.any():
                break
            feature = feature[:, None]
            step = votes.steps.gather(1, feature) * stepping[:, None]
            codes = codes.scatter_add(1, feature, step)
            rows, values = columns.rows[feature[:, 0]], columns.values[feature[:, 0]]
            residual = residual.scatter_add(1, rows, -step * values)
            # Padding of a column points at coordinate 0 with value zero, which changes nothing there.
            touched = ((values != 0) & stepping[:, None]).to(x.dtype)
            changed = torch.zeros_like(residual).scatter_add(1, rows, touched) > 0
        return codes

    def _refresh(
        self,
        columns: SparseColumns,
        residual: Float[Tensor, "batch m"],
        codes: Float[Tensor, "batch n"],
        votes: Votes,
        changed: Bool[Tensor, "batch m"],
    ) -> Votes:
        """The votes after some coordinates changed: only features that touch one of them vote again."""
        outdated = torch.zeros_like(codes, dtype=torch.bool)
        for slot in range(columns.rows.shape[1]):
            outdated |= changed.index_select(1, columns.rows[:, slot]) & (columns.values[:, slot] != 0)
        token, feature = outdated.nonzero(as_tuple=True)
        rows, values = columns.rows[feature], columns.values[feature]
        left = residual[token[:, None], rows]
        points = torch.where(values != 0, left / values, 0.0)
        steps = weighted_median(points, values.abs())
        if not self.signed:
            # The loss is convex in the code, so where the best one is negative the best allowed one is zero.
            steps = torch.maximum(steps, -codes[token, feature])
        gains = (left.abs() - (left - steps[:, None] * values).abs()).sum(dim=1)
        at = token, feature
        return Votes(votes.steps.index_put(at, steps), votes.gains.index_put(at, gains))

    def _keep_largest(self, columns: SparseColumns, codes: Float[Tensor, "batch n"]) -> Codes:
        """The k codes that weigh most."""
        indices = (codes.abs() * columns.values.abs().sum(dim=1)).topk(self.k, dim=1).indices
        return Codes(codes.gather(1, indices), indices, codes.shape[1])


def _residual(columns: SparseColumns, x: Float[Tensor, "batch m"], codes: Codes) -> Float[Tensor, "batch m"]:
    used = SparseColumns(columns.rows[codes.indices], columns.values[codes.indices])
    return x - used.combine(codes.values, x.shape[1])


def weighted_median(points: Float[Tensor, "*batch d"], weights: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
    """A z that minimises `sum(weights * |points - z|)`, always one of the points, the lowest of equally good ones.

    Weights are not negative; points of weight zero do not count, unless all have it.
    """
    ordered = points.sort(dim=-1)
    mass = weights.gather(-1, ordered.indices).cumsum(dim=-1)
    middle = (mass >= mass[..., -1:] / 2).int().argmax(dim=-1, keepdim=True)
    return ordered.values.gather(-1, middle)[..., 0]
