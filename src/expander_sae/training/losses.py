"""What training makes small: the share of the batch's variance that is left over, a number without a scale.

Sums run over all processes, so that several of them minimise exactly what one would.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from expander_sae.distribution import Group


class BatchStatistics(NamedTuple):
    """What all dictionaries of a pass need to know of a batch, at the scale of the source."""

    tokens: int
    """In all processes together."""
    variation: Float[Tensor, ""]
    """Sum of the squared distances to the batch's mean: the error of predicting the mean."""
    stop: bool
    """Whether any process was asked to stop."""


@torch.no_grad()
def batch_statistics(x: Float[Tensor, "tokens m"], group: Group, stop: bool = False) -> BatchStatistics:
    """The statistics of a batch; one round of messages, which also carries the wish to stop."""
    if group.world == 1:
        return BatchStatistics(len(x), _square_norm(x - x.mean(dim=0)), stop)
    sums = torch.cat([x.sum(dim=0, dtype=torch.float64), x.new_tensor([len(x), stop], dtype=torch.float64)])
    group.add_up(sums)
    tokens = int(sums[-2])
    squares = group.add_up(_square_norm(x - (sums[:-2] / tokens).to(x.dtype)))
    return BatchStatistics(tokens, squares, bool(sums[-1] > 0))


def fvu(residual: Float[Tensor, "tokens m"], variation: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """Fraction of variance unexplained; predicting the mean gives 1."""
    return _square_norm(residual) / variation


class _SquareNorm(torch.autograd.Function):
    """The sum of squares; torch's own, by norms or by products, makes two or three more matrices on the way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.linalg.vector_norm(x).square()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return x * (2 * gradients[0])


def _square_norm(x: Float[Tensor, "tokens m"]) -> Float[Tensor, ""]:
    norm: Tensor = _SquareNorm.apply(x)  # type: ignore[no-untyped-call]
    return norm
