"""Tiles of tokens: transposed to [m, lanes], so that one gathered row serves all of them with contiguous loads."""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from llvmlite.ir import IRBuilder, Value, VectorType
from numba import types
from numba.core.base import BaseContext as Context
from numba.core.typing import Signature
from numba.core.typing.context import BaseContext as Typing
from numba.extending import intrinsic
from numba.types import Type
from numpy.typing import DTypeLike

from expander_sae.kernels.cpu.columns import Floats, Places, compiled
from expander_sae.kernels.cpu.vectors import Intrinsic, Values, bytes_of, data_of, element_of

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


@intrinsic(prefer_literal=True)
def _turn_block(
    typing: Typing, line: Type, source: Type, start: Type, pitch: Type, out: Type, to: Type, out_pitch: Type
) -> Intrinsic:
    """out[to + row * out_pitch + column] = source[start + column * pitch + row] for a square block, all in registers.

    The block is as wide as a line of so many bytes, a power of two. Both arrays are contiguous and read as flat.
    """
    signature = types.void(line, source, types.int64, types.int64, out, types.int64, types.int64)

    def generate(context: Context, builder: IRBuilder, signature: Signature, arguments: Values) -> Value:
        element = element_of(signature.args[1])
        align = bytes_of(VectorType(element, 1))
        count = line.literal_value // align
        vector = VectorType(element, count)

        def part(array: int, number: int) -> Value:
            data = data_of(context, builder, signature.args[array], arguments[array])
            offset = builder.mul(arguments[array + 2], ir.Constant(ir.IntType(64), number))
            return builder.bitcast(builder.gep(data, [builder.add(arguments[array + 1], offset)]), vector.as_pointer())

        lines = [builder.load(part(1, number), align=align) for number in range(count)]
        # Interleaving the first half of the lines with the second moves one bit of a place's row to its column.
        for _ in range(count.bit_length() - 1):
            lines = [_interleave(builder, lines[row // 2], lines[(row + count) // 2], row % 2) for row in range(count)]
        for number in range(count):
            builder.store(lines[number], part(4, number), align=align)
        return context.get_dummy_value()

    return signature, generate


def _interleave(builder: IRBuilder, one: Value, other: Value, half: int) -> Value:
    """The first or second half of one[0], other[0], one[1], other[1], ..."""
    lanes = one.type.count
    places = [half * lanes // 2 + place // 2 + lanes * (place % 2) for place in range(lanes)]
    return builder.shuffle_vector(one, other, ir.Constant(VectorType(ir.IntType(32), lanes), places))


@compiled
def fill_tile(x: Places, start: int, stop: int, tile: Places) -> None:
    """Copy rows start..stop of x [batch, m or more] into the columns of tile [m, lanes]; unused lanes become zero."""
    tokens, width, lanes, pitch = stop - start, tile.shape[0], tile.shape[1], x.shape[1]
    side = CACHE_LINE // tile.itemsize
    whole_tokens, whole_width = tokens // side * side, width // side * side
    for token in range(0, whole_tokens, side):
        for coordinate in range(0, whole_width, side):
            source, to = (start + token) * pitch + coordinate, coordinate * lanes + token
            _turn_block(CACHE_LINE, x, source, pitch, tile, to, lanes)
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
