"""The dictionary that is certified, laid out for the work: its columns, and which of their values count."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int32, Int64

from expander_sae.dictionaries import ComposedDictionary, DenseDictionary, Dictionary, ExpanderDictionary
from expander_sae.errors import ExpanderError
from expander_sae.supports import NO_ROW, Support
from expander_sae.supports.bad_sets import remaining_of
from expander_sae.supports.support import build_row_lists


@dataclass(frozen=True, eq=False)
class Mask:
    """The coordinates that every column really uses, and the transpose of that."""

    m: int
    rows: Int32[np.ndarray, "n d"]
    """Coordinates in ascending order, -1 where a value does not count."""
    starts: Int64[np.ndarray, " m_plus_1"]
    features: Int32[np.ndarray, " entries"]
    """Those of coordinate i are `features[starts[i]:starts[i + 1]]`, ascending."""

    @classmethod
    def of(cls, rows: Int32[np.ndarray, "n d"], present: Bool[np.ndarray, "n d"], m: int) -> Mask:
        """The mask of the values that are `present`."""
        kept = np.where(present, rows, np.int32(NO_ROW))
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
    def degrees(self) -> Int64[np.ndarray, " n"]:
        """How many values of each column count."""
        return np.count_nonzero(self.rows >= 0, axis=1)

    @property
    def lost(self) -> Int64[np.ndarray, " n"]:
        """How many values any 1, 2, ... columns that have one are without, at most and together."""
        degrees = self.degrees
        missing = np.sort(self.d - degrees[degrees > 0])[::-1]
        return np.cumsum(missing)

    def remaining(self, features: Int64[np.ndarray, " some"]) -> Int64[np.ndarray, " remaining"]:
        """The largest stopping set among the features that have values; empty if peeling takes all of them away."""
        return features[remaining_of(np.ascontiguousarray(self.rows[features]))]


def present_above(values: Float64[np.ndarray, "n d"], tau: float) -> Bool[np.ndarray, "n d"]:
    """Which values are above tau times the norm of their column; with tau = 0 those that are not zero."""
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    return np.abs(values) > tau * norms


@dataclass(frozen=True, eq=False)
class Matrix:
    """A dictionary that is certified: its columns in float64."""

    name: str
    m: int
    values: Float64[np.ndarray, "n d"]
    """All m of each column where they are dense."""
    units: Float64[np.ndarray, "n d"]
    """The same with columns of norm one; zero columns stay zero."""
    used: Int64[np.ndarray, " used"]
    """The columns that are not zero."""

    @property
    def n(self) -> int:
        """All columns."""
        return len(self.values)


@dataclass(frozen=True, eq=False)
class SparseMatrix(Matrix):
    """One whose columns are on a support."""

    support: Support
    mask: Mask
    """Of the values that are not zero."""
    effective: Mask
    """Of the values that are not near zero; the same object where these are the same."""

    @property
    def d(self) -> int:
        """Values per column."""
        return self.values.shape[1]


def matrix_of(dictionary: Dictionary, tau: float) -> Matrix:
    """The columns of an expander or a dense dictionary, checked."""
    if isinstance(dictionary, ComposedDictionary):
        raise ExpanderError(
            "Mixtures of atoms cannot be certified as a whole; certify `dictionary.mixtures`: where the atoms are "
            "linearly independent, so no more of them than the width, codes that are unique over them are unique."
        )
    if not isinstance(dictionary, ExpanderDictionary | DenseDictionary):
        raise ExpanderError(
            "Expander and dense dictionaries can be certified, but not a union of them; certify its blocks one by one."
        )
    values = dictionary.values.detach().cpu().double().numpy()
    if not np.isfinite(values).all():
        raise ExpanderError("Some values of the dictionary are not finite; nothing can be said about it.")
    norms = np.linalg.norm(values, axis=1)
    used = np.flatnonzero(norms)
    if used.size < 2:
        raise ExpanderError("A certificate needs at least two columns that are not zero.")
    units = values / np.where(norms > 0, norms, 1.0)[:, None]
    m, n = dictionary.m, dictionary.n
    if isinstance(dictionary, DenseDictionary):
        return Matrix(f"dense, m={m}, n={n}", m, values, units, used)
    if tau >= dictionary.d**-0.5:
        raise ExpanderError(
            f"tau must be below 1 / sqrt(d) = {dictionary.d**-0.5:.3g}, or a flat column would lose all of its "
            f"values, not {tau}."
        )
    rows, present = dictionary.support.rows.numpy(), present_above(values, 0.0)
    mask, above = Mask.of(rows, present, m), present_above(values, tau)
    effective = mask if np.array_equal(present, above) else Mask.of(rows, above, m)
    return SparseMatrix(_name(dictionary.support), m, values, units, used, dictionary.support, mask, effective)


def _name(support: Support) -> str:
    origin = "stored" if support.is_stored else f"seed {support.seed}"
    d = f"{support.d}" if support.is_even else f"{support.entries / support.n:.2f} on average, at most {support.d}"
    return f"expander, m={support.m}, n={support.n}, d={d}, {support.construction} rows ({origin})"
