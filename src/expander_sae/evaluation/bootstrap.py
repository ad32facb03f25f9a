"""Intervals: what the numbers would be if other documents of the same kind had been drawn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float64, Int
from numpy.typing import NDArray
from torch import Tensor

from expander_sae.evaluation.results import Interval, Kind

RESAMPLES = 1000
AT_ONCE = 50
"""Resamples that are made together, so that a hundred thousand documents need little memory."""
SEED = 0
COVERAGE = (2.5, 97.5)
"""The percentiles between which 95 % of the resamples lie."""


class DocumentSums:
    """A sum over the tokens of every document, in float64."""

    def __init__(self, documents: int) -> None:
        self.sums: Float64[Tensor, " documents"] = torch.zeros(documents, dtype=torch.float64)

    def add(self, values: Tensor, document: Int[Tensor, " tokens"]) -> None:
        """Count every token's value to its document."""
        self.sums.index_add_(0, document.cpu(), values.to("cpu", torch.float64))

    @property
    def total(self) -> float:
        """Over all documents."""
        return float(self.sums.sum())


class Bootstrap:
    """Documents drawn anew with replacement, the same draws for every number, so that differences are paired."""

    def __init__(self, documents: int) -> None:
        generator, evenly = np.random.default_rng(SEED), np.full(documents, 1 / documents)
        # How often each document was drawn: about once, so that a byte is enough.
        self._draws: list[NDArray[np.uint8]] = [
            generator.multinomial(documents, evenly, AT_ONCE).astype(np.uint8)
            for _ in range(RESAMPLES // AT_ONCE if documents >= 2 else 0)
        ]

    def ratio(self, numerator: Float64[Tensor, " documents"], denominator: Float64[Tensor, " documents"]) -> Interval:
        """The ratio of two sums over documents; nan where the denominator is not above zero."""
        value = float(_ratios(numerator.sum().numpy()[None], denominator.sum().numpy()[None])[0])
        if not self._draws:
            return Interval(value, float("nan"), float("nan"), Kind.DOCUMENTS)
        resampled = _ratios(self._resampled(numerator), self._resampled(denominator))
        low, high = np.percentile(resampled, COVERAGE)  # nan if any of them is
        return Interval(value, float(low), float(high), Kind.DOCUMENTS)

    def mean_of_ratios(
        self, pairs: Sequence[tuple[Float64[Tensor, " documents"], Float64[Tensor, " documents"]]]
    ) -> Interval:
        """The mean of several ratios of sums over the same documents, less those whose denominator is not above zero.

        nan if there is none left.
        """
        found = np.array([[float(numerator.sum()), float(denominator.sum())] for numerator, denominator in pairs])
        value = float(_mean_of_defined(_ratios(found[:, :1], found[:, 1:]))[0]) if len(pairs) else float("nan")
        if not self._draws or not pairs:
            return Interval(value, float("nan"), float("nan"), Kind.DOCUMENTS)
        resampled = np.stack([_ratios(self._resampled(one), self._resampled(other)) for one, other in pairs])
        low, high = np.percentile(_mean_of_defined(resampled), COVERAGE)
        return Interval(value, float(low), float(high), Kind.DOCUMENTS)

    def _resampled(self, sums: Float64[Tensor, " documents"]) -> NDArray[np.float64]:
        """The sum over the documents of every resample."""
        return np.concatenate([draws.astype(np.float64) @ sums.numpy() for draws in self._draws])


def _mean_of_defined(ratios: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean of every column over its entries that are not nan."""
    counts = (~np.isnan(ratios)).sum(axis=0)
    return np.divide(np.nansum(ratios, axis=0), counts, out=np.full(counts.shape, np.nan), where=counts > 0)


def _ratios(numerators: NDArray[np.float64], denominators: NDArray[np.float64]) -> NDArray[np.float64]:
    defined = denominators > 0
    return np.divide(numerators, denominators, out=np.full_like(numerators, np.nan), where=defined)
