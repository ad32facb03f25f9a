"""The textbook loops of matching pursuit and orthogonal matching pursuit, batched over tokens, in plain torch.

They define what `pursue` and the greedy coders compute; every faster version is tested against them. Columns are taken
to have unit norm. What differs between dictionaries and devices (how correlations are made and kept up to date) is
behind `UnitColumns`; the loops and their stopping rules are here, once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from expander_sae.kernels.refit import refit


class UnitColumns(ABC):
    """A dictionary whose columns have norm one, as the greedy loops see it.

    The loops ask for the best column through a `view` of what is left of every token. That is its correlations with all
    columns, unless a dictionary has something smaller to find it by.
    """

    @property
    @abstractmethod
    def n(self) -> int:
        """How many columns there are."""

    @abstractmethod
    def correlate(self, x: Float[Tensor, "batch m"]) -> Float[Tensor, "batch view"]:
        """The view of x: x times every column."""

    def best(
        self, view: Float[Tensor, "batch view"], closed: Int[Tensor, "batch c"], signed: bool
    ) -> tuple[Float[Tensor, " batch"], Int[Tensor, " batch"]]:
        """The largest correlation of every token (magnitude when `signed`) and its feature, but for the closed ones.

        Closed features are a list, in which n stands for none; where all are closed, the correlation is -inf.
        """
        shut = torch.zeros(len(view), view.shape[1] + 1, dtype=torch.bool, device=view.device).scatter_(1, closed, True)
        best = (view.abs() if signed else view).masked_fill(shut[:, :-1], -torch.inf).max(dim=1)
        return best.values, best.indices

    def at(self, view: Float[Tensor, "batch view"], indices: Int[Tensor, "batch k"]) -> Float[Tensor, "batch k"]:
        """The correlations with some columns of each token."""
        return view.gather(1, indices)

    @abstractmethod
    def inner_products(
        self, feature: Int[Tensor, " batch"], indices: Int[Tensor, "batch k"]
    ) -> Float[Tensor, "batch k"]:
        """One column of each token times some columns of it."""

    @abstractmethod
    def synthesize(self, values: Float[Tensor, "batch k"], indices: Int[Tensor, "batch k"]) -> Float[Tensor, "batch m"]:
        """The weighted sum of a token's columns."""

    def update(
        self,
        view: Float[Tensor, "batch view"],
        residual: Float[Tensor, "batch m"],
        change: Float[Tensor, "batch k"],
        indices: Int[Tensor, "batch k"],
    ) -> Float[Tensor, "batch view"]:
        """The view after the codes of `indices` grew by `change` and left `residual`: made anew."""
        return self.correlate(residual)


@dataclass(frozen=True)
class Rules:
    """When to stop, and what codes are allowed."""

    k: int
    """Features per token at most (matching pursuit: steps)."""
    signed: bool = False
    """Allow negative codes."""
    tolerance: float = 0.0
    """Stop a token once its residual is below this share of its norm."""

    def floor(self, x: Float[Tensor, "batch m"]) -> Float[Tensor, " batch"]:
        """The correlation below which nothing but rounding is left of a token."""
        return ROUNDING * torch.finfo(x.dtype).eps * torch.linalg.vector_norm(x, dim=1)


PICKS_PER_FEATURE = 3
"""A token is given up after this many picks times k: dependent columns and dropped ones cost picks."""

ROUNDING = 8.0
"""Correlations below this many rounding units of a token's norm are noise."""

DEPENDENT = {4: 1e-5, 8: 1e-10}
"""A column whose distance from the span of the chosen ones, squared, is below this adds nothing but rounding; by the
size of a float in bytes."""


def pursue(
    columns: UnitColumns, x: Float[Tensor, "batch m"], rules: Rules, orthogonal: bool
) -> tuple[Float[Tensor, "batch k"], Int[Tensor, "batch k"]]:
    """Codes for unit columns by matching pursuit, plain or orthogonal."""
    return (orthogonal_matching_pursuit if orthogonal else matching_pursuit)(columns, x, rules)


def matching_pursuit(
    columns: UnitColumns, x: Float[Tensor, "batch m"], rules: Rules
) -> tuple[Float[Tensor, "batch k"], Int[Tensor, "batch k"]]:
    """Take the best column, subtract its share, repeat k times; a column taken again adds to its entry.

    Without `signed`, a column in use may also be cut back, but not below zero.
    """
    codes = x.new_zeros(x.shape[0], rules.k)
    indices = torch.zeros(x.shape[0], rules.k, dtype=torch.int64, device=x.device)
    used = torch.zeros_like(indices, dtype=torch.bool)
    residual, view, none = x, columns.correlate(x), indices[:, :0]
    norms, floor = torch.linalg.vector_norm(x, dim=1), rules.floor(x)
    slots = torch.arange(rules.k, device=x.device)
    for _ in range(rules.k):
        # Choose the column that correlates best with what is left; without signs, cutting one back may be better.
        best, feature = columns.best(view, none, rules.signed)
        step = columns.at(view, feature[:, None])[:, 0]
        if not rules.signed:
            at = columns.at(view, indices)
            feature, step, best = _or_cut_back(at, codes, indices, used, feature, step, best)
        moving = (best > floor) & (torch.linalg.vector_norm(residual, dim=1) > rules.tolerance * norms)
        if not moving.any():
            break
        # Its slot is the one that it has already, or the first free one.
        known = used & (indices == feature[:, None])
        slot = torch.where(known.any(dim=1), known.int().argmax(dim=1), used.sum(dim=1))
        chosen = (slots == slot[:, None]) & moving[:, None]
        # Subtract its share of the residual.
        change = chosen * step[:, None]
        indices, used, codes = torch.where(chosen, feature[:, None], indices), used | chosen, codes + change
        residual = residual - columns.synthesize(change, indices)
        view = columns.update(view, residual, change, indices)
    return codes, indices


def _or_cut_back(
    at: Float[Tensor, "batch k"],
    codes: Float[Tensor, "batch k"],
    indices: Int[Tensor, "batch k"],
    used: Bool[Tensor, "batch k"],
    feature: Int[Tensor, " batch"],
    step: Float[Tensor, " batch"],
    best: Float[Tensor, " batch"],
) -> tuple[Int[Tensor, " batch"], Float[Tensor, " batch"], Float[Tensor, " batch"]]:
    """The step that lowers the residual most: the best positive one, or taking back some of a column in use.

    `at` are the correlations with the columns in use.
    """
    back = torch.maximum(at, -codes)
    gains = torch.where(used & (at < 0), back * (2 * at - back), 0.0)
    gain, slot = gains.max(dim=1)
    better = gain > best.clamp(min=0) ** 2
    slot = slot[:, None]
    return (
        torch.where(better, indices.gather(1, slot)[:, 0], feature),
        torch.where(better, back.gather(1, slot)[:, 0], step),
        torch.where(better, gain.sqrt(), best),
    )


def orthogonal_matching_pursuit(
    columns: UnitColumns, x: Float[Tensor, "batch m"], rules: Rules
) -> tuple[Float[Tensor, "batch k"], Int[Tensor, "batch k"]]:
    """Take the best column, refit all of them, repeat; without `signed` the refit is non-negative least squares."""
    # Every token has k slots, in the order its columns were taken. Slots behind those in use hold no column yet.
    indices = torch.zeros(x.shape[0], rules.k, dtype=torch.int64, device=x.device)
    used = torch.zeros_like(indices, dtype=torch.bool)
    codes = x.new_zeros(x.shape[0], rules.k)
    # What least squares on the slots needs: the columns' inner products with each other, and with the token.
    gram, target = x.new_zeros(x.shape[0], rules.k, rules.k), torch.zeros_like(codes)
    residual, view = x, columns.correlate(x)
    whole, refused = view.clone(), indices[:, :0]
    norms, floor = torch.linalg.vector_norm(x, dim=1), rules.floor(x)
    slots = torch.arange(rules.k, device=x.device)
    for _ in range(PICKS_PER_FEATURE * rules.k):
        # Choose the column that correlates best with what is left, of those neither in use nor refused before.
        closed = torch.cat([refused, torch.where(used, indices, columns.n)], dim=1)
        best, feature = columns.best(view, closed, rules.signed)
        # A token stops when only rounding is left of it, when it is explained well enough, or when its slots are full.
        moving = (best > floor) & (torch.linalg.vector_norm(residual, dim=1) > rules.tolerance * norms)
        moving &= used.sum(dim=1) < rules.k
        if not moving.any():
            break
        # Put it into the first free slot, and border the Gram matrix and the target with its inner products.
        chosen = (slots == used.sum(dim=1)[:, None]) & moving[:, None]
        indices = torch.where(chosen, feature[:, None], indices)
        products = columns.inner_products(feature, indices)
        gram = torch.where(chosen[:, :, None], products[:, None, :], gram)
        gram = torch.where(chosen[:, None, :], products[:, :, None], gram)
        target = torch.where(chosen, columns.at(whole, feature[:, None]), target)
        # Refit the codes of all columns; one that depends on those before it comes back refused.
        fit = refit(gram, target, codes, used, chosen, signed=rules.signed, dependent=DEPENDENT[x.element_size()])
        left = x - columns.synthesize(fit.codes, indices)
        # Refuse a fit that leaves more than before: several columns that nearly depend on others can, in rounded
        # arithmetic, be fitted to anything. The token keeps its old codes, and does not get this column again.
        worse = moving & (torch.linalg.vector_norm(left, dim=1) > torch.linalg.vector_norm(residual, dim=1) + floor)
        no_more = torch.where(fit.refused | worse, feature, columns.n)
        refused = torch.cat([refused, no_more[:, None]], dim=1)
        fitted, kept = torch.where(worse[:, None], codes, fit.codes), torch.where(worse[:, None], used, fit.used)
        residual = torch.where(worse[:, None], residual, left)
        view = columns.update(view, residual, fitted - codes, indices)
        # Sort the slots in use to the front, in their order: a non-negative refit can drop a column in the middle.
        order = (~kept).int().sort(dim=1, stable=True).indices
        codes, used, indices, target = (tensor.gather(1, order) for tensor in (fitted, kept, indices, target))
        gram = gram.gather(1, order[:, :, None].expand_as(gram)).gather(2, order[:, None, :].expand_as(gram))
    return codes, indices
