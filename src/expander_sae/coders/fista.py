"""FISTA: the lasso by gradient steps with momentum, every step followed by a soft threshold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from expander_sae.coders.base import in_token_order, synthesize_dense
from expander_sae.coders.lasso import LassoCoder, duality_gap, soft_threshold
from expander_sae.dictionaries import Codes, Dictionary

POWER_ITERATIONS = 30
SAFETY = 1.02
"""Power iteration approaches the largest eigenvalue from below."""
STEEPER = 1.5
"""What a token's curvature is multiplied by when a step shows that it was too small."""
CHECK_EVERY = 10
"""Iterations between looks at the gap, after which finished tokens leave the batch."""


class Point(NamedTuple):
    """Codes of every token, their residual, and its correlations; all three are affine in the codes."""

    codes: Float[Tensor, "batch n"]
    residual: Float[Tensor, "batch m"]
    correlations: Float[Tensor, "batch n"]

    def beyond(self, previous: Point, share: Float[Tensor, "batch 1"]) -> Point:
        """The point reached by going on in the direction of the last step."""
        return Point(*(new + share * (new - old) for new, old in zip(self, previous, strict=True)))

    def kept(self, mask: Bool[Tensor, " batch"], other: Point) -> Point:
        """This point for the tokens of the mask, the other point for the rest."""
        return Point(*(torch.where(mask[:, None], mine, theirs) for mine, theirs in zip(self, other, strict=True)))


class State(NamedTuple):
    """Everything that a token carries from one iteration to the next."""

    at: Point
    previous: Point
    momentum: Float[Tensor, "batch 1"]
    curvature: Float[Tensor, "batch 1"]

    def tokens(self, mask: Bool[Tensor, " batch"]) -> State:
        """Some of the tokens."""
        at, previous = (Point(*(tensor[mask] for tensor in point)) for point in (self.at, self.previous))
        return State(at, previous, self.momentum[mask], self.curvature[mask])


@dataclass(frozen=True)
class FISTA(LassoCoder):
    """Lasso codes by accelerated proximal gradient with adaptive restart.

    Costs a product with the dictionary, in each direction, per iteration, and some hundred iterations; holds about a
    dozen arrays [chunk, n]. It has no sequential inner loop, which suits a GPU, and does not mind how many features a
    token uses; while they are few, CoordinateDescent is quicker. In float32 a gap much below 1e-6 cannot be reached.
    """

    def _minimise(self, dictionary: Dictionary, x: Float[Tensor, "batch m"], penalty: Float[Tensor, " batch"]) -> Codes:
        zeros = x.new_zeros(x.shape[0], dictionary.n)
        at = Point(zeros, x, dictionary.correlate(x))
        curvature = (SAFETY * largest_eigenvalue(dictionary, x.dtype)).expand(x.shape[0], 1)
        state = State(at, at, torch.ones_like(curvature), curvature)
        goal = self.gap * x.square().sum(dim=1) / 2
        tokens = torch.arange(x.shape[0], device=x.device)
        finished = []
        for iteration in range(self.iterations + 1):
            if iteration % CHECK_EVERY == 0 or iteration == self.iterations:
                gap = duality_gap(
                    state.at.residual.square().sum(dim=1), state.at.correlations, state.at.codes, penalty, self.signed
                )
                done = (gap <= goal) | (iteration == self.iterations)
                finished.append((tokens[done], Codes.from_dense(state.at.codes[done])))
                if done.all():
                    break
                state, tokens, x = state.tokens(~done), tokens[~done], x[~done]
                penalty, goal = penalty[~done], goal[~done]
            state = self._step(dictionary, x, penalty[:, None], state)
        return in_token_order(finished)

    def _step(
        self, dictionary: Dictionary, x: Float[Tensor, "batch m"], penalty: Float[Tensor, "batch 1"], state: State
    ) -> State:
        at, previous, momentum, curvature = state
        faster = (1 + (1 + 4 * momentum.square()).sqrt()) / 2
        ahead = at.beyond(previous, (momentum - 1) / faster)
        codes = soft_threshold(ahead.codes + ahead.correlations / curvature, penalty / curvature, self.signed)
        residual = x - synthesize_dense(dictionary, codes)
        new = Point(codes, residual, dictionary.correlate(residual))
        # The momentum has overshot when the step turns back on the way that led to it.
        overshot = ((ahead.codes - codes) * (codes - at.codes)).sum(dim=1, keepdim=True) > 0
        sound = _within_bound(new, ahead, curvature[:, 0], x)
        return State(
            new.kept(sound, at),
            at,
            torch.where(overshot | ~sound[:, None], 1.0, faster),
            torch.where(sound[:, None], curvature, curvature * STEEPER),
        )


def _within_bound(
    new: Point, ahead: Point, curvature: Float[Tensor, " batch"], x: Float[Tensor, "batch m"]
) -> Bool[Tensor, " batch"]:
    """Whether the curvature was large enough for the step that was taken."""
    rounding = (16 * torch.finfo(x.dtype).eps) ** 2 * x.square().sum(dim=1)
    image = (new.residual - ahead.residual).square().sum(dim=1)
    return image <= curvature * (new.codes - ahead.codes).square().sum(dim=1) + rounding


def largest_eigenvalue(dictionary: Dictionary, dtype: torch.dtype) -> Float[Tensor, "1 1"]:
    """The largest eigenvalue of `W W^T`, from below, by power iteration from a start that is always the same."""
    start = torch.randn(1, dictionary.m, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    vector = torch.nn.functional.normalize(start).to(dictionary.device, dtype)
    size = vector.new_ones(1, 1)
    for _ in range(POWER_ITERATIONS):
        image = synthesize_dense(dictionary, dictionary.correlate(vector))
        size = torch.linalg.vector_norm(image, dim=1, keepdim=True)
        vector = image / size.clamp(min=torch.finfo(dtype).tiny)
    return torch.where(size > 0, size, 1.0)
