"""What can be decided about one set of features: everything here is exact, up to the rounding of float64."""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
from jaxtyping import Float64, Int64
from numpy.typing import NDArray

from expander_sae.certificates.coherence import MARGIN
from expander_sae.certificates.head_mass import spreading_of
from expander_sae.certificates.matrix import Mask

INDEPENDENT = 1e-6
"""Unit columns with a smallest singular value up to this count as dependent."""


class Local(NamedTuple):
    """One set of features S."""

    size: int
    erc: float
    """max over j outside S of |pinv(W_S) W_j|_1; infinite where the columns of S are dependent."""
    smallest_singular_value: float
    """The smallest singular value of W_S with unit columns."""
    remaining: int | None
    """Features of its largest stopping set; None for dense columns."""
    remaining_effective: int | None
    """Features of its largest stopping set when values near zero do not count; None for dense columns."""
    spreading: float | None
    """The c of theorem 1 for all codes on S; None for dense columns."""

    @property
    def recovers(self) -> bool:
        """Whether orthogonal matching pursuit and basis pursuit find every code on S (Tropp's condition)."""
        return self.erc < 1 - MARGIN


class SparseSets:
    """Decides about sets of sparse columns; holds scratch memory, so one for each thread."""

    def __init__(
        self,
        values: Float64[np.ndarray, "n d"],
        units: Float64[np.ndarray, "n d"],
        mask: Mask,
        effective: Mask,
    ):
        self._values, self._units, self._mask, self._effective = values, units, mask, effective
        self._places = np.full(mask.m, -1, dtype=np.int64)
        self._seen = np.zeros(mask.n, dtype=np.bool_)

    def __call__(self, features: Int64[np.ndarray, " size"]) -> Local:
        """All that is known about these features, which have values."""
        mask, rows = self._mask, np.ascontiguousarray(self._mask.rows[features])
        present = rows >= 0
        coordinates = np.unique(rows[present])
        self._places[coordinates] = np.arange(coordinates.size)
        columns = np.zeros((coordinates.size, features.size))
        which = np.broadcast_to(np.arange(features.size)[:, None], rows.shape)
        columns[self._places[rows[present]], which[present]] = self._units[features][present]
        inverse, smallest = _pseudo_inverse(columns)
        erc = np.inf
        if inverse is not None:
            erc = _largest_outside(
                inverse, coordinates, features, self._units, mask.rows, mask.starts, mask.features, self._places,
                self._seen,
            )  # fmt: skip
        self._places[coordinates] = -1
        sizes = np.abs(self._values[features])
        return Local(
            size=features.size,
            erc=float(erc),
            smallest_singular_value=smallest,
            remaining=mask.remaining(features).size,
            remaining_effective=self._effective.remaining(features).size,
            spreading=float(spreading_of(sizes / sizes.sum(axis=1, keepdims=True), rows)),
        )


class DenseSets:
    """Decides about sets of dense columns."""

    def __init__(self, units: Float64[np.ndarray, "n m"]):
        self._units = units

    def __call__(self, features: Int64[np.ndarray, " size"]) -> Local:
        """All that is known about these features, which have values."""
        inverse, smallest = _pseudo_inverse(self._units[features].T)
        erc = np.inf
        if inverse is not None:
            sums = np.abs(self._units @ inverse).sum(axis=1)
            sums[features] = 0.0
            erc = float(sums.max())
        return Local(features.size, erc, smallest, None, None, None)


def _pseudo_inverse(
    columns: Float64[np.ndarray, "rows size"],
) -> tuple[Float64[np.ndarray, "rows size"] | None, float]:
    """The transposed pseudo-inverse (None if the columns are dependent), and the smallest singular value."""
    size = columns.shape[1]
    if columns.shape[0] < size:
        return None, 0.0
    left, singular, right = np.linalg.svd(columns, full_matrices=False)
    smallest = float(singular[size - 1])
    return (None if smallest <= INDEPENDENT else np.ascontiguousarray((left / singular) @ right)), smallest


@numba.njit(cache=True, nogil=True)
def _largest_outside(
    inverse: NDArray[np.float64],
    coordinates: NDArray[np.int32],
    members: NDArray[np.int64],
    units: NDArray[np.float64],
    rows: NDArray[np.int32],
    starts: NDArray[np.int64],
    features: NDArray[np.int32],
    places: NDArray[np.int64],
    seen: NDArray[np.bool_],
) -> float:
    """The largest l1 norm of the pseudo-inverse times a column outside, of those that touch the coordinates inside.

    `places` says where coordinates stand in `inverse`; `seen` is clean before and after.
    """
    largest = 0.0
    product = np.empty(inverse.shape[1])
    for member in members:
        seen[member] = True
    for coordinate in coordinates:
        for position in range(starts[coordinate], starts[coordinate + 1]):
            feature = features[position]
            if seen[feature]:
                continue
            seen[feature] = True
            product[:] = 0.0
            for slot in range(rows.shape[1]):
                if rows[feature, slot] >= 0 and places[rows[feature, slot]] >= 0:
                    line, value = inverse[places[rows[feature, slot]]], units[feature, slot]
                    for index in range(product.size):
                        product[index] += value * line[index]
            total = 0.0
            for index in range(product.size):
                total += abs(product[index])
            largest = max(largest, total)
    for coordinate in coordinates:
        for position in range(starts[coordinate], starts[coordinate + 1]):
            seen[features[position]] = False
    return largest
