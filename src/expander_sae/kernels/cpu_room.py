"""What the greedy loops carry from step to step on the CPU: limits, and scratch memory for each token in work."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from expander_sae.kernels.cpu_compile import inlined
from expander_sae.kernels.greedy import DEPENDENT, PICKS_PER_FEATURE, ROUNDING, Rules


class Limits(NamedTuple):
    """`greedy.Rules` with what depends on the precision filled in."""

    signed: bool
    tolerance: float
    rounding: float
    """Correlations below this share of a token's norm are noise."""
    dependent: float
    """A column closer than this (squared) to the span of the chosen ones is refused."""


def limits_of(rules: Rules, dtype: Any) -> Limits:
    """The limits for floats of one type."""
    precision = np.dtype(dtype)
    rounding = ROUNDING * float(np.finfo(precision).eps)
    return Limits(rules.signed, rules.tolerance, rounding, DEPENDENT[precision.itemsize])


class Room(NamedTuple):
    """Scratch memory of one token; `make_rooms` makes it for several, with one more dimension in front.

    `stamp` and `closed` are left clean for the next token, the rest is written before it is read.
    """

    residual: Any
    """[m] what the codes leave of the token, then zeros"""
    stamp: Any
    """[m], zero between steps"""
    closed: Any
    """[n] bool: features in use or refused"""
    picked: Any
    """[3k] the feature of every pick"""
    chosen: Any
    """[k] features in use, in order; then those dropped by the last step"""
    codes: Any
    """[k] their codes"""
    fitted: Any
    """[k] the codes that `residual` is made with"""
    solved: Any
    """[k] least squares on the columns in use"""
    target: Any
    """[k] inner products of the token with the columns in use"""
    gram: Any
    """[k, k] of the columns in use"""
    factor: Any
    """[k, k] its Cholesky factor"""


def row_length(size: int) -> int:
    """At least `size`, and an odd number of cache lines: rows a power of two apart would share cache sets."""
    return 16 * (-(-size // 16) | 1)


def make_rooms(tokens: int, m: int, n: int, k: int, dtype: Any) -> Room:
    """Scratch memory for some tokens of width m, n features and k of them in use; `room_of` takes one out."""
    return Room(
        residual=np.zeros((tokens, row_length(m)), dtype),
        stamp=np.zeros((tokens, m), dtype),
        closed=np.zeros((tokens, n), np.bool_),
        picked=np.zeros((tokens, PICKS_PER_FEATURE * k), np.int64),
        chosen=np.zeros((tokens, k), np.int64),
        codes=np.zeros((tokens, k), dtype),
        fitted=np.zeros((tokens, k), dtype),
        solved=np.zeros((tokens, k), dtype),
        target=np.zeros((tokens, k), dtype),
        gram=np.zeros((tokens, k, k), dtype),
        factor=np.zeros((tokens, k, k), dtype),
    )


@inlined
def room_of(rooms: Room, token: int) -> Room:
    """One token's share of rooms made for several."""
    return Room(
        rooms.residual[token],
        rooms.stamp[token],
        rooms.closed[token],
        rooms.picked[token],
        rooms.chosen[token],
        rooms.codes[token],
        rooms.fitted[token],
        rooms.solved[token],
        rooms.target[token],
        rooms.gram[token],
        rooms.factor[token],
    )
