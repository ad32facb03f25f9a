"""Single numbers, written as LLVM: the bits of a mask, where a type's numbers end, what lies between two, a counter."""

from __future__ import annotations

from llvmlite import ir
from llvmlite.ir import IRBuilder, Value
from numba import types
from numba.core.base import BaseContext as Context
from numba.core.typing import Signature
from numba.core.typing.context import BaseContext as Typing
from numba.extending import intrinsic
from numba.types import Type

from expander_sae.kernels.cpu.vectors import Intrinsic, Values, data_of, element_of, is_whole, least_of


@intrinsic
def extreme_of(typing: Typing, scores: Type, sign: Type) -> Intrinsic:
    """What no score of an array's type exceeds if the sign is positive, and what none is below if it is negative."""

    def generate(context: Context, builder: IRBuilder, signature: Signature, arguments: Values) -> Value:
        element = element_of(signature.args[0])
        infinite = isinstance(element, ir.FloatType | ir.DoubleType)
        most = ir.Constant(element, float("inf") if infinite else (1 << (element.width - 1)) - 1)
        least = ir.Constant(element, least_of(element))
        positive = builder.icmp_signed(">", arguments[1], ir.Constant(arguments[1].type, 0))
        return builder.select(positive, most, least)

    return scores.dtype(scores, types.int64), generate


def _in_order(builder: IRBuilder, bits: Value) -> Value:
    """The bits of a floating-point number as an integer that orders as the number does, and the other way round."""
    lowest = ir.Constant(bits.type, -1 << (bits.type.width - 1))  # both zeros become 0
    negative = builder.icmp_signed("<", bits, ir.Constant(bits.type, 0))
    return builder.select(negative, builder.sub(lowest, bits), bits)


@intrinsic
def halfway(typing: Typing, low: Type, high: Type) -> Intrinsic:
    """The number with as many others between it and `low` as between it and `high`; `low` itself if there is none."""

    def generate(context: Context, builder: IRBuilder, signature: Signature, arguments: Values) -> Value:
        integer = ir.IntType(signature.return_type.bitwidth)
        one, other = arguments
        if not is_whole(one):
            one, other = (_in_order(builder, builder.bitcast(number, integer)) for number in arguments)
        half_apart = builder.ashr(builder.xor(one, other), ir.Constant(integer, 1))
        middle = builder.add(builder.and_(one, other), half_apart)  # never overflows, as (one + other) / 2 would
        if is_whole(arguments[0]):
            return middle
        return builder.bitcast(_in_order(builder, middle), arguments[0].type)

    return low(low, low), generate


@intrinsic
def lowest_bit(typing: Typing, mask: Type) -> Intrinsic:
    """The position of the lowest set bit of a non-zero mask."""

    def generate(context: Context, builder: IRBuilder, signature: Signature, arguments: Values) -> Value:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), generate


@intrinsic
def count_bits(typing: Typing, mask: Type) -> Intrinsic:
    """How many bits of a mask are set."""

    def generate(context: Context, builder: IRBuilder, signature: Signature, arguments: Values) -> Value:
        return builder.ctpop(arguments[0])

    return types.int64(types.uint64), generate


@intrinsic
def count_up(typing: Typing, counter: Type) -> Intrinsic:
    """Add one to a counter [1] that threads share; returns what it was."""

    def generate(context: Context, builder: IRBuilder, signature: Signature, arguments: Values) -> Value:
        place = data_of(context, builder, signature.args[0], arguments[0])
        return builder.atomic_rmw("add", place, ir.Constant(ir.IntType(64), 1), "monotonic")

    return types.int64(counter), generate
