"""Firings by rank of pick: which of them a coder takes first, and which only to explain what the first left over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.sparse import csc_array, csr_array
from torch import Tensor

from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.coders import BatchTopK, Candidates, TopK
from expander_sae.evaluation.quality.firings import firings_of


@dataclass(frozen=True)
class Band:
    """Some ranks of pick, and the firings that have them."""

    first: int
    last: int
    firings: csc_array

    @property
    def name(self) -> str:
        """As a table shows it."""
        return f"{self.first}" if self.first == self.last else f"{self.first} to {self.last}"


def by_rank(sae: SparseAutoencoder, x: Float[Tensor, "tokens m"], firings: csc_array) -> list[Band]:
    """The firings of an autoencoder in bands of rank: 1, 2, 3 to 4, 5 to 8, ...

    A pursuit of k features is asked again for its first 1, 2, 4, ...: the rank of a firing is that of the fewest among
    which its feature is. Under a coder that takes the largest of one product, or that has no k, the strongest firing of
    a token is its first.
    """
    edges = _edges(firings)
    asks = isinstance(getattr(sae.coder, "k", None), int) and not isinstance(sae.coder, TopK | BatchTopK)
    bands = _by_asking(sae, x, firings, edges) if asks else _by_strength(firings, edges)
    return [
        Band(first + 1, last, _only(firings, bands == number))
        for number, (first, last) in enumerate(zip([0, *edges[:-1]], edges, strict=True))
    ]


def _edges(firings: csc_array) -> list[int]:
    """The last rank of every band."""
    most = int(np.bincount(firings.indices, minlength=1).max()) if firings.nnz else 1
    edges = [1]
    while edges[-1] < most:
        edges.append(min(2 * edges[-1], most))
    return edges


def _by_asking(
    sae: SparseAutoencoder, x: Float[Tensor, "tokens m"], firings: csc_array, edges: list[int]
) -> NDArray[np.int64]:
    """The band of every firing, in the order of the matrix."""
    coder: Any = sae.coder
    pattern = _pattern(firings)
    among = pattern.copy()
    for edge in edges[:-1]:
        same = {"candidates": coder.width} if isinstance(coder, Candidates) else {}
        first = firings_of(sae.with_coder(replace(coder, k=edge, **same)), x)
        among = among + pattern.multiply(_pattern(first))
    among = csc_array(among)
    among.sort_indices()
    return len(edges) - among.data.astype(np.int64)


def _pattern(firings: csc_array) -> csc_array:
    return csc_array((np.ones(firings.nnz, dtype=np.int8), firings.indices, firings.indptr), shape=firings.shape)


def _by_strength(firings: csc_array, edges: list[int]) -> NDArray[np.int64]:
    token = firings.indices
    order = np.lexsort((-np.abs(firings.data), token))
    starts = np.concatenate([[0], np.cumsum(np.bincount(token, minlength=firings.shape[0]))])[:-1]
    rank = np.empty(len(token), dtype=np.int64)
    rank[order] = np.arange(len(token)) - starts[token[order]]
    return np.searchsorted(edges, rank, side="right")


def _only(firings: csc_array, kept: NDArray[np.bool_]) -> csc_array:
    """Some of the firings."""
    column = np.repeat(np.arange(firings.shape[1]), np.diff(firings.indptr))
    entries = (firings.data[kept], (firings.indices[kept], column[kept]))
    chosen = csr_array(entries, shape=firings.shape).tocsc()
    chosen.sort_indices()
    return chosen


def at_home(bands: Sequence[Band], firings: csc_array) -> list[int]:
    """For every band how many features fire there most often (in the first one of several)."""
    if not bands:
        return []
    counts = np.stack([np.diff(band.firings.indptr) for band in bands])[:, np.diff(firings.indptr) > 0]
    found: list[int] = np.bincount(counts.argmax(axis=0), minlength=len(bands)).tolist()
    return found
