"""Columns in blocks of eight, entry by entry: how a pursuit in lockstep looks at all features, and weighs a few.

The running sums of a block stay in vector registers, whether the lanes of a vector are the tokens of a tile
(`best_of_block`) or the columns of the block (`block_times`). Columns of a block are of like length, so that its loop
runs as often as the last block's did, which the processor guesses right.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from llvmlite.ir import IRBuilder, Value, VectorType
from numba import types
from numba.core.base import BaseContext as Context
from numba.core.typing import Signature
from numba.core.typing.context import BaseContext as Typing
from numba.extending import intrinsic
from numba.types import Type
from numpy.typing import NDArray
from torch import Tensor

from expander_sae.kernels.cpu.columns import Columns, Integers, compiled, entries_of
from expander_sae.kernels.cpu.vectors import (
    Intrinsic,
    Values,
    bytes_of,
    counted,
    data_of,
    element_of,
    entry_times_tile,
    larger,
    parts_of,
    product_of,
    span_of,
    splat,
    sums_over,
    vector_of,
)
from expander_sae.kernels.inputs import remembered

SIDE = 8
"""Columns of a block."""

_INT64 = ir.IntType(64)


class Blocks(NamedTuple):
    """The columns of a dictionary, shortest first; block b is what lies between starts[b] and starts[b + 1].

    Where a column is shorter than the longest of its block, or the last block has fewer than eight, values are zero.
    """

    values: NDArray[Any]
    """[entries, 8]"""
    rows: Integers
    """[entries, 8], unsigned"""
    starts: Integers
    """[blocks + 1], unsigned"""
    features: Integers
    """[8 blocks] which column is where; zeros at the end where there is none"""


def blocks_of(rows: Tensor, columns: Columns) -> Blocks:
    """The columns at rows [n, d], each put together with others of its length."""
    places, starts, features = remembered(rows, _places_of)
    return Blocks(_side_by_side(columns.values, columns.starts, starts, features), places, starts, features)


def with_values(blocks: Blocks, columns: Columns) -> Blocks:
    """The same blocks with the values of the same columns in another precision."""
    return blocks._replace(values=_side_by_side(columns.values, columns.starts, blocks.starts, blocks.features))


def _places_of(rows: Tensor) -> tuple[Integers, Integers, Integers]:
    """The rows, starts and features of blocks."""
    entries, firsts = entries_of(rows)
    n, lengths = len(rows), np.diff(firsts)
    order = np.argsort(lengths, kind="stable")
    longest = np.minimum(np.arange(SIDE - 1, n + SIDE - 1, SIDE), n - 1)
    starts = np.concatenate([np.zeros(1, np.uint64), np.cumsum(lengths[order[longest]], dtype=np.uint64)])
    features = np.zeros(len(longest) * SIDE, np.uint32)
    features[:n] = order
    return _side_by_side(entries, firsts, starts, features), starts, features


def _side_by_side(entries: NDArray[Any], starts: Integers, blocks: Integers, features: Integers) -> NDArray[Any]:
    """What belongs to the entries of columns that begin at `starts`, laid where their blocks begin."""
    laid = np.zeros((int(blocks[-1]), SIDE), entries.dtype)
    _lay_side_by_side(entries, starts, features, blocks, laid)
    return laid


@compiled
def _lay_side_by_side(
    entries: NDArray[Any], starts: Integers, features: Integers, blocks: Integers, out: NDArray[Any]
) -> None:
    for place in range(starts.size - 1):
        first = starts[features[place]]
        begin = blocks[place // SIDE]
        for entry in range(starts[features[place] + 1] - first):
            out[begin + entry, place % SIDE] = entries[first + entry]


def _sums_held(context: Context) -> int:
    """Bytes of running sums that a loop holds in registers: half of AVX-512's, or of what other processors have.

    With 16 bits and AVX-512 a look then takes a tenth less time than with one column at a time; of AVX2 twice as many
    make it a sixth slower, since it has to put some aside.
    """
    return 1024 if "+avx512f" in context.codegen().magic_tuple()[2] else 256


@intrinsic(prefer_literal=True)
def best_of_block(
    typing: Typing, lanes: Type, tile: Type, blocks: Type, offsets: Type, block: Type, maxima: Type, magnitudes: Type
) -> Intrinsic:
    """maxima[lane] = the largest correlation of a block's columns with the tokens of a tile [m, lanes].

    Of products of integers the upper half is summed. To each sum the column's offset [8 blocks] is added; then sums
    count by magnitude if `magnitudes`.
    """
    signature = types.void(lanes, tile, blocks, offsets, types.int64, maxima, types.boolean)

    def generate(context: Context, builder: IRBuilder, signature: Signature, arguments: Values) -> Value:
        _, tile_type, blocks_type, offsets_type, _, maxima_type, _ = signature.args
        vector = vector_of(tile_type, lanes)
        tokens = data_of(context, builder, tile_type, arguments[1], vector)
        values, rows, starts, _ = parts_of(context, builder, blocks_type, arguments[2])
        shifts = data_of(context, builder, offsets_type, arguments[3])
        begin, end = span_of(builder, starts, arguments[4])

        def shift(column: int) -> Value:
            at = builder.add(builder.mul(arguments[4], ir.Constant(_INT64, SIDE)), ir.Constant(_INT64, column))
            return splat(builder, builder.load(builder.gep(shifts, [at])), vector.count)

        def product(entry: Value, column: int) -> Value:
            at = builder.add(builder.mul(entry, ir.Constant(_INT64, SIDE)), ir.Constant(_INT64, column))
            return entry_times_tile(builder, values, rows, at, tokens, vector)

        together = min(SIDE, max(1, _sums_held(context) // (vector.count * bytes_of(vector))))
        found: list[Value] = []
        for first in range(0, SIDE, together):
            here = range(first, first + together)
            found += sums_over(builder, begin, end, {column: shift(column) for column in here}, product)
        found = [counted(builder, scores, arguments[6]) for scores in found]
        while len(found) > 1:
            found = [larger(builder, *pair) for pair in zip(found[::2], found[1::2], strict=True)]
        builder.store(found[0], data_of(context, builder, maxima_type, arguments[5], vector), align=bytes_of(vector))
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def block_times(typing: Typing, blocks: Type, block: Type, x: Type, magnitudes: Type, out: Type) -> Intrinsic:
    """out[column] = the inner products of a block's columns with x [m], or their magnitudes if these count.

    They are the numbers that `column_times` gives: an entry more of value zero changes none.
    """
    signature = types.void(blocks, types.int64, x, types.boolean, out)

    def generate(context: Context, builder: IRBuilder, signature: Signature, arguments: Values) -> Value:
        blocks_type, _, x_type, _, out_type = signature.args
        vector, places = VectorType(element_of(x_type), SIDE), VectorType(ir.IntType(32), SIDE)
        values, rows, starts, _ = parts_of(context, builder, blocks_type, arguments[0])
        values, rows = builder.bitcast(values, vector.as_pointer()), builder.bitcast(rows, places.as_pointer())
        token = data_of(context, builder, x_type, arguments[2])

        def product(entry: Value, _: int) -> Value:
            weights = builder.load(builder.gep(values, [entry]), align=bytes_of(vector))
            where = builder.load(builder.gep(rows, [entry]), align=bytes_of(places))
            read = ir.Constant(vector, ir.Undefined)
            for column in range(SIDE):
                lane = ir.Constant(ir.IntType(32), column)
                row = builder.zext(builder.extract_element(where, lane), _INT64)
                read = builder.insert_element(read, builder.load(builder.gep(token, [row])), lane)
            return product_of(builder, weights, read)

        nothing = ir.Constant(vector, [0.0] * SIDE)
        (total,) = sums_over(builder, *span_of(builder, starts, arguments[1]), {0: nothing}, product)
        place = data_of(context, builder, out_type, arguments[4], vector)
        builder.store(counted(builder, total, arguments[3]), place, align=bytes_of(vector))
        return context.get_dummy_value()

    return signature, generate
