"""Stored rows in few bits: near log2 C(m, d) per column, and below that where the columns prefer some coordinates.

A column is the gaps between its ranks, and a gap is cut in two (Rice coding): its low bits are kept as they are, the
rest is counted in unary, as so many zeros and a one. The rank of a coordinate is the coordinate itself, or its place in
the order from most to least used where that takes fewer bits: then gaps are small wherever many columns meet. Where
columns differ in length, their degrees come first, in as many bits each as the largest one takes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from expander_sae.supports.construction import NO_ROW, SupportError

Bytes = NDArray[np.uint8]
"""Bits, eight to a byte, the first one highest; unused ones at the end are zero."""

_LARGEST_WIDTH = 31
_CHUNK = 1 << 20
"""Numbers written in unary at a time."""


@dataclass(frozen=True)
class PackedRows:
    """The rows of n columns of at most d entries, as bit arrays."""

    remainders: Bytes
    """[width, entries / 8]: the low `width` bits of all gaps, one line per bit, the lowest first."""
    quotients: Bytes
    """What is left of all gaps, in unary."""
    order: Bytes
    """[bits, m / 8]: the coordinate of every rank, one line per bit; no lines where ranks are coordinates."""
    degrees: Bytes | None = None
    """[bits, n / 8]: one less than the degree of every column, one line per bit; none where every column has d."""

    @property
    def width(self) -> int:
        """Bits of a gap that are kept as they are."""
        return len(self.remainders)

    @property
    def nbytes(self) -> int:
        """What all of it takes."""
        parts = (self.remainders, self.quotients, self.order, self.degrees)
        return sum(part.nbytes for part in parts if part is not None)


def bits_needed(m: int, n: int, d: int) -> float:
    """Bits that n columns take in the best code there is when every set of d of m coordinates is as likely."""
    return n * (math.lgamma(m + 1) - math.lgamma(d + 1) - math.lgamma(m - d + 1)) / math.log(2)


def pack_rows(rows: NDArray[np.int32], m: int) -> PackedRows:
    """These rows [n, d], ascending from 0 to m - 1 within each column and then -1, in the fewest bits of this code."""
    if rows.ndim != 2 or rows.size == 0 or rows[:, 0].min() < 0 or rows.max() >= m:
        raise SupportError(f"Only rows [n, d] between 0 and {m - 1} can be packed, not these {list(rows.shape)}.")
    real = rows >= 0
    if ((rows[:, 1:] <= rows[:, :-1]) & real[:, 1:]).any() or (real[:, 1:] & ~real[:, :-1]).any():
        raise SupportError("Only rows that ascend within every column can be packed; sort them first.")
    degrees = real.sum(axis=1)
    packed_degrees = None if real.all() else _pack_bits(degrees - 1, int(rows.shape[1] - 1).bit_length(), len(rows))
    entries = rows[real]
    plain = PackedRows(*_pack_gaps(entries, degrees), _pack_bits(np.empty(0, np.int64), 0, m), packed_degrees)
    if m > entries.size:  # the order alone would take more than what it saves
        return plain
    order = np.argsort(-np.bincount(entries, minlength=m), kind="stable")
    ranks = np.empty(m, np.int32)
    ranks[order] = np.arange(m)
    by_rank = np.sort(np.where(real, ranks[rows], np.int32(m)), axis=1)[real]
    by_use = PackedRows(*_pack_gaps(by_rank, degrees), _pack_bits(order, (m - 1).bit_length(), m), packed_degrees)
    return min(plain, by_use, key=lambda packed: packed.nbytes)


def unpack_rows(packed: PackedRows, m: int, n: int, d: int) -> NDArray[np.int32]:
    """The rows [n, d] that were packed, ascending within each column; refuses what `pack_rows` cannot have made."""
    if d > m:
        raise SupportError(f"Packed rows of {m} coordinates cannot be {d} to a column.")
    degrees = _unpack_degrees(packed.degrees, n, d)
    count = int(degrees.sum())
    _check_lines("remainders", packed.remainders, count)
    _check_lines("order", packed.order, m)
    quotients = _unpack_quotients(packed.quotients, count)
    if quotients.max() > (m - 1) >> packed.width:  # and the shift might overflow
        raise SupportError(f"Packed rows hold a gap that is too wide for {m} coordinates.")
    gaps = (quotients << packed.width) | _unpack_bits(packed.remainders, count)
    real = np.arange(d) < degrees[:, None]
    steps = np.zeros((n, d), np.int64)
    steps[real] = gaps + 1
    ranks = np.cumsum(steps, axis=1) - 1
    if ranks.max() >= m:
        raise SupportError(f"Packed rows must lie between 0 and {m - 1}, but one is {ranks.max()}.")
    if len(packed.order):
        order = _unpack_bits(packed.order, m)
        if not np.array_equal(np.sort(order), np.arange(m)):
            raise SupportError(f"The order of packed rows must name each of the {m} coordinates once.")
        ranks = np.sort(np.where(real, order[ranks], m), axis=1)
    return np.where(real, ranks, NO_ROW).astype(np.int32)


def _unpack_degrees(packed: Bytes | None, n: int, d: int) -> NDArray[np.int64]:
    """How many entries each column has."""
    if packed is None:
        return np.full(n, d)
    _check_lines("degrees", packed, n)
    degrees = _unpack_bits(packed, n) + 1
    if degrees.max() > d:
        raise SupportError(f"The degrees of packed rows must be at most {d}, but one is {degrees.max()}.")
    return degrees


def _pack_gaps(ranks: NDArray[np.int32], degrees: NDArray[np.int64]) -> tuple[Bytes, Bytes]:
    """Remainders and quotients of the gaps between the ranks [entries] of every column, cut for the fewest bits."""
    lowest_allowed = np.zeros(ranks.size, np.int32)
    lowest_allowed[1:] = ranks[:-1] + 1
    lowest_allowed[np.cumsum(degrees) - degrees] = 0
    gaps = ranks - lowest_allowed
    del lowest_allowed  # of many rows everything here is large
    widths = range(int(gaps.max()).bit_length() + 1)
    width = min(widths, key=lambda width: width * gaps.size + int((gaps >> width).sum(dtype=np.int64)))
    return _pack_bits(gaps, width, gaps.size), _pack_unary(gaps >> width)


def _pack_unary(numbers: NDArray[np.int32]) -> Bytes:
    """Of every number so many zeros and a one."""
    unary = np.zeros(numbers.size + int(numbers.sum(dtype=np.int64)), np.uint8)
    position = 0
    for start in range(0, numbers.size, _CHUNK):
        ends = position + np.cumsum(numbers[start : start + _CHUNK] + 1, dtype=np.int64)
        unary[ends - 1] = 1
        position = int(ends[-1])
    return np.packbits(unary)


def _unpack_quotients(quotients: Bytes, count: int) -> NDArray[np.int64]:
    """The numbers that a unary stream counts."""
    ends = np.flatnonzero(np.unpackbits(quotients)) if quotients.ndim == 1 else np.empty(0, np.int64)
    if ends.size != count:
        raise SupportError(f"The quotients of packed rows must be {count} numbers, not {ends.size}.")
    if quotients.size != ends[-1] // 8 + 1:
        raise SupportError("The quotients of packed rows must end with the byte of the last one.")
    return np.diff(ends, prepend=-1) - 1


def _pack_bits(numbers: NDArray[np.int32] | NDArray[np.int64], width: int, count: int) -> Bytes:
    """The low `width` bits of `count` numbers, one line per bit."""
    lines = [np.packbits((numbers >> bit & 1).astype(np.uint8)) for bit in range(width)]
    return np.stack(lines) if lines else np.empty((0, -(-count // 8)), np.uint8)


def _check_lines(what: str, lines: Bytes, count: int) -> None:
    """Refuse lines of bits that do not hold `count` numbers, and nothing after them."""
    size = -(-count // 8)
    if lines.ndim != 2 or lines.shape[1] != size or len(lines) > _LARGEST_WIDTH:
        raise SupportError(
            f"The {what} of packed rows must be at most [{_LARGEST_WIDTH}, {size}], not {list(lines.shape)}."
        )
    unused = 8 * size - count
    if (lines[:, -1] & ((1 << unused) - 1)).any():
        raise SupportError(f"The {what} of packed rows must be {count} numbers, with zeros in the bits after them.")


def _unpack_bits(lines: Bytes, count: int) -> NDArray[np.int64]:
    """The numbers whose bits these lines hold."""
    numbers = np.zeros(count, np.int64)
    for bit, line in enumerate(lines):
        numbers |= np.unpackbits(line, count=count).astype(np.int64) << bit
    return numbers
