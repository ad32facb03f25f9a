"""Punctured Reed-Solomon supports: features are polynomials of degree < strength, so two share at most strength-1 rows.

Coordinates are d groups of q; the feature of polynomial P touches value P(x) in group x. The last group has only q-s
values, because d q = m + s: written around the last point, P = c + sum of b_i (x - x_last)^i, its value there is c, and
c < q-s keeps every feature whole and every coordinate covered.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from expander_sae.philox import LARGEST_DOMAIN, Stream, permute
from expander_sae.supports.construction import Construction, Indices, Parameter, Request, Rows, SupportError
from expander_sae.supports.fields import field, smallest_prime_power


@dataclass(frozen=True)
class Code:
    """The polynomials at hand: `slopes` choices of (b_1, b_2, ...) times `constants` choices of c over GF(order)."""

    order: int
    slopes: int
    constants: int

    @property
    def features(self) -> int:
        """How many features there can be."""
        return self.slopes * self.constants


def field_order(m: int, d: int) -> int:
    """The smallest prime power with room for m coordinates in d groups and for d different points."""
    return smallest_prime_power(max(-(-m // d), d))


def fits(m: int, d: int) -> bool:
    """Whether the d groups of the field's order leave fewer than one group over."""
    order = field_order(m, d)
    return d * order - m < order


def code(m: int, d: int, strength: int) -> Code:
    """The polynomials of degree < strength for these sizes."""
    order = field_order(m, d)
    return Code(order, order ** (strength - 1), order - (d * order - m))


def check(request: Request) -> None:
    """Refuse sizes that no field fits, and more features than polynomials."""
    m, n, d, strength = request.m, request.n, request.d, request.integer("strength")
    if not fits(m, d):
        degree = next(smaller for smaller in range(d - 1, 0, -1) if fits(m, smaller))
        raise SupportError(
            f"Construction 'lines' has no field for m = {m} and d = {d}: {d} groups of {field_order(m, d)} coordinates "
            f"exceed m by a group or more; the nearest smaller degree that works is {degree}."
        )
    if not 1 <= strength <= d:
        raise SupportError(f"strength must be between 1 and d = {d}, not {strength}.")
    available = code(m, d, strength).features
    if n > available:
        enough = next((t for t in range(strength + 1, d + 1) if code(m, d, t).features >= n), None)
        advice = f"strength {enough} would do" if enough else "no strength has that many"
        raise SupportError(
            f"Construction 'lines' has at most {available} features of overlap {strength - 1} at m = {m}, d = {d}, "
            f"not {n}; {advice}."
        )
    if available > LARGEST_DOMAIN:
        largest = max(t for t in range(1, d + 1) if code(m, d, t).features <= LARGEST_DOMAIN)
        raise SupportError(f"strength must be at most {largest} at m = {m}, d = {d}, not {strength}.")


def lines_rows(request: Request, indices: Indices) -> Rows:
    """Each feature the graph of one polynomial over d points of GF(q), q the field's order."""
    strength, order_of_features = request.integer("strength"), request.parameters["order"]
    polynomials = code(request.m, request.d, strength)
    numbers = indices
    if order_of_features == "feistel":
        numbers = permute(numbers, polynomials.features, request.seed, Stream.LINES)
    slopes, constants = np.divmod(numbers, np.uint64(polynomials.constants))
    if order_of_features == "random-slopes":
        slopes = permute(slopes, polynomials.slopes, request.seed, Stream.LINES)

    galois = field(polynomials.order)
    points = np.arange(request.d, dtype=np.int64)
    offsets = galois.subtract(points, points[-1:])
    values = np.zeros((indices.size, request.d), dtype=np.int64)
    for power in range(strength - 1, 0, -1):
        coefficients = (slopes // np.uint64(polynomials.order ** (power - 1))) % np.uint64(polynomials.order)
        values = galois.multiply(galois.add(values, coefficients.astype(np.int64)[:, None]), offsets)
    values = galois.add(values, constants.astype(np.int64)[:, None])
    return points * polynomials.order + values


LINES = Construction(
    name="lines",
    summary="punctured Reed-Solomon: any two features share at most strength-1 coordinates",
    rows_of=lines_rows,
    check=check,
    parameters={
        "strength": Parameter(2, "polynomials have a degree below this; overlap is at most one less"),
        "order": Parameter(
            "random-slopes",
            "which polynomial a feature is: whole slopes shuffled (balanced), in order (balanced, worst expansion), "
            "or all shuffled (breaks small structure, loses balance)",
            ("random-slopes", "lexicographic", "feistel"),
        ),
    },
)
