"""Finite fields of any prime-power order; elements are 0 .. order-1, whose digits in base p are a polynomial."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Elements = NDArray[np.int64]


class Field:
    """GF(order); 0 and 1 are the neutral elements, and `add` is addition of base-p digits without carry."""

    def __init__(self, order: int) -> None:
        factors = as_prime_power(order)
        if factors is None:
            raise ValueError(f"{order} is not a prime power")
        self.order = order
        self.characteristic, self.dimension = factors
        if self.dimension > 1:
            self._powers, self._logarithms = _power_tables(self.characteristic, self.dimension)

    def add(self, left: Elements, right: Elements) -> Elements:
        """left + right, element by element."""
        return self._combine(left, right, 1)

    def subtract(self, left: Elements, right: Elements) -> Elements:
        """left - right, element by element."""
        return self._combine(left, right, -1)

    def multiply(self, left: Elements, right: Elements) -> Elements:
        """left * right, element by element."""
        if self.dimension == 1:
            return left * right % self.order
        product = self._powers[(self._logarithms[left] + self._logarithms[right]) % (self.order - 1)]
        return np.where((left == 0) | (right == 0), 0, product)

    def _combine(self, left: Elements, right: Elements, sign: int) -> Elements:
        p = self.characteristic
        total = np.zeros(np.broadcast_shapes(np.shape(left), np.shape(right)), dtype=np.int64)
        for position in range(self.dimension):
            place = p**position
            total += (left // place + sign * (right // place)) % p * place
        return total


def as_prime_power(number: int) -> tuple[int, int] | None:
    """(p, e) with p prime and p^e the number, or None."""
    if number < 2:
        return None
    prime = next((p for p in range(2, int(number**0.5) + 2) if number % p == 0), number)
    exponent = 0
    while number % prime == 0:
        number //= prime
        exponent += 1
    return (prime, exponent) if number == 1 else None


@lru_cache(maxsize=64)
def smallest_prime_power(lower: int) -> int:
    """The smallest prime power that is at least `lower`."""
    order = max(2, lower)
    while as_prime_power(order) is None:
        order += 1
    return order


@lru_cache(maxsize=16)
def field(order: int) -> Field:
    """The field of this order, its tables made once."""
    return Field(order)


def _power_tables(p: int, e: int) -> tuple[Elements, Elements]:
    """Powers of x and their logarithms modulo the first primitive polynomial."""
    for lower in range(1, p**e):
        # Without a constant term x would divide the polynomial and have no inverse.
        if lower % p == 0:
            continue
        powers = _powers_of_x(p, e, lower)
        if len(powers) == p**e - 1:
            logarithms = np.zeros(p**e, dtype=np.int64)
            logarithms[powers] = np.arange(len(powers))
            return np.array(powers, dtype=np.int64), logarithms
    raise AssertionError("every field has a primitive polynomial")


def _powers_of_x(p: int, e: int, lower: int) -> list[int]:
    """1, x, x^2, ... modulo x^e + lower until the first return to 1: p^e - 1 of them if and only if it is primitive."""
    # x^e = -lower, so multiplying by x shifts the digits and adds the top digit times -lower.
    negated = [-(lower // p**position) % p for position in range(e)]
    digits = [1] + [0] * (e - 1)
    powers = []
    for _ in range(p**e - 1):
        powers.append(sum(digit * p**position for position, digit in enumerate(digits)))
        top = digits[-1]
        digits = [(digit + top * feedback) % p for digit, feedback in zip([0, *digits[:-1]], negated, strict=True)]
        if digits == [1] + [0] * (e - 1):
            break
    return powers
