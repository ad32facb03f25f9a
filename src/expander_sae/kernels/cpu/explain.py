"""The gradients of what one-shot codes leave, for CPUs: once over the tokens, once over the features."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from expander_sae.kernels.cpu.columns import (
    Columns,
    Floats,
    Integers,
    column_times,
    columns_of,
    compiled,
    padded,
    subtract_column,
)
from expander_sae.kernels.cpu.products import TILE
from expander_sae.kernels.threads import over_tiles


class Batch(NamedTuple):
    """Codes and the gradients that come back."""

    x: Floats
    """[tokens, m]"""
    codes: Floats
    """[tokens, k]"""
    indices: Integers
    """[tokens, k]"""
    of_codes: Floats
    """[tokens, k]"""
    of_residual: Floats
    """[tokens, m]"""


@compiled
def _by_tokens(
    batch: Batch, encoder: Columns, decoder: Columns, start: int, stop: int, passed_on: Floats, of_x: Floats
) -> None:
    """What the codes of some tokens pass on, and the tokens' gradients."""
    for token in range(start, stop):
        gradient, out = batch.of_residual[token], of_x[token]
        for coordinate in range(gradient.size):
            out[coordinate] = gradient[coordinate]
        for rank in range(batch.codes.shape[1]):
            feature = batch.indices[token, rank]
            if batch.codes[token, rank] != 0:
                passed = batch.of_codes[token, rank] - column_times(decoder, feature, gradient)
                subtract_column(encoder, feature, -passed, out)
                passed_on[token, rank] = passed


@compiled
def _by_features(
    batch: Batch,
    passed_on: Floats,
    encoder: Columns,
    decoder: Columns,
    start: int,
    stop: int,
    of_encoder: Floats,
    of_decoder: Floats,
) -> None:
    """What the columns of some features see of the tokens and of their gradients."""
    for token in range(batch.codes.shape[0]):
        x, gradient = batch.x[token], batch.of_residual[token]
        for rank in range(batch.codes.shape[1]):
            feature, code = batch.indices[token, rank], batch.codes[token, rank]
            if start <= feature < stop and code != 0:
                weight = passed_on[token, rank]
                for entry in range(encoder.starts[feature], encoder.starts[feature + 1]):
                    of_encoder[entry] += weight * x[encoder.rows[entry]]
                for entry in range(decoder.starts[feature], decoder.starts[feature + 1]):
                    of_decoder[entry] -= code * gradient[decoder.rows[entry]]


@compiled
def _by_features_of_both(
    batch: Batch, passed_on: Floats, columns: Columns, start: int, stop: int, of_columns: Floats
) -> None:
    """What columns that both read and write see of the tokens and of their gradients."""
    for token in range(batch.codes.shape[0]):
        x, gradient = batch.x[token], batch.of_residual[token]
        for rank in range(batch.codes.shape[1]):
            feature, code = batch.indices[token, rank], batch.codes[token, rank]
            if start <= feature < stop and code != 0:
                weight = passed_on[token, rank]
                for entry in range(columns.starts[feature], columns.starts[feature + 1]):
                    row = columns.rows[entry]
                    of_columns[entry] += weight * x[row] - code * gradient[row]


def pull_back(
    x: Float[Tensor, "batch m"],
    codes: Float[Tensor, "batch k"],
    indices: Int[Tensor, "batch k"],
    encoder: tuple[Tensor, Tensor],
    decoder: tuple[Tensor, Tensor],
    of_codes: Float[Tensor, "batch k"],
    of_residual: Float[Tensor, "batch m"],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What codes pass on, and the gradients by x, by the columns that read and by those that write.

    Each thread owns a range of the features and looks at all codes, so that sums have one order whatever the threads.
    Where the same columns read and write they have one gradient, which is the first.
    """
    batch = Batch(*(each.numpy() for each in (x, codes, indices, of_codes, of_residual)))
    reading = writing = columns_of(encoder[0].numpy(), encoder[1].numpy())
    if decoder is not encoder:
        writing = columns_of(decoder[0].numpy(), decoder[1].numpy())
    passed_on, of_x = np.zeros_like(batch.codes), np.empty_like(batch.x)
    over_tiles(lambda start, stop: _by_tokens(batch, reading, writing, start, stop, passed_on, of_x), len(x), TILE)
    n = max(len(encoder[1]), len(decoder[1]))
    share = max(1, -(-n // torch.get_num_threads()))
    of_reading = np.zeros_like(reading.values)
    if decoder is encoder:
        of_writing = np.zeros(0, of_reading.dtype)
        over_tiles(
            lambda start, stop: _by_features_of_both(batch, passed_on, reading, start, stop, of_reading), n, share
        )
    else:
        grads = of_reading, np.zeros_like(writing.values)
        over_tiles(lambda start, stop: _by_features(batch, passed_on, reading, writing, start, stop, *grads), n, share)
        of_writing = padded(grads[1], decoder[1].shape[1], writing.starts)
    of_reading = padded(of_reading, encoder[1].shape[1], reading.starts)
    return tuple(map(torch.from_numpy, (passed_on, of_x, of_reading, of_writing)))  # type: ignore[return-value]
