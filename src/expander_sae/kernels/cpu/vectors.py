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


def parts_of(context: Context, builder: IRBuilder, tuple_type: Type, arrays: Value) -> list[Value]:
    """Pointers to the data of each array of a tuple."""
    return [
        data_of(context, builder, part_type, builder.extract_value(arrays, part))
        for part, part_type in enumerate(tuple_type.types)
    ]


@intrinsic(prefer_literal=True)
def correlate_tile(
    typing: Typing, lanes: Type, tile: Type, columns: Type, bias: Type, feature: Type, out: Type
) -> Intrinsic:
    """out[lane] = sum_s values[s] * tile[rows[s], lane] + bias[feature], over the entries s of the feature's column.

    tile [m, lanes], columns of which none is empty, bias [n], out [lanes]; all contiguous. Of products of integers the
    upper half is summed.
    """
    signature = types.void(lanes, tile, columns, bias, types.int64, out)

    def generate(context: Context, builder: IRBuilder, signature: Signature, arguments: Values) -> Value:
        vector = vector_of(tile, lanes)
        tokens = data_of(context, builder, tile, arguments[1], vector)
        values, rows, starts = parts_of(context, builder, columns, arguments[2])
        shifts, feature = data_of(context, builder, bias, arguments[3]), arguments[4]
        begin, end = span_of(builder, starts, feature)
        total = _correlation(builder, tokens, values, rows, begin, end, builder.gep(shifts, [feature]), vector)
        builder.store(total, data_of(context, builder, out, arguments[5], vector), align=bytes_of(vector))
        return context.get_dummy_value()

    return signature, generate


def _number_at(builder: IRBuilder, numbers: Value, place: Value) -> Value:
    """One of a list of unsigned numbers of at most 64 bits."""
    return builder.zext(builder.load(builder.gep(numbers, [place])), _INT64)


def span_of(builder: IRBuilder, starts: Value, place: Value) -> tuple[Value, Value]:
    """Where the entries of a column, or of a block of them, begin and end."""
    return _number_at(builder, starts, place), _number_at(builder, starts, builder.add(place, ir.Constant(_INT64, 1)))


def _correlation(
    builder: IRBuilder,
    tokens: Value,
    values: Value,
    rows: Value,
    begin: Value,
    end: Value,
    bias: Value,
    vector: VectorType,
) -> Value:
    """The sum of the products of entries, from begin to end, with their rows of a tile, and the bias there."""

    def product(entry: Value, _: int) -> Value:
        return entry_times_tile(builder, values, rows, entry, tokens, vector)

    nothing = ir.Constant(vector, [0 if is_whole(ir.Constant(vector, None)) else 0.0] * vector.count)
    (total,) = sums_over(builder, begin, end, {0: nothing}, product)
    return sum_of(builder, total, splat(builder, builder.load(bias), vector.count))


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
        return _above(builder, found, limits, arguments[3])

    return signature, generate


def _above(builder: IRBuilder, scores: Value, limits: Value, magnitudes: Value) -> Value:
    """A bit for every lane whose score, or its magnitude if these count, exceeds its limit."""
    above = _bits(builder, _compare(builder, ">", scores, limits))
    below = _bits(builder, _compare(builder, ">", _negative(builder, scores), limits))
    return builder.select(magnitudes, builder.or_(above, below), above)


@intrinsic(prefer_literal=True)
def correlate_those_above(
    typing: Typing,
    lanes: Type,
    tile: Type,
    columns: Type,
    bias: Type,
    start: Type,
    stop: Type,
    thresholds: Type,
    magnitudes: Type,
    scores: Type,
    masks: Type,
    passed: Type,
) -> Intrinsic:
    """Correlate the features start..stop, at least one, with a tile; returns how many are above some lane's threshold.

    Of these, scores [features + 1, lanes] are the sums, masks [features + 1] the lanes and passed [features + 1] the
    features; the other arrays are those of `correlate_tile` and `lanes_above`. What a feature leaves there that is
    above no threshold is overwritten by the next: a branch would be guessed wrong for every third feature, and a wrong
    guess throws away the sums that are under way. It is one loop for the sake of registers: to read the arrays'
    addresses anew for every feature took an eighth of the time.
    """
    signature = types.int64(
        lanes, tile, columns, bias, types.int64, types.int64, thresholds, types.boolean, scores, masks, passed
    )

    def generate(context: Context, builder: IRBuilder, signature: Signature, arguments: Values) -> Value:
        vector, (start, stop) = vector_of(tile, lanes), arguments[4:6]
        values, rows, starts = parts_of(context, builder, columns, arguments[2])
        tokens, shifts, limits, sums, lanes_of, features = (
            data_of(context, builder, signature.args[at], arguments[at], vector if at in (1, 6, 8) else None)
            for at in (1, 3, 6, 8, 9, 10)
        )
        limits, one = builder.load(limits, align=bytes_of(vector)), ir.Constant(_INT64, 1)
        before, loop = builder.block, builder.append_basic_block("feature")
        after = builder.append_basic_block("looked")
        initial = start, ir.Constant(_INT64, 0), _number_at(builder, starts, start)
        builder.branch(loop)
        builder.position_at_end(loop)
        feature, found, begin = phis = [builder.phi(_INT64) for _ in initial]
        following = builder.add(feature, one)
        end = _number_at(builder, starts, following)
        total = _correlation(builder, tokens, values, rows, begin, end, builder.gep(shifts, [feature]), vector)
        mask = _above(builder, total, limits, arguments[7])
        builder.store(total, builder.gep(sums, [found]), align=bytes_of(vector))
        builder.store(mask, builder.gep(lanes_of, [found]))
        place = builder.gep(features, [found])
        builder.store(builder.trunc(feature, place.type.pointee), place)
        is_above = builder.zext(builder.icmp_unsigned("!=", mask, ir.Constant(_INT64, 0)), _INT64)
        passing = builder.add(found, is_above)
        for phi, at_first, later in zip(phis, initial, (following, passing, end), strict=True):
            phi.add_incoming(at_first, before)
            phi.add_incoming(later, builder.block)
        builder.cbranch(builder.icmp_signed("<", following, stop), loop, after)
        builder.position_at_end(after)
        return passing

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
