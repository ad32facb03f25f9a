"""The transpose of a support: for every coordinate, the features that touch it."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class RowLists:
    """The features of coordinate i are `features[starts[i]:starts[i + 1]]`, ascending, each at its `slots` entry."""

    starts: Int[Tensor, "m_plus_1"]
    """int64, offsets into the other two."""
    features: Int[Tensor, " entries"]
    """int32, feature numbers."""
    slots: Int[Tensor, " entries"]
    """int32, `rows[feature, slot]` is the coordinate."""


def build_row_lists(rows: Int[Tensor, "n d"], m: int) -> RowLists:
    """Row lists by one counting sort, O(n d); rows of -1 are in none of them."""
    starts, features, slots = _counting_sort(rows.numpy(), m)
    return RowLists(torch.from_numpy(starts), torch.from_numpy(features), torch.from_numpy(slots))


@numba.njit(cache=True)
def _counting_sort(rows: NDArray[np.int32], m: int) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]:
    n, d = rows.shape
    starts = np.zeros(m + 1, dtype=np.int64)
    for feature in range(n):
        for slot in range(d):
            if rows[feature, slot] >= 0:
                starts[rows[feature, slot] + 1] += 1
    for coordinate in range(m):
        starts[coordinate + 1] += starts[coordinate]
    nexts = starts[:-1].copy()
    features = np.empty(starts[m], dtype=np.int32)
    slots = np.empty(starts[m], dtype=np.int32)
    for feature in range(n):
        for slot in range(d):
            coordinate = rows[feature, slot]
            if coordinate >= 0:
                position = nexts[coordinate]
                nexts[coordinate] = position + 1
                features[position] = feature
                slots[position] = slot
    return starts, features, slots
