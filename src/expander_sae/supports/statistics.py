"""Exact numbers about a support: degrees of coordinates, overlaps of features, what is repeated or missing."""

from __future__ import annotations

import numba
import numpy as np
import torch
from jaxtyping import Int64
from numpy.typing import NDArray
from torch import Tensor

from expander_sae.supports.support import Support


def right_degrees(support: Support) -> Int64[Tensor, "m"]:
    """How many features touch each coordinate."""
    return torch.diff(support.row_lists.starts)


def uncovered_rows(support: Support) -> Int64[Tensor, "uncovered"]:
    """The coordinates that no feature touches and so no code can reconstruct, ascending."""
    return torch.nonzero(right_degrees(support) == 0).flatten()


def overlap_histogram(support: Support) -> Int64[Tensor, "d_plus_1"]:
    """How many unordered pairs of features share exactly 0, 1, ..., d coordinates; O(sum of squared right degrees)."""
    lists = support.row_lists
    counts = _count_overlaps(support.rows.numpy(), lists.starts.numpy(), lists.features.numpy())
    counts[0] = support.n * (support.n - 1) // 2 - counts[1:].sum()
    return torch.from_numpy(counts)


def max_overlap(support: Support) -> int:
    """The most coordinates that two features share; 0 when there is one feature."""
    return int(torch.nonzero(overlap_histogram(support)).max()) if support.n > 1 else 0


def distinct_supports(support: Support) -> int:
    """How many different sets of coordinates the features touch."""
    lines = np.ascontiguousarray(support.rows.numpy())
    as_bytes = lines.view(np.dtype((np.void, lines.dtype.itemsize * support.d)))
    return int(np.unique(as_bytes).size)


@numba.njit(cache=True)
def _count_overlaps(
    rows: NDArray[np.int32], starts: NDArray[np.int64], features: NDArray[np.int32]
) -> NDArray[np.int64]:
    """Pairs by overlap, entry 0 left at zero: only pairs that share a coordinate are met."""
    n, d = rows.shape
    counts = np.zeros(d + 1, dtype=np.int64)
    shared = np.zeros(n, dtype=np.int32)
    met = np.empty(n, dtype=np.int32)
    # Features come in ascending order in every list, so those after this feature start one further each time.
    later = starts[:-1].copy()
    for feature in range(n):
        number_met = 0
        for slot in range(d):
            coordinate = rows[feature, slot]
            if coordinate < 0:
                break
            later[coordinate] += 1
            for position in range(later[coordinate], starts[coordinate + 1]):
                partner = features[position]
                if shared[partner] == 0:
                    met[number_met] = partner
                    number_met += 1
                shared[partner] += 1
        for position in range(number_met):
            counts[shared[met[position]]] += 1
            shared[met[position]] = 0
    return counts
