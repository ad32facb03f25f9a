"""Tiles of tokens: transposed to [m, lanes], so that one gathered row serves all of them with contiguous loads."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from expander_sae.kernels.cpu.columns import Floats, Places, compiled
from expander_sae.kernels.cpu.vectors import turn_block

LANES = 64
"""Tokens per tile of `select`: what the bit mask of a compare can hold."""

CACHE_LINE = 64
"""Bytes; vector loads that straddle two lines take twice as long."""


def aligned(shape: tuple[int, ...], dtype: DTypeLike) -> Floats:
    """An uninitialised array that starts on a cache line."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.empty(size + CACHE_LINE, np.uint8)
    start = -raw.ctypes.data % CACHE_LINE
    return raw[start : start + size].view(dtype).reshape(shape)


@compiled
def fill_tile(x: Places, start: int, stop: int, tile: Places) -> None:
    """Copy rows start..stop of x [batch, m or more] into the columns of tile [m, lanes]; unused lanes become zero."""
    tokens, width, lanes, pitch = stop - start, tile.shape[0], tile.shape[1], x.shape[1]
    side = CACHE_LINE // tile.itemsize
    whole_tokens, whole_width = tokens // side * side, width // side * side
    for token in range(0, whole_tokens, side):
        for coordinate in range(0, whole_width, side):
            source, to = (start + token) * pitch + coordinate, coordinate * lanes + token
            turn_block(CACHE_LINE, x, source, pitch, tile, to, lanes)
    for token in range(tokens):
        for coordinate in range(whole_width if token < whole_tokens else 0, width):
            tile[coordinate, token] = x[start + token, coordinate]
    if tokens < lanes:
        tile[:, tokens:] = 0


@compiled
def all_finite(x: Floats) -> bool:
    """Whether no entry of x [batch, m] is NaN or infinite: the difference of such a number from itself is none."""
    wrong = False
    for token in range(x.shape[0]):
        for coordinate in range(x.shape[1]):
            wrong |= x[token, coordinate] - x[token, coordinate] != 0
    return not wrong
