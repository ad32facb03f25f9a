"""The weighted median: the best value in the sense of absolute deviations."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def weighted_median(points: Float[Tensor, "*batch d"], weights: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
    """A z that minimises `sum(weights * |points - z|)`, always one of the points, the lowest of equally good ones.

    Weights are not negative; points of weight zero do not count, unless all have it.
    """
    ordered = points.sort(dim=-1)
    mass = weights.gather(-1, ordered.indices).cumsum(dim=-1)
    middle = (mass >= mass[..., -1:] / 2).int().argmax(dim=-1, keepdim=True)
    return ordered.values.gather(-1, middle)[..., 0]
