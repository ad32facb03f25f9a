"""The innermost loops, written as LLVM vectors: foremost one feature's correlation with a whole tile of tokens at once.

Numba cannot keep an array in registers across a loop, and this loop is all about that: the running sums of all tokens
of a tile stay in vector registers while the d gathered rows of the tile stream past. LLVM maps the wide vector onto
whatever the machine has (AVX-512, AVX2, NEON).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llvmlite import ir
from llvmlite.ir import IRBuilder, Value, VectorType
from numba import types
from numba.core.base import BaseContext as Context
from numba.core.typing import Signature
from numba.core.typing.context import BaseContext as Typing
from numba.extending import intrinsic
from numba.types import Type

Values = Sequence[Value]
Intrinsic = tuple[Signature, Callable[[Context, IRBuilder, Signature, Values], Value]]
"""What numba asks for: the types of a call, and what writes its code."""

_INT64 = ir.IntType(64)


def element_of(array_type: Type) -> ir.Type:
    """The LLVM type of one value of an array."""
    if isinstance(array_type.dtype, types.Integer):
        return ir.IntType(array_type.dtype.bitwidth)
    return ir.DoubleType() if array_type.dtype == types.float64 else ir.FloatType()


def _bytes_of(vector: VectorType) -> int:
    """The size of one element: the only alignment that a row of a tile promises."""
    if isinstance(vector.element, ir.IntType):
        return int(vector.element.width) // 8
    return 8 if isinstance(vector.element, ir.DoubleType) else 4


def is_whole(number: Value) -> bool:
    """Whether a number, or each number of a vector, is an integer."""
    return isinstance(number.type.element if isinstance(number.type, VectorType) else number.type, ir.IntType)


def _sum(builder: IRBuilder, one: Value, other: Value) -> Value:
    return builder.add(one, other) if is_whole(one) else builder.fadd(one, other)


def _product(builder: IRBuilder, one: Value, other: Value) -> Value:
    """The product of two vectors; of integers its upper half, which most machines make in one instruction."""
    if not is_whole(one):
        return builder.fmul(one, other)
    bits = one.type.element.width
    wide = VectorType(ir.IntType(2 * bits), one.type.count)
    whole = builder.mul(builder.sext(one, wide), builder.sext(other, wide))
    return builder.trunc(builder.lshr(whole, ir.Constant(wide, [bits] * one.type.count)), one.type)


def _negative(builder: IRBuilder, number: Value) -> Value:
    return builder.neg(number) if is_whole(number) else builder.fneg(number)


def _compare(builder: IRBuilder, relation: str, one: Value, other: Value) -> Value:
    if is_whole(one):
        return builder.icmp_signed(relation, one, other)
    return builder.fcmp_ordered(relation, one, other)


def _splat(builder: IRBuilder, scalar: Value, lanes: int) -> Value:
    """A vector with `scalar` in every lane."""
    blank = ir.Constant(VectorType(scalar.type, lanes), ir.Undefined)
    first = builder.insert_element(blank, scalar, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, blank, ir.Constant(VectorType(ir.IntType(32), lanes), [0] * lanes))


def _weighted_sum(
    builder: IRBuilder, tile: Value, values: Value, rows: Value, start: Value, degree: Value, vector: VectorType
) -> Value:
    """Emit the loop `sum += tile[rows[s]] * values[s]` for s in start..start+degree; returns the sum's vector."""
    before, loop = builder.block, builder.append_basic_block("degree")
    after = builder.append_basic_block("summed")
    builder.branch(loop)
    builder.position_at_end(loop)
    slot, total = builder.phi(_INT64), builder.phi(vector)
    position = builder.add(start, slot)
    row = builder.zext(builder.load(builder.gep(rows, [position])), _INT64)
    tokens = builder.load(builder.gep(tile, [row]), align=_bytes_of(vector))
    weight = _splat(builder, builder.load(builder.gep(values, [position])), vector.count)
    # Product and sum are rounded apart (no fused multiply-add), as in the reference: same bits on every machine.
    new_total = _sum(builder, total, _product(builder, tokens, weight))
    next_slot = builder.add(slot, ir.Constant(_INT64, 1))
    slot.add_incoming(ir.Constant(_INT64, 0), before)
    slot.add_incoming(next_slot, loop)
    total.add_incoming(ir.Constant(vector, [0 if is_whole(total) else 0.0] * vector.count), before)
    total.add_incoming(new_total, loop)
    builder.cbranch(builder.icmp_unsigned("<", next_slot, degree), loop, after)
    builder.position_at_end(after)
    return new_total


def _vector_of(array_type: Type, lanes: Type) -> VectorType:
    """The LLVM vector that holds one value of `array_type` for each lane."""
    return VectorType(element_of(array_type), lanes.literal_value)


def _data(
    context: Context, builder: IRBuilder, array_type: Type, array: Value, vector: VectorType | None = None
) -> Value:
    """The pointer to an array's data, as a pointer to `vector` when one is given."""
    pointer = context.make_array(array_type)(context, builder, array).data
    return pointer if vector is None else builder.bitcast(pointer, vector.as_pointer())


@intrinsic(prefer_literal=True)
def correlate_tile(
    typing: Typing,
    lanes: Type,
    tile: Type,
    values: Type,
    rows: Type,
    starts: Type,
    bias: Type,
    feature: Type,
    out: Type,
) -> Intrinsic:
    """out[lane] = sum_s values[s] * tile[rows[s], lane] + bias[feature], over the entries s of the feature's column.

    tile [m, lanes], values, rows and starts as in `Columns` (none empty), bias [n], out [lanes]; all contiguous. Of
    products of integers the upper half is summed.
    """
    signature = types.void(lanes, tile, values, rows, starts, bias, types.int64, out)

    def generate(context: Context, builder: IRBuilder, signature: Signature, arguments: Values) -> Value:
        _, tile_type, values_type, rows_type, starts_type, bias_type, _, out_type = signature.args
        vector = _vector_of(tile_type, lanes)
        place = builder.gep(_data(context, builder, starts_type, arguments[4]), [arguments[6]])
        start = builder.zext(builder.load(place), _INT64)
        stop = builder.zext(builder.load(builder.gep(place, [ir.Constant(_INT64, 1)])), _INT64)
        total = _weighted_sum(
            builder,
            _data(context, builder, tile_type, arguments[1], vector),
            _data(context, builder, values_type, arguments[2]),
            _data(context, builder, rows_type, arguments[3]),
            start,
            builder.sub(stop, start),
            vector,
        )
        shift = builder.load(builder.gep(_data(context, builder, bias_type, arguments[5]), [arguments[6]]))
        total = _sum(builder, total, _splat(builder, shift, vector.count))
        pointer = _data(context, builder, out_type, arguments[7], vector)
        builder.store(total, pointer, align=_bytes_of(vector))
        return context.get_dummy_value()

    return signature, generate


@intrinsic(prefer_literal=True)
def best_of_block(
    typing: Typing,
    lanes: Type,
    tile: Type,
    columns: Type,
    bias: Type,
    first: Type,
    last: Type,
    maxima: Type,
    magnitudes: Type,
) -> Intrinsic:
    """maxima[lane] = the largest correlation, as `correlate_tile` makes it, of the features first, ..., last - 1.

    Correlations count by magnitude if `magnitudes`; columns is a `Columns`, first is less than last.
    """
    signature = types.void(lanes, tile, columns, bias, types.int64, types.int64, maxima, types.boolean)

    def generate(context: Context, builder: IRBuilder, signature: Signature, arguments: Values) -> Value:
        _, tile_type, columns_type, bias_type, _, _, maxima_type, _ = signature.args
        vector = _vector_of(tile_type, lanes)
        tokens = _data(context, builder, tile_type, arguments[1], vector)
        values, rows, starts = (
            _data(context, builder, part_type, builder.extract_value(arguments[2], part))
            for part, part_type in enumerate(columns_type.types)
        )
        shifts = _data(context, builder, bias_type, arguments[3])
        before, loop, after = builder.block, builder.append_basic_block("feature"), builder.append_basic_block("block")
        begin = builder.zext(builder.load(builder.gep(starts, [arguments[4]])), _INT64)
        builder.branch(loop)
        builder.position_at_end(loop)
        feature, start, largest = builder.phi(_INT64), builder.phi(_INT64), builder.phi(vector)
        following = builder.add(feature, ir.Constant(_INT64, 1))
        stop = builder.zext(builder.load(builder.gep(starts, [following])), _INT64)
        found = _weighted_sum(builder, tokens, values, rows, start, builder.sub(stop, start), vector)
        found = _sum(builder, found, _splat(builder, builder.load(builder.gep(shifts, [feature])), vector.count))
        larger = _larger(builder, largest, _counted(builder, found, arguments[7]))
        least = ir.Constant(vector, [least_of(vector.element)] * vector.count)
        for phi, at_first, later in (
            (feature, arguments[4], following),
            (start, begin, stop),
            (largest, least, larger),
        ):
            phi.add_incoming(at_first, before)
            phi.add_incoming(later, builder.block)
        builder.cbranch(builder.icmp_unsigned("<", following, arguments[5]), loop, after)
        builder.position_at_end(after)
        builder.store(larger, _data(context, builder, maxima_type, arguments[6], vector), align=_bytes_of(vector))
        return context.get_dummy_value()

    return signature, generate


def _larger(builder: IRBuilder, one: Value, other: Value) -> Value:
    return builder.select(_compare(builder, ">", other, one), other, one)


def _counted(builder: IRBuilder, scores: Value, magnitudes: Value) -> Value:
    """Scores, or their magnitudes if those count."""
    return builder.select(magnitudes, _larger(builder, scores, _negative(builder, scores)), scores)


def least_of(element: ir.Type) -> float | int:
    """What no number of a type is below."""
    return -1 << (element.width - 1) if isinstance(element, ir.IntType) else -float("inf")


@intrinsic(prefer_literal=True)
def lanes_above(typing: Typing, lanes: Type, scores: Type, thresholds: Type, magnitudes: Type) -> Intrinsic:
    """A bit mask of the lanes (at most 64) where scores > thresholds; scores count by magnitude if `magnitudes`."""
    signature = types.uint64(lanes, scores, thresholds, types.boolean)

    def generate(context: Context, builder: IRBuilder, signature: Signature, arguments: Values) -> Value:
        found, limits = _two_rows(context, builder, lanes, signature.args[1:3], arguments[1:3])
        above = _bits(builder, _compare(builder, ">", found, limits))
        below = _bits(builder, _compare(builder, ">", _negative(builder, found), limits))
        return builder.select(arguments[3], builder.or_(above, below), above)

    return signature, generate


@intrinsic(prefer_literal=True)
def lanes_reaching(typing: Typing, lanes: Type, scores: Type, thresholds: Type) -> Intrinsic:
    """A bit mask of the lanes (at most 64) where scores >= thresholds."""
    signature = types.uint64(lanes, scores, thresholds)

    def generate(context: Context, builder: IRBuilder, signature: Signature, arguments: Values) -> Value:
        found, limits = _two_rows(context, builder, lanes, signature.args[1:], arguments[1:])
        return _bits(builder, _compare(builder, ">=", found, limits))

    return signature, generate


def _two_rows(
    context: Context, builder: IRBuilder, lanes: Type, array_types: Sequence[Type], arrays: Values
) -> tuple[Value, Value]:
    """The numbers of two arrays, one for each lane."""
    vector = _vector_of(array_types[0], lanes)
    one, other = (
        builder.load(_data(context, builder, array_type, array, vector), align=_bytes_of(vector))
        for array_type, array in zip(array_types, arrays, strict=True)
    )
    return one, other


def _bits(builder: IRBuilder, truths: Value) -> Value:
    """A vector of at most 64 truths as the bits of a number."""
    bits = builder.bitcast(truths, ir.IntType(truths.type.count))
    return bits if truths.type.count == 64 else builder.zext(bits, _INT64)


@intrinsic(prefer_literal=True)
def raise_maxima(typing: Typing, lanes: Type, scores: Type, start: Type, maxima: Type, magnitudes: Type) -> Intrinsic:
    """maxima[lane] = max(maxima[lane], scores[start + lane]); scores count by magnitude if `magnitudes`."""
    signature = types.void(lanes, scores, types.int64, maxima, types.boolean)

    def generate(context: Context, builder: IRBuilder, signature: Signature, arguments: Values) -> Value:
        _, scores_type, _, maxima_type, _ = signature.args
        vector = _vector_of(scores_type, lanes)
        align = _bytes_of(vector)
        first = builder.gep(_data(context, builder, scores_type, arguments[1]), [arguments[2]])
        found = builder.load(builder.bitcast(first, vector.as_pointer()), align=align)
        pointer = _data(context, builder, maxima_type, arguments[3], vector)
        larger = _larger(builder, builder.load(pointer, align=align), _counted(builder, found, arguments[4]))
        builder.store(larger, pointer, align=align)
        return context.get_dummy_value()

    return signature, generate


@intrinsic(prefer_literal=True)
def turn_block(
    typing: Typing, line: Type, source: Type, start: Type, pitch: Type, out: Type, to: Type, out_pitch: Type
) -> Intrinsic:
    """out[to + row * out_pitch + column] = source[start + column * pitch + row] for a square block, all in registers.

    The block is as wide as a line of so many bytes, a power of two. Both arrays are contiguous and read as flat.
    """
    signature = types.void(line, source, types.int64, types.int64, out, types.int64, types.int64)

    def generate(context: Context, builder: IRBuilder, signature: Signature, arguments: Values) -> Value:
        element = element_of(signature.args[1])
        align = _bytes_of(VectorType(element, 1))
        count = line.literal_value // align
        vector = VectorType(element, count)

        def part(array: int, number: int) -> Value:
            data = _data(context, builder, signature.args[array], arguments[array])
            offset = builder.mul(arguments[array + 2], ir.Constant(_INT64, number))
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


def _places(relation: str, typing: Typing, lanes: Type, scores: Type, bound: Type) -> Intrinsic:
    """A bit mask of the places where scores[start + place] stands in a relation to the bound."""
    signature = types.uint64(lanes, scores, types.int64, scores.dtype)

    def generate(context: Context, builder: IRBuilder, signature: Signature, arguments: Values) -> Value:
        vector = _vector_of(signature.args[1], lanes)
        first = builder.gep(_data(context, builder, signature.args[1], arguments[1]), [arguments[2]])
        found = builder.load(builder.bitcast(first, vector.as_pointer()), align=_bytes_of(vector))
        bits = _compare(builder, relation, found, _splat(builder, arguments[3], vector.count))
        return builder.bitcast(bits, _INT64)

    return signature, generate


@intrinsic(prefer_literal=True)
def places_above(typing: Typing, lanes: Type, scores: Type, start: Type, bound: Type) -> Intrinsic:
    """A bit mask of the 64 places where scores[start + place] > bound."""
    return _places(">", typing, lanes, scores, bound)


@intrinsic(prefer_literal=True)
def places_equal(typing: Typing, lanes: Type, scores: Type, start: Type, bound: Type) -> Intrinsic:
    """A bit mask of the 64 places where scores[start + place] == bound."""
    return _places("==", typing, lanes, scores, bound)
