"""The three products of codes, columns and tokens for CPUs: short loops without any temporary."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch

from expander_sae.kernels.threads import over_tiles

TILE = 64
"""Tokens that a thread takes at a time."""


@numba.njit(cache=True, nogil=True)
def _combine_tokens(weights: Any, indices: Any, values: Any, rows: Any, start: int, stop: int, out: Any) -> None:
    for token in range(start, stop):
        for entry in range(indices.shape[1]):
            weight, feature = weights[token, entry], indices[token, entry]
            for slot in range(values.shape[1]):
                out[token, rows[feature, slot]] += weight * values[feature, slot]


@numba.njit(cache=True, nogil=True)
def _correlate_tokens(x: Any, indices: Any, values: Any, rows: Any, start: int, stop: int, out: Any) -> None:
    for token in range(start, stop):
        for entry in range(indices.shape[1]):
            feature = indices[token, entry]
            total = x[token, rows[feature, 0]] * values[feature, 0]
            for slot in range(1, values.shape[1]):
                total += x[token, rows[feature, slot]] * values[feature, slot]
            out[token, entry] = total


@numba.njit(cache=True, nogil=True)
def _accumulate_features(weights: Any, indices: Any, x: Any, rows: Any, start: int, stop: int, out: Any) -> None:
    for token in range(indices.shape[0]):
        for entry in range(indices.shape[1]):
            feature = indices[token, entry]
            if start <= feature < stop:
                weight = weights[token, entry]
                for slot in range(rows.shape[1]):
                    out[feature, slot] += weight * x[token, rows[feature, slot]]


def combine(weights: Any, indices: Any, values: Any, rows: Any, out: Any) -> None:
    """Add every token's weighted sum of its columns to `out` [batch, m]."""
    rows = rows.view(np.uint32)
    over_tiles(lambda start, stop: _combine_tokens(weights, indices, values, rows, start, stop, out), len(out), TILE)


def correlate(x: Any, indices: Any, values: Any, rows: Any) -> Any:
    """Every token times its own columns [batch, k]."""
    rows, out = rows.view(np.uint32), np.empty(indices.shape, x.dtype)
    over_tiles(lambda start, stop: _correlate_tokens(x, indices, values, rows, start, stop, out), len(out), TILE)
    return out


def accumulate(weights: Any, indices: Any, x: Any, rows: Any) -> Any:
    """What every column sees of the tokens, weighted by its codes [n, d].

    Each thread owns a range of the features and looks at all codes, so that sums have one order whatever the threads.
    """
    rows, out = rows.view(np.uint32), np.zeros(rows.shape, x.dtype)
    share = -(-len(rows) // torch.get_num_threads())
    over_tiles(
        lambda start, stop: _accumulate_features(weights, indices, x, rows, start, stop, out), len(rows), max(1, share)
    )
    return out
