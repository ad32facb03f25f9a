"""Least squares on a token's chosen columns, signed or non-negative, batched, from their Gram matrix."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor


class Fit(NamedTuple):
    """Codes of the columns in use, and the tokens whose new column was refused."""

    codes: Float[Tensor, "batch k"]
    used: Bool[Tensor, "batch k"]
    refused: Bool[Tensor, " batch"]


def _factor(gram: Float[Tensor, "batch k k"], used: Bool[Tensor, "batch k"]) -> Float[Tensor, "batch k k"]:
    """The Cholesky factor of the used part of each Gram matrix; unused columns get a unit diagonal."""
    pair = used[:, :, None] & used[:, None, :]
    masked = torch.where(pair, gram, 0.0) + torch.diag_embed((~used).to(gram.dtype))
    return torch.linalg.cholesky_ex(masked).L


def solve_used(
    gram: Float[Tensor, "batch k k"], target: Float[Tensor, "batch k"], used: Bool[Tensor, "batch k"]
) -> Float[Tensor, "batch k"]:
    """The least-squares codes on the used columns, zero elsewhere."""
    return torch.cholesky_solve((target * used)[..., None], _factor(gram, used))[..., 0] * used


def refit(
    gram: Float[Tensor, "batch k k"],
    target: Float[Tensor, "batch k"],
    codes: Float[Tensor, "batch k"],
    used: Bool[Tensor, "batch k"],
    chosen: Bool[Tensor, "batch k"],
    *,
    signed: bool,
    dependent: float,
) -> Fit:
    """Codes after adding the `chosen` column (at most one a token, behind those in use).

    A column within the span of the others (squared distance below `dependent`) is refused. Non-negative codes come
    from Lawson and Hanson's active set method, started at the old codes: columns that would turn negative are dropped.
    """
    grown = used | chosen
    pivot = torch.diagonal(_factor(gram, grown), dim1=1, dim2=2) ** 2
    refused = (chosen & ~(pivot >= dependent)).any(dim=1)
    moved = chosen.any(dim=1) & ~refused
    grown = torch.where(refused[:, None], used, grown)
    solved = solve_used(gram, target, grown)
    if not signed:
        solved, grown = _drop_negative(gram, target, codes, solved, grown)
    return Fit(torch.where(moved[:, None], solved, codes), torch.where(moved[:, None], grown, used), refused)


def _drop_negative(
    gram: Float[Tensor, "batch k k"],
    target: Float[Tensor, "batch k"],
    codes: Float[Tensor, "batch k"],
    solved: Float[Tensor, "batch k"],
    used: Bool[Tensor, "batch k"],
) -> tuple[Float[Tensor, "batch k"], Bool[Tensor, "batch k"]]:
    """Walk from the old codes towards the solution, dropping each column that reaches zero, until none is negative."""
    while True:
        negative = used & (solved <= 0)
        if not negative.any():
            return solved, used
        share = torch.where(negative, codes / (codes - solved).clamp(min=torch.finfo(codes.dtype).tiny), torch.inf)
        walk = share.min(dim=1, keepdim=True).values
        dropped = negative & (share <= walk)
        codes = torch.where(torch.isfinite(walk), codes + walk.clamp(max=1) * (solved - codes), solved)
        codes, used = codes * ~dropped, used & ~dropped
        solved = solve_used(gram, target, used)


def least_squares(
    gram: Float[Tensor, "batch k k"],
    target: Float[Tensor, "batch k"],
    codes: Float[Tensor, "batch k"],
    used: Bool[Tensor, "batch k"],
    *,
    signed: bool,
    dependent: float,
) -> Float[Tensor, "batch k"]:
    """Codes of all used columns at once, zero elsewhere; non-negative unless `signed`, started at the given codes.

    A column within the span of those before it (squared distance below `dependent`) gets zero.
    """
    allowed = _independent(gram, used, dependent)
    solved = solve_used(gram, target, allowed)
    if signed:
        return solved
    solved, used = _drop_negative(gram, target, codes.clamp(min=0) * allowed, solved, allowed)
    rounding = 8 * torch.finfo(gram.dtype).eps * target.abs().amax(dim=1, keepdim=True)
    for _ in range(codes.shape[1]):
        # A column dropped on the way may help in the end: take the best one back, as Lawson and Hanson do.
        gradient = (target - (gram @ solved[..., None])[..., 0]).masked_fill(used | ~allowed, 0.0)
        best = gradient.max(dim=1, keepdim=True)
        returning = torch.zeros_like(used).scatter(1, best.indices, best.values > rounding)
        if not returning.any():
            break
        grown = used | returning
        solved, used = _drop_negative(gram, target, solved, solve_used(gram, target, grown), grown)
    return solved


def _independent(
    gram: Float[Tensor, "batch k k"], used: Bool[Tensor, "batch k"], dependent: float
) -> Bool[Tensor, "batch k"]:
    """The used columns without those that depend on the ones before them."""
    while True:
        pivot = torch.diagonal(_factor(gram, used), dim1=1, dim2=2) ** 2
        lost = used & ~(pivot >= dependent)
        # Pivots behind a lost one mean nothing yet, so only the first goes, and the rest are looked at again.
        first = lost & (lost.cumsum(dim=1) == 1)
        if not first.any():
            return used
        used = used & ~first
