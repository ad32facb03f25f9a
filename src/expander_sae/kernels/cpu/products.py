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
    copy_token,
    entries_of,
    padded,
    subtract_column,
)
from expander_sae.kernels.threads import over_tiles

TILE = 64
"""Tokens that a thread takes at a time."""


@compiled
def _combine_tokens(
    weights: Floats, indices: Integers, columns: Columns, base: Floats, start: int, stop: int, out: Floats
) -> None:
    """Columns are added to a token's base (or zeros, if there is none) while that is in the cache."""
    for token in range(start, stop):
        if base.shape[0] > 0:
            copy_token(base[token], out[token])
        else:
            out[token, :] = 0
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


def combine(weights: Tensor, indices: Tensor, values: Tensor, rows: Tensor, onto: Tensor | None, m: int) -> Tensor:
    """Every token's weighted sum of its columns, plus `onto` if that is given, like `reference.combine`."""
    total = weights.new_empty(len(weights), m)
    columns, codes, out = columns_of(values, rows), (weights.numpy(), indices.numpy()), total.numpy()
    base = weights.new_empty(0, m).numpy() if onto is None else onto.contiguous().numpy()
    over_tiles(lambda start, stop: _combine_tokens(*codes, columns, base, start, stop, out), len(out), TILE)
    return total


def correlate_at(x: Tensor, indices: Tensor, values: Tensor, rows: Tensor) -> Tensor:
    """Every token times its own columns, like `reference.correlate_at`."""
    found = x.new_empty(indices.shape)
    columns, out = columns_of(values, rows), found.numpy()
    tokens, features = x.numpy(), indices.numpy()
    over_tiles(lambda start, stop: _correlate_tokens(tokens, features, columns, start, stop, out), len(out), TILE)
    return found


def accumulate(weights: Tensor, indices: Tensor, x: Tensor, rows: Tensor) -> Tensor:
    """What every column sees of the tokens, weighted by its codes; zero where a shorter column has no row.

    Each thread owns a range of the features and looks at all codes, so that sums have one order whatever the threads.
    """
    n, d = rows.shape
    entries, starts = entries_of(rows)
    codes, tokens = (weights.numpy(), indices.numpy()), x.numpy()
    out = np.zeros(entries.size, tokens.dtype)
    share = max(1, -(-n // torch.get_num_threads()))
    over_tiles(lambda start, stop: _accumulate_features(*codes, tokens, entries, starts, start, stop, out), n, share)
    return torch.from_numpy(padded(out, d, starts))
