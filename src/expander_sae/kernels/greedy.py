"""The textbook loop of matching pursuit and orthogonal matching pursuit, batched over tokens, in plain torch.

Columns are taken to have unit norm. What differs between dictionaries and devices (how correlations are made and kept
up to date) is behind `Operator`; the loop, the refit and the stopping rules are here, once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from expander_sae.kernels.refit import refit


class Operator(Protocol):
    """A dictionary with unit columns, as the greedy loop sees it."""

    def correlate(self, x: Float[Tensor, "batch m"]) -> Float[Tensor, "batch n"]:
        """x times every column."""
        ...

    def update(
        self,
        correlations: Float[Tensor, "batch n"],
        residual: Float[Tensor, "batch m"],
        change: Float[Tensor, "batch k"],
        indices: Int[Tensor, "batch k"],
    ) -> Float[Tensor, "batch n"]:
        """The correlations after the codes of `indices` grew by `change` and left `residual`."""
        ...

    def inner_products(
        self, feature: Int[Tensor, " batch"], indices: Int[Tensor, "batch k"]
    ) -> Float[Tensor, "batch k"]:
        """One column of each token times some columns of it."""
        ...

    def synthesize(self, values: Float[Tensor, "batch k"], indices: Int[Tensor, "batch k"]) -> Float[Tensor, "batch m"]:
        """The weighted sum of a token's columns."""
        ...


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


def _best(
    correlations: Float[Tensor, "batch n"], blocked: Bool[Tensor, "batch n"] | None, signed: bool
) -> tuple[Float[Tensor, " batch"], Int[Tensor, " batch"]]:
    scores = correlations.abs() if signed else correlations
    if blocked is not None:
        scores = scores.masked_fill(blocked, -torch.inf)
    best = scores.max(dim=1)
    return best.values, best.indices


def matching_pursuit(
    operator: Operator, x: Float[Tensor, "batch m"], rules: Rules
) -> tuple[Float[Tensor, "batch k"], Int[Tensor, "batch k"]]:
    """Take the best column, subtract its share, repeat k times; a column taken again adds to its entry.

    Without `signed`, a column in use may also be cut back, but not below zero.
    """
    codes = x.new_zeros(x.shape[0], rules.k)
    indices = torch.zeros(x.shape[0], rules.k, dtype=torch.int64, device=x.device)
    used = torch.zeros_like(indices, dtype=torch.bool)
    residual, correlations = x, operator.correlate(x)
    norms, floor = torch.linalg.vector_norm(x, dim=1), rules.floor(x)
    slots = torch.arange(rules.k, device=x.device)
    for _ in range(rules.k):
        best, feature = _best(correlations, None, rules.signed)
        step = correlations.gather(1, feature[:, None])[:, 0]
        if not rules.signed:
            feature, step, best = _or_cut_back(correlations, codes, indices, used, feature, step, best)
        moving = (best > floor) & (torch.linalg.vector_norm(residual, dim=1) > rules.tolerance * norms)
        if not moving.any():
            break
        known = used & (indices == feature[:, None])
        slot = torch.where(known.any(dim=1), known.int().argmax(dim=1), used.sum(dim=1))
        chosen = (slots == slot[:, None]) & moving[:, None]
        change = chosen * step[:, None]
        indices, used, codes = torch.where(chosen, feature[:, None], indices), used | chosen, codes + change
        residual = residual - operator.synthesize(change, indices)
        correlations = operator.update(correlations, residual, change, indices)
    return codes, indices


def _or_cut_back(
    correlations: Float[Tensor, "batch n"],
    codes: Float[Tensor, "batch k"],
    indices: Int[Tensor, "batch k"],
    used: Bool[Tensor, "batch k"],
    feature: Int[Tensor, " batch"],
    step: Float[Tensor, " batch"],
    best: Float[Tensor, " batch"],
) -> tuple[Int[Tensor, " batch"], Float[Tensor, " batch"], Float[Tensor, " batch"]]:
    """The step that lowers the residual most: the best positive one, or taking back some of a column in use."""
    at = correlations.gather(1, indices)
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
    operator: Operator, x: Float[Tensor, "batch m"], rules: Rules
) -> tuple[Float[Tensor, "batch k"], Int[Tensor, "batch k"]]:
    """Take the best column, refit all of them, repeat; without `signed` the refit is non-negative least squares."""
    codes = x.new_zeros(x.shape[0], rules.k)
    indices = torch.zeros(x.shape[0], rules.k, dtype=torch.int64, device=x.device)
    used = torch.zeros_like(indices, dtype=torch.bool)
    residual, correlations = x, operator.correlate(x)
    whole, blocked = correlations.clone(), torch.zeros_like(correlations, dtype=torch.bool)
    gram, target = x.new_zeros(x.shape[0], rules.k, rules.k), torch.zeros_like(codes)
    norms, floor = torch.linalg.vector_norm(x, dim=1), rules.floor(x)
    slots = torch.arange(rules.k, device=x.device)
    for _ in range(PICKS_PER_FEATURE * rules.k):
        taken = blocked | (torch.zeros_like(correlations).scatter_add(1, indices, used.to(x.dtype)) > 0)
        best, feature = _best(correlations, taken, rules.signed)
        moving = (best > floor) & (torch.linalg.vector_norm(residual, dim=1) > rules.tolerance * norms)
        moving &= used.sum(dim=1) < rules.k
        if not moving.any():
            break
        chosen = (slots == used.sum(dim=1)[:, None]) & moving[:, None]
        indices = torch.where(chosen, feature[:, None], indices)
        products = operator.inner_products(feature, indices)
        gram = torch.where(chosen[:, :, None], products[:, None, :], gram)
        gram = torch.where(chosen[:, None, :], products[:, :, None], gram)
        target = torch.where(chosen, whole.gather(1, feature[:, None]), target)
        fit = refit(gram, target, codes, used, chosen, signed=rules.signed, dependent=DEPENDENT[x.element_size()])
        left = x - operator.synthesize(fit.codes, indices)
        # Several columns that nearly depend on others can, in rounded arithmetic, be fitted to anything.
        worse = moving & (torch.linalg.vector_norm(left, dim=1) > torch.linalg.vector_norm(residual, dim=1) + floor)
        refused = blocked.gather(1, feature[:, None]) | (fit.refused | worse)[:, None]
        blocked = blocked.scatter(1, feature[:, None], refused)
        fitted, kept = torch.where(worse[:, None], codes, fit.codes), torch.where(worse[:, None], used, fit.used)
        residual = torch.where(worse[:, None], residual, left)
        correlations = operator.update(correlations, residual, fitted - codes, indices)
        # Entries in use come first, in their order; a refit can drop one in the middle.
        order = (~kept).int().sort(dim=1, stable=True).indices
        codes, used, indices = (tensor.gather(1, order) for tensor in (fitted, kept, indices))
        target = target.gather(1, order)
        gram = gram.gather(1, order[:, :, None].expand_as(gram)).gather(2, order[:, None, :].expand_as(gram))
    return codes, indices
