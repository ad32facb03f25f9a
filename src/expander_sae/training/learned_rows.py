"""Learned rows: columns start where the data is large, and move to where the residual wants them.

Columns are fitted by iterative hard thresholding. From the codes of some recent tokens, each coordinate's least-squares
change is (sum of code * residual) / (sum of code^2); what is wanted are the coordinates that would then be largest. So
nothing has to be said about how many entries move: a column at rest stays where it is. All columns share a budget of
entries: an entry is worth its square times the sum of its column's squared codes, which is what it explains, and the
most valuable ones are kept. Dead columns begin anew where the tokens with the largest residuals are large. Codes and
residuals of a window of tokens are held, and the changes of some columns at a time, so memory never grows with n * m.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from expander_sae.dictionaries import Codes
from expander_sae.distribution import Group
from expander_sae.supports import NO_ROW

WINDOW = 8192
"""Tokens, about, whose codes and residuals a move looks at."""
FEWEST = 5
"""Times that a feature must have fired in them for its column to move."""
CHUNK_ELEMENTS = 1 << 23
"""Changes held at a time."""


def rows_of_largest(
    x: Float[Tensor, "tokens m"], spread: Float[Tensor, " m"], n: int, d: int
) -> tuple[Int[Tensor, "n d"], Float[Tensor, "n d"]]:
    """n columns of unit norm on the d coordinates where a token each is largest; rows ascend.

    Coordinates are compared after division by the root of their spread, so that the few largest are not in every
    column. If there are fewer tokens than columns, later columns take the coordinates that the first ones left.
    """
    tokens, m = x.shape
    rank_blocks = -(-n // tokens)
    depth = min(m, rank_blocks * d)
    order = (x.abs() / spread.clamp_min(torch.finfo(x.dtype).tiny).sqrt()).topk(depth, dim=1).indices
    blocks = [order[:, _block(number, d, depth)] for number in range(rank_blocks)]
    rows = torch.cat(blocks)[:n].sort(dim=1).values
    values = x[torch.arange(n, device=x.device) % tokens].gather(1, rows)
    norms = torch.linalg.vector_norm(values, dim=1, keepdim=True)
    return rows.to(torch.int32), torch.where(norms > 0, values / norms, d**-0.5)


def _block(number: int, d: int, depth: int) -> slice:
    """The ranks that the columns of a block take; the first ones again once there are no more."""
    start = number * d % max(1, depth - d + 1)
    return slice(start, start + d)


class Wanted(NamedTuple):
    """The entries that columns would like to have, most wanted first."""

    rows: Int[Tensor, "n d"]
    """m where a column wants no more."""
    values: Float[Tensor, "n d"]
    energy: Float[Tensor, " n"]
    """The sum of every column's squared codes."""


class Moved(NamedTuple):
    """Columns after a move."""

    rows: Int[Tensor, "f d"]
    """Ascending, then -1."""
    values: Float[Tensor, "f d"]
    source: Int[Tensor, "f d"]
    """The slot where an entry was before, or -1 for an entry that is new."""


def present_entries(
    rows: Int[Tensor, "n d"], values: Float[Tensor, "n d"], energy: Float[Tensor, " n"], width: int
) -> Wanted:
    """What columns want that want to stay as they are."""
    largest = values.abs().sort(dim=1, descending=True, stable=True).indices
    there = torch.where(rows < 0, width, rows).long()
    return Wanted(there.gather(1, largest), values.gather(1, largest), energy)


def wanted_entries(
    rows: Int[Tensor, "n d"],
    values: Float[Tensor, "n d"],
    codes: Codes,
    residual: Float[Tensor, "tokens m"],
    group: Group,
) -> Wanted:
    """Columns that fired often enough want their d largest entries, and all others what they have."""
    m = residual.shape[1]
    weights = codes.values.flatten()
    order = codes.indices.flatten().argsort(stable=True)
    features, weights = codes.indices.flatten()[order], weights[order]
    tokens = order // codes.indices.shape[1]
    starts = torch.searchsorted(features, torch.arange(len(rows) + 1, device=rows.device))
    fired = weights.new_zeros(len(rows)).index_add_(0, features, (weights != 0).to(weights.dtype))
    energy = weights.new_zeros(len(rows)).index_add_(0, features, weights.square())
    fired, energy = group.add_up(fired), group.add_up(energy)
    wanted = present_entries(rows, values, energy, m)
    often = (fired >= FEWEST).nonzero()[:, 0]
    for chunk in torch.split(often, max(1, CHUNK_ELEMENTS // m)):
        change = group.add_up(_changes(chunk, starts, tokens, weights, residual)) / energy[chunk, None]
        column, slot = (rows[chunk] >= 0).nonzero(as_tuple=True)
        change[column, rows[chunk][column, slot].long()] = values[chunk][column, slot]
        largest = change.abs().topk(rows.shape[1], dim=1).indices
        wanted.rows[chunk], wanted.values[chunk] = largest, change.gather(1, largest)
    return wanted


def afforded(
    wanted: Wanted, energy: Float[Tensor, " n"], width: int, budget: int, least: int, whole: Int[Tensor, " w"]
) -> Bool[Tensor, "n d"]:
    """Which wanted entries the budget pays for: the most valuable of all columns.

    Every column has its first `least` ones, and the columns `whole` have all that they want.
    """
    worth = wanted.values.square() * energy[:, None]
    worth[whole] = torch.inf
    worth[:, :least] = torch.inf
    worth = torch.where(wanted.rows == width, -torch.inf, worth).flatten()
    kept = torch.zeros_like(worth, dtype=torch.bool)
    kept[worth.sort(descending=True, stable=True).indices[:budget]] = True
    return (kept & (worth > -torch.inf)).reshape(wanted.rows.shape)


def moved_columns(
    rows: Int[Tensor, "f d"], values: Float[Tensor, "f d"], wanted: Wanted, kept: Bool[Tensor, "f d"], width: int
) -> Moved:
    """The columns with the wanted entries that are kept; every column keeps its norm."""
    new_rows, order = torch.where(kept, wanted.rows, width).sort(dim=1, stable=True)
    moved = (wanted.values * kept).gather(1, order)
    old_rows = torch.where(rows < 0, width, rows).long()
    slot = torch.searchsorted(old_rows, new_rows).clamp_max(rows.shape[1] - 1)
    there = new_rows < width
    stays = (old_rows.gather(1, slot) == new_rows) & there
    # A column that grew would be taken more often and, being its own encoder, overshoot and be moved back: it diverges.
    norms = torch.linalg.vector_norm(moved, dim=1, keepdim=True)
    moved = moved * torch.where(norms > 0, torch.linalg.vector_norm(values, dim=1, keepdim=True) / norms, 1.0)
    return Moved(torch.where(there, new_rows, NO_ROW).to(torch.int32), moved, torch.where(stays, slot, -1))


def _changes(
    features: Int[Tensor, " f"],
    starts: Int[Tensor, "n_plus_1"],
    tokens: Int[Tensor, " entries"],
    weights: Float[Tensor, " entries"],
    residual: Float[Tensor, "tokens m"],
) -> Float[Tensor, "f m"]:
    """The sum of code * residual over the entries of each feature, which lie between its start and the next one's."""
    counts = starts[features + 1] - starts[features]
    ends = counts.cumsum(0)
    shift = (starts[features] - (ends - counts)).repeat_interleave(counts)
    entries = torch.arange(int(ends[-1]), device=residual.device) + shift
    return nn.functional.embedding_bag(
        tokens[entries], residual, ends - counts, mode="sum", per_sample_weights=weights[entries].to(residual.dtype)
    )


def high_loss_tokens(
    residual: Float[Tensor, "tokens m"], count: int, generator: torch.Generator
) -> Float[Tensor, "count m"]:
    """Residuals drawn in proportion to their squared norms, distinct as long as there are enough."""
    norms = torch.linalg.vector_norm(residual, dim=1).cpu()
    order = norms.argsort(stable=True)  # the same whichever process had which token
    order = order[norms[order] > 0]
    if len(order) == 0:
        return residual.new_zeros(count, residual.shape[1])
    drawn = torch.multinomial(
        norms[order].double().square(), count, replacement=len(order) < count, generator=generator
    )
    return residual[order[drawn].to(residual.device)]
