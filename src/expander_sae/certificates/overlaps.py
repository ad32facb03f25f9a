"""What shared coordinates prove by themselves: how many features can be told apart, whatever their values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from jaxtyping import Int64
from numpy.typing import NDArray

from expander_sae.certificates.matrix import Mask
from expander_sae.certificates.progress import Progress, over_features


@dataclass(frozen=True, eq=False)
class Overlaps:
    """The overlaps of every feature with all others, put together."""

    largest: int
    """The most coordinates that two features share."""
    sums: Int64[np.ndarray, " partners_plus_1"]
    """Entry p: the most that a feature shares with p others, summed over them."""
    generic_set: int
    """Any that many features touch at least as many coordinates, so that almost all values keep them independent."""
    covers: Int64[np.ndarray, " n"]
    """How many others it takes at least to touch all coordinates of a feature; n if all others do not."""

    @property
    def peelable_set(self) -> int:
        """No stopping set has that many features or fewer."""
        return int(self.covers.min())

    @property
    def generic_k(self) -> int:
        """Codes of that many features are unique for almost all values (theorem 3)."""
        return self.generic_set // 2

    @property
    def peelable_k(self) -> int:
        """Codes of that many features are unique for all values but zero (theorem 2)."""
        return self.peelable_set // 2

    def collisions(self, size: int, degree: int) -> float:
        """At most how many of its values a feature has, averaged over any set of that many of at most this degree,
        where a feature before it has one too: values less coordinates touched, per feature.

        With s the `sums` of the others, coordinates are at least 2 values / (c + 1) - s / (c (c + 1)) per feature for
        every whole number c (Dawson and Sankoff; c = 1 is Bonferroni's bound).
        """
        shared = float(self.sums[min(size, len(self.sums)) - 1])
        best = 1 + int(shared // degree)
        return min(float(degree), (degree * (best - 1) + shared / best) / (best + 1))


def overlaps(mask: Mask, partners: int, stage: str, report: Progress) -> Overlaps:
    """All overlaps, from the features of each coordinate: work grows with the sum of squared degrees, memory with n.

    t features that each share at most d (d_min - 1) coordinates with the others touch at least t, by Cauchy-Schwarz on
    how many of them touch each coordinate. In a stopping set every feature shares all of its coordinates.
    """
    degrees = mask.degrees
    least = int(degrees[degrees > 0].min(initial=mask.d))
    covers = np.full(mask.n, mask.n, dtype=np.int64)

    def work(start: int, stop: int) -> tuple[int, NDArray[np.int64], int]:
        return _overlaps(mask.rows, mask.starts, mask.features, counters(mask), start, stop, least, partners, covers)

    parts = over_features(work, mask.n, stage, report)
    return Overlaps(
        largest=max(part[0] for part in parts),
        sums=np.max([part[1] for part in parts], axis=0),
        generic_set=min(part[2] for part in parts),
        covers=covers,
    )


@numba.njit(cache=True, nogil=True)
def _overlaps(
    rows: NDArray[np.int32],
    starts: NDArray[np.int64],
    features: NDArray[np.int32],
    shared: NDArray[np.unsignedinteger[Any]],
    first: int,
    last: int,
    least: int,
    partners: int,
    covers: NDArray[np.int64],
) -> tuple[int, NDArray[np.int64], int]:
    """The fields of `Overlaps` for the features first .. last-1, whose `covers` are filled in."""
    n, d = rows.shape
    sums, pairs = np.zeros(partners + 1, dtype=np.int64), np.zeros(d + 1, dtype=np.int64)
    largest, generic = 0, n
    for feature in range(first, last):
        degree = count_shared(rows[feature], starts, features, shared)
        if degree == 0:
            continue
        shared[feature] = 0
        pairs[:] = 0
        for coordinate in rows[feature]:
            if coordinate >= 0:
                for position in range(starts[coordinate], starts[coordinate + 1]):
                    pairs[shared[features[position]]] += 1
                    shared[features[position]] = 0
        total, taken, fits = 0, 0, n - 1
        for overlap in range(d, 0, -1):
            if pairs[overlap] > 0:
                largest = max(largest, overlap)
            # Partners beyond the first `partners` change nothing once both questions are answered.
            for _ in range(pairs[overlap]):
                total, taken = total + overlap, taken + 1
                if taken <= partners:
                    sums[taken] = max(sums[taken], total)
                if total > degree * (least - 1):
                    fits = min(fits, taken - 1)
                if total >= degree:
                    covers[feature] = min(covers[feature], taken)
                if taken >= partners and fits < n - 1 and covers[feature] < n:
                    break
        for more in range(taken + 1, partners + 1):
            sums[more] = max(sums[more], total)
        generic = min(generic, fits + 1)
    return largest, sums, generic


@numba.njit(cache=True, nogil=True)
def count_shared(
    coordinates: NDArray[np.int32],
    starts: NDArray[np.int64],
    features: NDArray[np.int32],
    shared: NDArray[np.unsignedinteger[Any]],
) -> int:
    """Count in `shared`, which is zero, how many of these coordinates each feature touches; gives their number.

    A byte per feature stays in the cache, where inner products would not.
    """
    degree = 0
    for coordinate in coordinates:
        if coordinate >= 0:
            degree += 1
            for position in range(starts[coordinate], starts[coordinate + 1]):
                shared[features[position]] += 1
    return degree


def counters(mask: Mask) -> NDArray[np.unsignedinteger[Any]]:
    """A zero for every feature that can count up to d."""
    return np.zeros(mask.n, dtype=np.uint8 if mask.d < 256 else np.uint32)
