"""Stability: which features another seed of the same training finds again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csc_array

from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.dictionaries import Codes
from expander_sae.errors import ExpanderError
from expander_sae.evaluation.quality.firings import cosines_of_firing, lengths_of

SAME = 0.7
"""Two features are the same if their columns, or their firings, have at least this cosine."""
MOST = 2**28
"""Entries of a matrix of similarities, at most: a gigabyte."""


@dataclass(frozen=True)
class Found:
    """How alike the features of two dictionaries are that the best assignment of one to the other pairs."""

    similarity: NDArray[np.float64]
    """Of every feature of the first dictionary that has a partner."""
    features: int
    """Features of the first dictionary that were to be found."""

    @property
    def share(self) -> float:
        """Of the features of the first dictionary, those that are found again; nan if there are none."""
        return float((self.similarity >= SAME).sum() / self.features) if self.features else float("nan")

    @property
    def mean(self) -> float:
        """Cosine of a pair; nan if there is none."""
        return float(self.similarity.mean()) if len(self.similarity) else float("nan")


def columns_found_again(
    one: SparseAutoencoder, other: SparseAutoencoder, features: NDArray[np.int64], others: NDArray[np.int64]
) -> Found:
    """The features of one dictionary in another, by the cosine of their columns."""
    if one.m != other.m:
        raise ExpanderError(
            f"The second seed's dictionary is for activations of width {other.m}, the first one's for {one.m}; give "
            "two seeds of the same training."
        )
    _check_size(features, others)
    first, second = _unit_columns(one, features), _unit_columns(other, others)
    return _assigned((first @ second.T).numpy())


def firings_found_again(
    one: csc_array, other: csc_array, features: NDArray[np.int64], others: NDArray[np.int64]
) -> Found:
    """The features of one dictionary in another, by the cosine of their activations on the same tokens."""
    _check_size(features, others)
    second = other[:, others]
    return _assigned(cosines_of_firing(one[:, features], second, lengths_of(second)).toarray())


def _assigned(similarity: NDArray[np.floating]) -> Found:
    rows, columns = linear_sum_assignment(similarity, maximize=True)
    return Found(np.asarray(similarity[rows, columns], dtype=np.float64), similarity.shape[0])


@torch.no_grad()
def _unit_columns(sae: SparseAutoencoder, features: NDArray[np.int64]) -> torch.Tensor:
    chosen = torch.from_numpy(features).to(sae.pre_bias.device)[:, None]
    columns = sae.dictionary.synthesize(Codes(torch.ones_like(chosen, dtype=sae.pre_bias.dtype), chosen, sae.n))
    return torch.nn.functional.normalize(columns.float()).cpu()


def _check_size(features: NDArray[np.int64], others: NDArray[np.int64]) -> None:
    if len(features) * len(others) > MOST:
        raise ExpanderError(
            f"Pairing {len(features):,} features with {len(others):,} takes more than a gigabyte; compare the seeds of "
            "a smaller dictionary, or leave the second seed out."
        )
