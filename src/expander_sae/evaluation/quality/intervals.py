"""How sure a mean over features is: other features might have been drawn, and other documents read."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from expander_sae.evaluation.results import Interval, Kind

PARTS = 10
"""Parts of the documents of which one after the other is left out."""
Z = 1.96
"""Standard errors on either side, for 95 %."""


def parts_of(document: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """For every token the part of the documents that its own belongs to, drawn at random."""
    numbers, which = np.unique(document, return_inverse=True)
    part = np.random.default_rng(seed).permutation(np.arange(len(numbers)) % PARTS)
    return part[which]


@dataclass(frozen=True)
class Reading:
    """One measure of the drawn features."""

    each: NDArray[np.float64]
    """Of every feature; nan where it is not defined."""
    without: NDArray[np.float64]
    """The mean over features with one part of the documents left out, for every part; empty if none was."""

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> Reading:
        """Of values `[features, 1 + parts]`: with all documents, then without each part."""
        return cls(values[:, 0], np.array([mean_of_defined(column) for column in values.T[1:]]))

    def interval(self) -> Interval:
        """The mean over features, and the interval for other features and other documents.

        Contexts that a resample of documents holds twice would look alike, so documents are not drawn with replacement:
        their variance is that of a jackknife over parts of them. To it is added that of a mean over features.
        """
        value, defined = mean_of_defined(self.each), self.each[~np.isnan(self.each)]
        parts = len(self.without)
        if len(defined) < 2 or np.isnan(self.without).any():
            return Interval.bare(value)
        variance = defined.var(ddof=1) / len(defined)
        if parts:
            variance += (parts - 1) / parts * float(((self.without - self.without.mean()) ** 2).sum())
        half = Z * math.sqrt(variance)
        return Interval(value, value - half, value + half, Kind.FEATURES_AND_DOCUMENTS if parts else Kind.FEATURES)


def mean_of_defined(values: NDArray[np.float64]) -> float:
    """Of the numbers that are not nan; nan if there is none."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else math.nan
