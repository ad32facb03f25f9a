"""How columns get other rows: which entries would be the largest of each, and each with the entries that it gets."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from expander_sae.kernels.inputs import Implementation, choose
from expander_sae.supports import NO_ROW


def largest_entries(
    change: Float[Tensor, "n m"],
    values: Float[Tensor, "n d"],
    rows: Int[Tensor, "n d"],
    implementation: Implementation = "auto",
) -> tuple[Int[Tensor, "n d"], Float[Tensor, "n d"]]:
    """Rows and values of every column's d entries of the largest magnitude, descending.

    An entry is `values` where the column has a row and the change elsewhere; the entries are written into `change`.
    Equal magnitudes are taken from the lowest row on, whatever the version and the number of threads.
    """
    if choose(implementation, change.device, ("reference", "cpu")) == "cpu":
        from expander_sae.kernels.cpu.changes import largest_entries as largest_on_cpu

        return largest_on_cpu(change, values.contiguous(), rows.contiguous())
    column, slot = (rows >= 0).nonzero(as_tuple=True)
    change[column, rows[column, slot].long()] = values[column, slot]
    largest = change.abs().sort(dim=1, descending=True, stable=True).indices[:, : rows.shape[1]]
    return largest, change.gather(1, largest)


def in_order(
    wanted: Int[Tensor, "n d"],
    values: Float[Tensor, "n d"],
    kept: Bool[Tensor, "n d"],
    rows: Int[Tensor, "n d"],
    implementation: Implementation = "auto",
) -> tuple[Int[Tensor, "n d"], Float[Tensor, "n d"], Int[Tensor, "n d"]]:
    """The kept wanted entries in the order of their rows, then -1 and zeros; and where each is in `rows`, or -1."""
    if choose(implementation, values.device, ("reference", "cpu")) == "cpu":
        from expander_sae.kernels.cpu.changes import in_order as in_order_on_cpu

        return in_order_on_cpu(wanted.contiguous(), values.contiguous(), kept.contiguous(), rows.contiguous())
    beyond = torch.iinfo(rows.dtype).max
    placed, order = torch.where(kept, wanted, beyond).sort(dim=1, stable=True)
    before = torch.where(rows < 0, beyond, rows).long()
    slot = torch.searchsorted(before, placed).clamp_max(rows.shape[1] - 1)
    there = placed < beyond
    stays = (before.gather(1, slot) == placed) & there
    ordered = (values * kept).gather(1, order)
    return torch.where(there, placed, NO_ROW).to(rows.dtype), ordered, torch.where(stays, slot, -1)
