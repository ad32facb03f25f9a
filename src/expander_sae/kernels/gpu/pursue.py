"""Correlations for the greedy loop on GPUs: all of them once, then only those that a step has touched.

A step changes the residual on the rows of the columns whose codes changed, so only the features in the lists of those
rows have new correlations. These are made anew from the residual rather than corrected: a feature that two changed rows
share is then written twice with the same value, so no order of writing matters, nothing needs an atomic or a barrier,
and rounding does not pile up over the steps. Each has the bits that the textbook loop would give it.
"""

from __future__ import annotations

from dataclasses import dataclass

import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from expander_sae.kernels import greedy
from expander_sae.kernels.gpu.correlate import (
    BLOCK_LAUNCH,
    TILE,
    UNFUSED,
    check_device,
    correlate_block,
    device_of,
    features_at_once,
    splits_of,
    tiled,
)
from expander_sae.kernels.gpu.orthogonal import pursue as orthogonal_pursuit
from expander_sae.kernels.gpu.select import Columns
from expander_sae.kernels.reference import GatheredColumns
from expander_sae.supports import RowLists

ROWS_AT_ONCE = 8
"""Row lists that a program walks at the same time: all of a column of the usual degree 7."""

ENTRIES_AT_ONCE = 64
"""Entries of a row list that a program takes at once; a list has n * d / m of them, often 56."""

SCATTERED_COST = 8
"""How much longer a product takes in the local update than in a full correlation: an estimate from the memory traffic.
The local update gathers 4 bytes at a time, out of sectors of 32."""


@triton.jit(do_not_specialize=["batch", "features", "splits"])
def _all_correlations(
    x: tl.tensor,
    width: tl.tensor,
    values: tl.tensor,
    rows: tl.tensor,
    correlations: tl.tensor,
    batch: tl.tensor,
    features: tl.tensor,
    splits: tl.tensor,
    DEGREE: tl.constexpr,
    FEATURES: tl.constexpr,
    TOKENS: tl.constexpr,
) -> None:
    """correlations[token, feature]."""
    tile = (tl.program_id(0) // splits).to(tl.int64)
    tokens = tile * TOKENS + tl.arange(0, TOKENS)
    x += tile * width * TOKENS
    for first in range(tl.program_id(0) % splits * FEATURES, features, splits * FEATURES):
        feature = first + tl.arange(0, FEATURES)
        # Past the end the last feature is scored again: no load needs a mask.
        entry = tl.minimum(feature, features - 1).to(tl.int64) * DEGREE
        found = correlate_block(x, values + entry, rows + entry, DEGREE, False, TOKENS, correlations.dtype.element_ty)
        # Transposed before it is stored, so that neighbouring lanes write neighbouring features.
        place = tokens[:, None] * features + feature[None, :]
        tl.store(correlations + place, tl.trans(found), mask=(tokens < batch)[:, None] & (feature < features)[None, :])


@triton.jit(do_not_specialize=["features", "k"])
def _touched_correlations(
    residual: tl.tensor,
    width: tl.tensor,
    values: tl.tensor,
    rows: tl.tensor,
    starts: tl.tensor,
    list_features: tl.tensor,
    change: tl.tensor,
    indices: tl.tensor,
    correlations: tl.tensor,
    features: tl.tensor,
    k: tl.tensor,
    DEGREE: tl.constexpr,
    ROWS: tl.constexpr,
    ENTRIES: tl.constexpr,
) -> None:
    """Renew the correlations of one token with all features that share a row with one of its k columns."""
    program = tl.program_id(0).to(tl.int64)
    token = program // k
    if tl.load(change + program) != 0:
        residual += token * width
        correlations += token * features
        column = tl.load(indices + program)
        for first in range(0, DEGREE, ROWS):
            slot = first + tl.arange(0, ROWS)
            row = tl.load(rows + column * DEGREE + slot, mask=slot < DEGREE, other=0)
            start = tl.load(starts + row)
            length = tl.where(slot < DEGREE, tl.load(starts + row + 1) - start, 0)
            for offset in range(0, tl.max(length, axis=0), ENTRIES):
                entry = offset + tl.arange(0, ENTRIES)
                inside = entry[None, :] < length[:, None]
                place = start[:, None] + entry[None, :]
                feature = tl.load(list_features + place, mask=inside, other=0).reshape(ROWS * ENTRIES)
                entries = feature.to(tl.int64) * DEGREE
                found = correlate_block(
                    residual, values + entries, rows + entries, DEGREE, False, 1, correlations.dtype.element_ty
                )
                inside = inside.reshape(ROWS * ENTRIES)
                tl.store(correlations + feature[:, None], found, mask=inside[:, None])


@dataclass(frozen=True)
class LocalCorrelations(GatheredColumns):
    """Unit columns on a GPU, with correlations that are kept up to date through the row lists of their support."""

    row_lists: RowLists

    def correlate(self, x: Float[Tensor, "batch m"]) -> Float[Tensor, "batch n"]:
        """x times every column."""
        check_device(x, self.values, self.rows)
        batch, (features, degree) = x.shape[0], self.values.shape
        correlations = x.new_empty(batch, features)
        if batch == 0:
            return correlations
        with device_of(x):
            tiles, block = tiled(x), features_at_once(x)
            splits = splits_of(triton.cdiv(features, block), len(tiles))
            _all_correlations[(len(tiles) * splits,)](
                tiles, self.m, self.values, self.rows, correlations, batch, features, splits,
                degree, block, TILE, **BLOCK_LAUNCH, **UNFUSED,
            )  # fmt: skip
        return correlations

    def update(
        self,
        correlations: Float[Tensor, "batch n"],
        residual: Float[Tensor, "batch m"],
        change: Float[Tensor, "batch k"],
        indices: Int[Tensor, "batch k"],
    ) -> Float[Tensor, "batch n"]:
        """The correlations of the new residual; `correlations` is overwritten where they differ."""
        degree = self.values.shape[1]
        # A changed column has d rows, with n * d / m features each, of d products: against n * d for all features.
        if int(change.count_nonzero()) * degree * degree * SCATTERED_COST > change.shape[0] * self.m:
            return self.correlate(residual)
        lists = self.row_lists
        check_device(residual, lists.starts, lists.features, correlations)
        with device_of(residual):
            _touched_correlations[(change.numel(),)](
                residual, self.m, self.values, self.rows, lists.starts, lists.features, change, indices,
                correlations, self.values.shape[0], change.shape[1], degree, ROWS_AT_ONCE, ENTRIES_AT_ONCE,
                num_warps=4, **UNFUSED,
            )  # fmt: skip
        return correlations


def pursue(
    x: Tensor,
    unit: Tensor,
    rows: Tensor,
    lengths: Tensor | None,
    row_lists: RowLists,
    rules: greedy.Rules,
    orthogonal: bool,
) -> tuple[Tensor, Tensor]:
    """Greedy codes for unit columns like `reference.pursue`."""
    if orthogonal:
        return orthogonal_pursuit(x, Columns(unit, rows, lengths), rules)
    return greedy.pursue(LocalCorrelations(unit, rows, x.shape[1], row_lists), x, rules, orthogonal)
