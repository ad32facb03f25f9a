"""How columns get other rows: the codes of each, which of its entries would be the largest, and those that it gets."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from expander_sae.kernels.inputs import Implementation, choose
from expander_sae.supports import NO_ROW


class CodesByFeature(NamedTuple):
    """The codes of some tokens, feature after feature, those of one in the order of the tokens."""

    starts: Int[Tensor, "n_plus_1"]
    """Where those of a feature begin, and the last one's end."""
    tokens: Int[Tensor, " codes"]
    weights: Float[Tensor, " codes"]


def codes_by_feature(
    codes: Float[Tensor, "tokens k"], indices: Int[Tensor, "tokens k"], n: int, implementation: Implementation = "auto"
) -> CodesByFeature:
    """The codes that are not zero, sorted by features; every index is one of n."""
    if choose(implementation, codes.device, ("reference", "cpu")) == "cpu":
        from expander_sae.kernels.cpu.changes import codes_by_feature as codes_by_feature_on_cpu

        return CodesByFeature(*codes_by_feature_on_cpu(codes.contiguous(), indices.contiguous(), n))
    there = codes.flatten().nonzero()[:, 0]
    features, order = indices.flatten()[there].sort(stable=True)
    starts = torch.searchsorted(features, torch.arange(n + 1, device=codes.device))
    chosen = there[order]
    return CodesByFeature(starts, chosen // codes.shape[1], codes.flatten()[chosen])


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


def relocate(
    entries: Float[Tensor, "n d"],
    features: Int[Tensor, " f"],
    rows: Int[Tensor, "f d"],
    source: Int[Tensor, "f d"],
    new: Float[Tensor, "f d"] | Float[Tensor, "f 1"],
    implementation: Implementation = "auto",
) -> None:
    """Put the entries of some columns where they moved to, in place.

    They come from their source slot, or are new where that is -1, and zero where the column has no row any more.
    """
    if choose(implementation, entries.device, ("reference", "cpu")) == "cpu":
        from expander_sae.kernels.cpu.changes import relocate as relocate_on_cpu

        relocate_on_cpu(entries, features, rows.contiguous(), source.contiguous(), new.contiguous())
        return
    before = entries.index_select(0, features)
    after = torch.where(source >= 0, before.gather(1, source.clamp_min(0)), new)
    entries.index_copy_(0, features, after * (rows >= 0))


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
