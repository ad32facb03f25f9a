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


def bytes_of(vector: VectorType) -> int:
    """The size of one element: the only alignment that a row of a tile promises."""
    if isinstance(vector.element, ir.IntType):
        return int(vector.element.width) // 8
    return 8 if isinstance(vector.element, ir.DoubleType) else 4


def is_whole(number: Value) -> bool:
    """Whether a number, or each number of a vector, is an integer."""
    return isinstance(number.type.element if isinstance(number.type, VectorType) else number.type, ir.IntType)


def sum_of(builder: IRBuilder, one: Value, other: Value) -> Value:
    return builder.add(one, other) if is_whole(one) else builder.fadd(one, other)


def product_of(builder: IRBuilder, one: Value, other: Value) -> Value:
    """The product of two vectors; of integers its upper half, which most machines make in one instruction.

    Products and sums are rounded apart (no fused multiply-add), as in the reference: same bits on every machine.
    """
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


def splat(builder: IRBuilder, scalar: Value, lanes: int) -> Value:
    """A vector with `scalar` in every lane."""
    blank = ir.Constant(VectorType(scalar.type, lanes), ir.Undefined)
    first = builder.insert_element(blank, scalar, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, blank, ir.Constant(VectorType(ir.IntType(32), lanes), [0] * lanes))


def sums_over(
    builder: IRBuilder, begin: Value, end: Value, initial: dict[int, Value], term: Callable[[Value, int], Value]
) -> list[Value]:
    """Emit the loop `sums[i] += term(entry, i)` over the entries from begin to end, at least one; returns the sums.

    They begin with what is initial, and stay in registers as long as there are enough.
    """
    before, loop = builder.block, builder.append_basic_block("entry")
    after = builder.append_basic_block("summed")
    builder.branch(loop)
    builder.position_at_end(loop)
    entry, sums = builder.phi(_INT64), {i: builder.phi(value.type) for i, value in initial.items()}
    grown = {i: sum_of(builder, total, term(entry, i)) for i, total in sums.items()}
    following = builder.add(entry, ir.Constant(_INT64, 1))
    for phi, at_first, later in ((entry, begin, following), *((sums[i], initial[i], grown[i]) for i in sums)):
        phi.add_incoming(at_first, before)
        phi.add_incoming(later, builder.block)
    builder.cbranch(builder.icmp_unsigned("<", following, end), loop, after)
    builder.position_at_end(after)
    return list(grown.values())


def entry_times_tile(
    builder: IRBuilder, values: Value, rows: Value, at: Value, tile: Value, vector: VectorType
) -> Value:
    """The product of one entry of a column with its row of a tile of such vectors."""
    row = builder.zext(builder.load(builder.gep(rows, [at])), _INT64)
    read = builder.load(builder.gep(tile, [row]), align=bytes_of(vector))
    return product_of(builder, read, splat(builder, builder.load(builder.gep(values, [at])), vector.count))


def vector_of(array_type: Type, lanes: Type) -> VectorType:
    """The LLVM vector that holds one value of `array_type` for each lane."""
    return VectorType(element_of(array_type), lanes.literal_value)


def data_of(
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
        vector = vector_of(tile_type, lanes)
        place = builder.gep(data_of(context, builder, starts_type, arguments[4]), [arguments[6]])
        start = builder.zext(builder.load(place), _INT64)
        stop = builder.zext(builder.load(builder.gep(place, [ir.Constant(_INT64, 1)])), _INT64)
        tokens = data_of(context, builder, tile_type, arguments[1], vector)
        values = data_of(context, builder, values_type, arguments[2])
        rows = data_of(context, builder, rows_type, arguments[3])

        def product(entry: Value, _: int) -> Value:
            return entry_times_tile(builder, values, rows, entry, tokens, vector)

        nothing = ir.Constant(vector, [0 if is_whole(ir.Constant(vector, None)) else 0.0] * vector.count)
        (total,) = sums_over(builder, start, stop, {0: nothing}, product)
        shift = builder.load(builder.gep(data_of(context, builder, bias_type, arguments[5]), [arguments[6]]))
        total = sum_of(builder, total, splat(builder, shift, vector.count))
        pointer = data_of(context, builder, out_type, arguments[7], vector)
        builder.store(total, pointer, align=bytes_of(vector))
        return context.get_dummy_value()

    return signature, generate


def larger(builder: IRBuilder, one: Value, other: Value) -> Value:
    return builder.select(_compare(builder, ">", other, one), other, one)


def counted(builder: IRBuilder, scores: Value, magnitudes: Value) -> Value:
    """Scores, or their magnitudes if those count."""
    return builder.select(magnitudes, larger(builder, scores, _negative(builder, scores)), scores)


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
    vector = vector_of(array_types[0], lanes)
    one, other = (
        builder.load(data_of(context, builder, array_type, array, vector), align=bytes_of(vector))
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
        vector = vector_of(scores_type, lanes)
        align = bytes_of(vector)
        first = builder.gep(data_of(context, builder, scores_type, arguments[1]), [arguments[2]])
        found = builder.load(builder.bitcast(first, vector.as_pointer()), align=align)
        pointer = data_of(context, builder, maxima_type, arguments[3], vector)
        raised = larger(builder, builder.load(pointer, align=align), counted(builder, found, arguments[4]))
        builder.store(raised, pointer, align=align)
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
        align = bytes_of(VectorType(element, 1))
        count = line.literal_value // align
        vector = VectorType(element, count)

        def part(array: int, number: int) -> Value:
            data = data_of(context, builder, signature.args[array], arguments[array])
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
        vector = vector_of(signature.args[1], lanes)
        first = builder.gep(data_of(context, builder, signature.args[1], arguments[1]), [arguments[2]])
        found = builder.load(builder.bitcast(first, vector.as_pointer()), align=bytes_of(vector))
        return _bits(builder, _compare(builder, relation, found, splat(builder, arguments[3], vector.count)))

    return signature, generate


@intrinsic(prefer_literal=True)
def places_above(typing: Typing, lanes: Type, scores: Type, start: Type, bound: Type) -> Intrinsic:
    """A bit mask of the places (at most 64) where scores[start + place] > bound."""
    return _places(">", typing, lanes, scores, bound)


@intrinsic(prefer_literal=True)
def places_reaching(typing: Typing, lanes: Type, scores: Type, start: Type, bound: Type) -> Intrinsic:
    """A bit mask of the places (at most 64) where scores[start + place] >= bound."""
    return _places(">=", typing, lanes, scores, bound)


@intrinsic(prefer_literal=True)
def places_equal(typing: Typing, lanes: Type, scores: Type, start: Type, bound: Type) -> Intrinsic:
    """A bit mask of the places (at most 64) where scores[start + place] == bound."""
    return _places("==", typing, lanes, scores, bound)


@intrinsic(prefer_literal=True)
def largest_of(typing: Typing, lanes: Type, scores: Type) -> Intrinsic:
    """The largest of as many scores, a power of two."""

    def generate(context: Context, builder: IRBuilder, signature: Signature, arguments: Values) -> Value:
        vector = vector_of(signature.args[1], lanes)
        data = data_of(context, builder, signature.args[1], arguments[1], vector)
        found, left = builder.load(data, align=bytes_of(vector)), vector.count
        while left > 1:
            halves = (
                ir.Constant(VectorType(ir.IntType(32), left // 2), list(range(half, half + left // 2)))
                for half in (0, left // 2)
            )
            found = larger(builder, *(builder.shuffle_vector(found, found, half) for half in halves))
            left //= 2
        return builder.extract_element(found, ir.Constant(ir.IntType(32), 0))

    return scores.dtype(lanes, scores), generate
