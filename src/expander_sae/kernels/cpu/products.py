"""The three products of codes, columns and tokens for CPUs: short loops without any temporary."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from expander_sae.kernels.cpu.columns import (
    Columns,
    Floats,
    Integers,
    column_times,
    columns_of,
    compiled,
    entries_of,
    padded,
    subtract_column,
)
from expander_sae.kernels.threads import over_tiles

TILE = 64
"""Tokens that a thread takes at a time."""


@compiled
def _combine_tokens(weights: Floats, indices: Integers, columns: Columns, start: int, stop: int, out: Floats) -> None:
    for token in range(start, stop):
        for rank in range(indices.shape[1]):
            subtract_column(columns, indices[token, rank], -weights[token, rank], out[token])


@compiled
def _correlate_tokens(x: Floats, indices: Integers, columns: Columns, start: int, stop: int, out: Floats) -> None:
    for token in range(start, stop):
        for rank in range(indices.shape[1]):
            out[token, rank] = column_times(columns, indices[token, rank], x[token])


@compiled
def _accumulate_features(
    weights: Floats, indices: Integers, x: Floats, rows: Integers, starts: Integers, start: int, stop: int, out: Floats
) -> None:
    for token in range(indices.shape[0]):
        for rank in range(indices.shape[1]):
            feature = indices[token, rank]
            if start <= feature < stop:
                weight = weights[token, rank]
                for entry in range(starts[feature], starts[feature + 1]):
                    out[entry] += weight * x[token, rows[entry]]


def add_columns(weights: Tensor, indices: Tensor, values: Tensor, rows: Tensor, total: Tensor) -> None:
    """Add every token's weighted sum of its columns to `total`, in place; else like `reference.combine`."""
    columns, codes, out = columns_of(values.numpy(), rows.numpy()), (weights.numpy(), indices.numpy()), total.numpy()
    over_tiles(lambda start, stop: _combine_tokens(*codes, columns, start, stop, out), len(out), TILE)


def correlate_at(x: Tensor, indices: Tensor, values: Tensor, rows: Tensor) -> Tensor:
    """Every token times its own columns, like `reference.correlate_at`."""
    found = x.new_empty(indices.shape)
    columns, out = columns_of(values.numpy(), rows.numpy()), found.numpy()
    tokens, features = x.numpy(), indices.numpy()
    over_tiles(lambda start, stop: _correlate_tokens(tokens, features, columns, start, stop, out), len(out), TILE)
    return found


def accumulate(weights: Tensor, indices: Tensor, x: Tensor, rows: Tensor) -> Tensor:
    """What every column sees of the tokens, weighted by its codes; zero where a shorter column has no row.

    Each thread owns a range of the features and looks at all codes, so that sums have one order whatever the threads.
    """
    n, d = rows.shape
    entries, starts = entries_of(rows.numpy())
    codes, tokens = (weights.numpy(), indices.numpy()), x.numpy()
    out = np.zeros(entries.size, tokens.dtype)
    share = max(1, -(-n // torch.get_num_threads()))
    over_tiles(lambda start, stop: _accumulate_features(*codes, tokens, entries, starts, start, stop, out), n, share)
    return torch.from_numpy(padded(out, d, starts))
