"""The dictionary that is certified, laid out for the work."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64
from numpy.typing import NDArray

from expander_sae.certificates.mask import Mask, present_above
from expander_sae.dictionaries import DenseDictionary, Dictionary, ExpanderDictionary
from expander_sae.errors import ExpanderError
from expander_sae.supports import Support


@dataclass(frozen=True, eq=False)
class Columns:
    """The columns of a dictionary in float64."""

    name: str
    m: int
    values: Float64[NDArray[np.float64], "n d"]
    """All m of each column where they are dense."""
    units: Float64[NDArray[np.float64], "n d"]
    """The columns scaled to norm one; zero columns stay zero."""
    used: Int64[NDArray[np.int64], " used"]
    """The columns that are not zero."""

    @property
    def n(self) -> int:
        """All columns."""
        return len(self.values)


@dataclass(frozen=True, eq=False)
class SparseColumns(Columns):
    """Columns on a support."""

    support: Support
    mask: Mask
    """Which values are not zero."""
    effective: Mask
    """Which values are not near zero; the same object where these are the same."""

    @property
    def d(self) -> int:
        """Values per column."""
        return self.values.shape[1]


def columns_of(dictionary: Dictionary, tau: float) -> Columns:
    """The columns of an expander or a dense dictionary, checked."""
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
        return Columns(f"dense, m={m}, n={n}", m, values, units, used)
    if tau >= dictionary.d**-0.5:
        raise ExpanderError(
            f"tau must be below 1 / sqrt(d) = {dictionary.d**-0.5:.3g}, or a flat column would lose all of its "
            f"values, not {tau}."
        )
    rows, present = dictionary.support.rows.numpy(), present_above(values, 0.0)
    mask, above = Mask.of(rows, present, m), present_above(values, tau)
    effective = mask if np.array_equal(present, above) else Mask.of(rows, above, m)
    return SparseColumns(_name(dictionary.support), m, values, units, used, dictionary.support, mask, effective)


def _name(support: Support) -> str:
    origin = "stored" if support.is_stored else f"seed {support.seed}"
    d = f"{support.d}" if support.is_even else f"{support.entries / support.n:.2f} on average, at most {support.d}"
    return f"expander, m={support.m}, n={support.n}, d={d}, {support.construction} rows ({origin})"
