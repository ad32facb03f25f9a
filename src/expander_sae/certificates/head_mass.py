"""How columns spread their l1 norm over their values, and what that keeps of a code's l1 norm (theorem 1)."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from jaxtyping import Float64
from numpy.typing import NDArray

QUANTILES = {"median": 0.5, "90 %": 0.9, "99 %": 0.99, "largest": 1.0}


@dataclass(frozen=True, eq=False)
class HeadMass:
    """The heaviest share of its l1 norm that any column has on so and so many values."""

    curve: Float64[np.ndarray, " d_plus_1"]
    """Entry c: that share on c values, made concave."""
    betas: dict[str, float]
    """Quantiles over columns of d times the largest value, by magnitude, over the l1 norm: 1 flat, d for one value."""

    @classmethod
    def of(cls, values: Float64[np.ndarray, "n d"]) -> HeadMass:
        """The head mass of these columns, those that are zero left out."""
        sizes = -np.sort(-np.abs(values), axis=1)
        sizes = sizes[sizes[:, 0] > 0]
        shares = np.cumsum(sizes, axis=1) / sizes.sum(axis=1, keepdims=True)
        curve = np.concatenate([[0.0], shares.max(axis=0, initial=0.0)])
        betas = shares[:, 0] * values.shape[1]
        return cls(_concave(curve), {name: float(np.quantile(betas, share)) for name, share in QUANTILES.items()})

    def of_collisions(self, collisions: float) -> float:
        """The largest share of any column on that many values, whole or not: H(collisions / d)."""
        return float(np.interp(collisions, np.arange(self.curve.size), self.curve))


def spreading(collisions: float, head_mass: HeadMass) -> float:
    """c in |W x|_1 >= c sum_j |W_j|_1 |x_j|, for codes whose features have that many values in common on average."""
    return 1 - 2 * head_mass.of_collisions(collisions)


@numba.njit(cache=True, nogil=True)
def spreading_of(shares: NDArray[np.float64], rows: NDArray[np.int32]) -> float:
    """Such a c for all codes on a few features, from the shares [k, d] that their values have of their l1 norms.

    Every order of the features gives one: 1 - 2 times the largest share of a feature on coordinates of those before it,
    if that is not below 0. Putting last the one with the least of that on all others, and so on with the rest, is the
    best order. Theorem 1, which averages, can be better for features that share most of what they have.
    """
    size, d = rows.shape
    owners = np.unique(rows)
    places = np.searchsorted(owners, rows.flatten()).reshape(rows.shape)
    degrees = np.zeros(owners.size, dtype=np.int64)
    for feature in range(size):
        for slot in range(d):
            degrees[places[feature, slot]] += 1
    left = np.ones(size, dtype=np.bool_)
    worst = 0.0
    for _ in range(size):
        least, last = np.inf, -1
        for feature in range(size):
            if left[feature]:
                collided = 0.0
                for slot in range(d):
                    if rows[feature, slot] >= 0 and degrees[places[feature, slot]] > 1:
                        collided += shares[feature, slot]
                if collided < least:
                    least, last = collided, feature
        left[last], worst = False, max(worst, least)
        for slot in range(d):
            degrees[places[last, slot]] -= 1
    return max(0.0, 1 - 2 * worst)


def _concave(curve: Float64[np.ndarray, " points"]) -> Float64[np.ndarray, " points"]:
    """The least concave curve above these points, at the same places."""
    corners = [0]
    for point in range(1, curve.size):
        while len(corners) > 1 and _rise(curve, corners[-2], corners[-1]) <= _rise(curve, corners[-1], point):
            corners.pop()
        corners.append(point)
    return np.interp(np.arange(curve.size), corners, curve[corners])


def _rise(curve: Float64[np.ndarray, " points"], start: int, stop: int) -> float:
    return float(curve[stop] - curve[start]) / (stop - start)
