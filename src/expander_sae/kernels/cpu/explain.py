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
    """[tokens, m], still to be multiplied by the factor"""
    factor: float


@compiled
def _by_tokens(
    batch: Batch,
    encoder: Columns,
    decoder: Columns,
    start: int,
    stop: int,
    passed_on: Floats,
    sums: Floats,
    of_x: Floats,
) -> None:
    """What the codes of some tokens pass on, the sums of their residual's gradients, and the tokens' own if asked for.

    Each tile of tokens has a sum of its own, so that sums have one order whatever the threads.
    """
    for token in range(start, stop):
        gradient, total = batch.of_residual[token], sums[token // TILE]
        for coordinate in range(gradient.size):
            total[coordinate] += batch.factor * gradient[coordinate]
        if of_x.shape[0] > 0:
            for coordinate in range(gradient.size):
                of_x[token, coordinate] = batch.factor * gradient[coordinate]
        for rank in range(batch.codes.shape[1]):
            feature = batch.indices[token, rank]
            if batch.codes[token, rank] != 0:
                passed = batch.of_codes[token, rank] - batch.factor * column_times(decoder, feature, gradient)
                passed_on[token, rank] = passed
                if of_x.shape[0] > 0:
                    subtract_column(encoder, feature, -passed, of_x[token])


@compiled
def _by_features(
    batch: Batch,
    passed_on: Floats,
    encoder: Columns,
    decoder: Columns,
    start: int,
    stop: int,
    of_bias: Floats,
    of_encoder: Floats,
    of_decoder: Floats,
) -> None:
    """What the columns of some features see of the tokens and of their gradients."""
    for token in range(batch.codes.shape[0]):
        x, gradient = batch.x[token], batch.of_residual[token]
        for rank in range(batch.codes.shape[1]):
            feature, code = batch.indices[token, rank], batch.factor * batch.codes[token, rank]
            if start <= feature < stop and batch.codes[token, rank] != 0:
                weight = passed_on[token, rank]
                of_bias[feature] += weight
                for entry in range(encoder.starts[feature], encoder.starts[feature + 1]):
                    of_encoder[entry] += weight * x[encoder.rows[entry]]
                for entry in range(decoder.starts[feature], decoder.starts[feature + 1]):
                    of_decoder[entry] -= code * gradient[decoder.rows[entry]]


@compiled
def _by_features_of_both(
    batch: Batch, passed_on: Floats, columns: Columns, start: int, stop: int, of_bias: Floats, of_columns: Floats
) -> None:
    """What columns that both read and write see of the tokens and of their gradients."""
    for token in range(batch.codes.shape[0]):
        x, gradient = batch.x[token], batch.of_residual[token]
        for rank in range(batch.codes.shape[1]):
            feature, code = batch.indices[token, rank], batch.factor * batch.codes[token, rank]
            if start <= feature < stop and batch.codes[token, rank] != 0:
                weight = passed_on[token, rank]
                of_bias[feature] += weight
                for entry in range(columns.starts[feature], columns.starts[feature + 1]):
                    row = columns.rows[entry]
                    of_columns[entry] += weight * x[row] - code * gradient[row]


@compiled
def _by_shift(sums: Floats, of_bias: Floats, encoder: Columns, of_shift: Floats) -> None:
    """Minus the sum of the tokens' gradients: what their residuals' add up to, and what their codes pass on."""
    for tile in range(sums.shape[0]):
        for coordinate in range(of_shift.size):
            of_shift[coordinate] -= sums[tile, coordinate]
    for feature in range(of_bias.size):
        if of_bias[feature] != 0:
            subtract_column(encoder, feature, of_bias[feature], of_shift)


def pull_back(
    x: Float[Tensor, "batch m"],
    codes: Float[Tensor, "batch k"],
    indices: Int[Tensor, "batch k"],
    encoder: tuple[Tensor, Tensor],
    decoder: tuple[Tensor, Tensor],
    of_codes: Float[Tensor, "batch k"],
    of_residual: Float[Tensor, "batch m"],
    factor: float,
    by_x: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients by x if asked for, by its shift, by the bias, by the columns that read and by those that write.

    The residual's own gradient is `of_residual` times the factor.

    Each thread owns a range of the features and looks at all codes, so that sums have one order whatever the threads.
    Where the same columns read and write they have one gradient, which is that of those that read.
    """
    scale = x.numpy().dtype.type(factor)
    batch = Batch(x.numpy(), codes.numpy(), indices.numpy(), of_codes.numpy(), of_residual.numpy(), scale)
    reading = writing = columns_of(*encoder)
    if decoder is not encoder:
        writing = columns_of(*decoder)
    (tokens, width), dtype, n = batch.x.shape, batch.x.dtype, len(encoder[1])
    passed_on, sums = np.zeros_like(batch.codes), np.zeros((-(-tokens // TILE), width), dtype)
    of_x, of_shift, of_bias = (
        np.empty((tokens if by_x else 0, width), dtype),
        np.zeros(width, dtype),
        np.zeros(n, dtype),
    )
    over_tiles(
        lambda start, stop: _by_tokens(batch, reading, writing, start, stop, passed_on, sums, of_x), tokens, TILE
    )
    share = max(1, -(-n // torch.get_num_threads()))
    of_reading, of_writing = np.zeros_like(reading.values), np.zeros(0, dtype)
    if decoder is encoder:
        over_tiles(
            lambda start, stop: _by_features_of_both(batch, passed_on, reading, start, stop, of_bias, of_reading),
            n,
            share,
        )
    else:
        grads = of_bias, of_reading, np.zeros_like(writing.values)
        over_tiles(lambda start, stop: _by_features(batch, passed_on, reading, writing, start, stop, *grads), n, share)
        of_writing = padded(grads[2], decoder[1].shape[1], writing.starts)
    _by_shift(sums, of_bias, reading, of_shift)
    of_reading = padded(of_reading, encoder[1].shape[1], reading.starts)
    gradients = of_x if by_x else of_x.reshape(0), of_shift, of_bias, of_reading, of_writing
    return tuple(map(torch.from_numpy, gradients))  # type: ignore[return-value]
