"""The three products of codes, columns and tokens for CPUs: short loops without any temporary."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch

from expander_sae.kernels.cpu_columns import (
    Columns,
    column_times,
    columns_of,
    entries_of,
    padded,
    subtract_column,
)
from expander_sae.kernels.threads import over_tiles

TILE = 64
"""Tokens that a thread takes at a time."""


@numba.njit(cache=True, nogil=True)
def _combine_tokens(weights: Any, indices: Any, columns: Columns, start: int, stop: int, out: Any) -> None:
    for token in range(start, stop):
        for rank in range(indices.shape[1]):
            subtract_column(columns, indices[token, rank], -weights[token, rank], out[token])


@numba.njit(cache=True, nogil=True)
def _correlate_tokens(x: Any, indices: Any, columns: Columns, start: int, stop: int, out: Any) -> None:
    for token in range(start, stop):
        for rank in range(indices.shape[1]):
            out[token, rank] = column_times(columns, indices[token, rank], x[token])


@numba.njit(cache=True, nogil=True)
def _accumulate_features(
    weights: Any, indices: Any, x: Any, rows: Any, starts: Any, start: int, stop: int, out: Any
) -> None:
    for token in range(indices.shape[0]):
        for rank in range(indices.shape[1]):
            feature = indices[token, rank]
            if start <= feature < stop:
                weight = weights[token, rank]
                for entry in range(starts[feature], starts[feature + 1]):
                    out[entry] += weight * x[token, rows[entry]]


def combine(weights: Any, indices: Any, values: Any, rows: Any, out: Any) -> None:
    """Add every token's weighted sum of its columns to `out` [batch, m]."""
    columns = columns_of(values, rows)
    over_tiles(lambda start, stop: _combine_tokens(weights, indices, columns, start, stop, out), len(out), TILE)


def correlate(x: Any, indices: Any, values: Any, rows: Any) -> Any:
    """Every token times its own columns [batch, k]."""
    columns, out = columns_of(values, rows), np.empty(indices.shape, x.dtype)
    over_tiles(lambda start, stop: _correlate_tokens(x, indices, columns, start, stop, out), len(out), TILE)
    return out


def accumulate(weights: Any, indices: Any, x: Any, rows: Any) -> Any:
    """What every column sees of the tokens, weighted by its codes [n, d].

    Each thread owns a range of the features and looks at all codes, so that sums have one order whatever the threads.
    """
    n, d = rows.shape
    entries, starts = entries_of(rows)
    out = np.zeros(entries.size, x.dtype)
    share = max(1, -(-n // torch.get_num_threads()))
    over_tiles(
        lambda start, stop: _accumulate_features(weights, indices, x, entries, starts, start, stop, out), n, share
    )
    return padded(out, d, starts)
