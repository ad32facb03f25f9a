"""Which values of a dictionary count: all that are not zero, or all that are not near zero."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int32, Int64
from numpy.typing import NDArray

from expander_sae.supports import NO_ROW
from expander_sae.supports.bad_sets import survivors
from expander_sae.supports.support import build_row_lists

ABSENT = NO_ROW
"""In place of a coordinate whose value does not count."""


@dataclass(frozen=True, eq=False)
class Mask:
    """The coordinates that every column really uses, and the transpose of that."""

    m: int
    rows: Int32[NDArray[np.int32], "n d"]
    """Coordinates in ascending order, ABSENT where a value does not count."""
    starts: Int64[NDArray[np.int64], " m_plus_1"]
    features: Int32[NDArray[np.int32], " entries"]
    """The features of coordinate i are `features[starts[i]:starts[i + 1]]`, ascending."""

    @classmethod
    def of(cls, rows: Int32[NDArray[np.int32], "n d"], present: Bool[NDArray[np.bool_], "n d"], m: int) -> Mask:
        """The mask of the values that are `present`."""
        kept = np.where(present, rows, np.int32(ABSENT))
        lists = build_row_lists(torch.from_numpy(kept), m)
        return cls(m, kept, lists.starts.numpy(), lists.features.numpy())

    @property
    def n(self) -> int:
        """Number of features."""
        return int(self.rows.shape[0])

    @property
    def d(self) -> int:
        """The most values that a column can have."""
        return int(self.rows.shape[1])

    @property
    def degrees(self) -> Int64[NDArray[np.int64], " n"]:
        """How many values of each column count."""
        return np.count_nonzero(self.rows != ABSENT, axis=1)

    @property
    def lost(self) -> Int64[NDArray[np.int64], " n"]:
        """How many values any 1, 2, ... columns that have one are without, at most and together."""
        degrees = self.degrees
        missing = np.sort(self.d - degrees[degrees > 0])[::-1]
        return np.cumsum(missing)

    def remaining(self, features: Int64[NDArray[np.int64], " some"]) -> Int64[NDArray[np.int64], " remaining"]:
        """The largest stopping set among the features that have values; empty if peeling takes all of them away."""
        return features[survivors(np.ascontiguousarray(self.rows[features]))]


def present_above(values: Float64[NDArray[np.float64], "n d"], tau: float) -> Bool[NDArray[np.bool_], "n d"]:
    """Which values are above tau times the norm of their column; with tau = 0 those that are not zero."""
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    return np.abs(values) > tau * norms
