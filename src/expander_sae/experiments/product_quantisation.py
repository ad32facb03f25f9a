"""Product quantisation: columns cut into pieces, each piece replaced by the nearest of a few centroids of its place."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from expander_sae.dictionaries.quantised import dequantise, quantise

CENTROIDS = 256
"""As many as a byte can name."""
COLUMNS_PER_CENTROID = 4
"""At least; a small dictionary gets fewer centroids, or they would be the columns themselves."""

_ROUNDS = 25


class Cost(NamedTuple):
    """What product-quantised columns take."""

    learned_values: int
    """Centroids, indices and the norms of the columns."""
    bytes: int
    """Centroids in 8 bits with a scale each, indices of a byte, norms in float16."""


def quantise_products(
    values: Float[Tensor, "n m"], length: int, generator: torch.Generator
) -> tuple[Float[Tensor, "n m"], Cost]:
    """(the columns as centroids and norms give them, what they take)."""
    n, m = values.shape
    norms = torch.linalg.vector_norm(values, dim=1, keepdim=True).clamp_min(torch.finfo(values.dtype).tiny)
    pieces, count = [], min(CENTROIDS, max(1, n // COLUMNS_PER_CENTROID))
    for piece in (values / norms).split(length, dim=1):
        centroids = dequantise(*quantise(k_means(piece, count, generator), 8))
        pieces.append(centroids[nearest(piece, centroids)])
    directions = torch.cat(pieces, dim=1)
    # The projection onto the new direction, which is no longer of unit norm.
    gains = (values * directions).sum(dim=1) / directions.square().sum(dim=1).clamp_min(torch.finfo(values.dtype).tiny)
    learned = count * m + n * len(pieces) + n
    return directions * gains.half().float()[:, None], Cost(learned, learned + count * len(pieces) + n)


def k_means(x: Float[Tensor, "n s"], count: int, generator: torch.Generator) -> Float[Tensor, "count s"]:
    """Centroids by Lloyd's rounds from random rows; one that loses all its rows stays where it is."""
    centroids = x[torch.randperm(len(x), generator=generator)[:count]]
    for _ in range(_ROUNDS):
        chosen = nearest(x, centroids)
        sums = torch.zeros_like(centroids).index_add_(0, chosen, x)
        sizes = torch.bincount(chosen, minlength=count)[:, None]
        centroids = torch.where(sizes > 0, sums / sizes.clamp_min(1), centroids)
    return centroids


def nearest(x: Float[Tensor, "n s"], centroids: Float[Tensor, "count s"]) -> Int[Tensor, " n"]:
    """The number of the nearest centroid of every row."""
    return (centroids.square().sum(dim=1) - 2 * x @ centroids.T).argmin(dim=1)
