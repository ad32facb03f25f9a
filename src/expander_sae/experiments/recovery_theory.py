"""What is known about recovery before anything is tried: certificates for every support, and thresholds for most."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from scipy.optimize import minimize_scalar
from scipy.stats import binom, norm
from torch import Tensor

from expander_sae.dictionaries import Dictionary

MARGIN = 1e-9
"""By which a strict inequality must hold in floating point: flat columns of overlap 1 meet it with equality."""

_CHUNK = 512
_STEPS = 4000


def babel(dictionary: Dictionary, largest: int) -> Float[Tensor, " largest_plus_1"]:
    """The Babel function at 0, 1, ..., largest: the most that so many other unit columns overlap with one, summed."""
    with torch.no_grad():
        scale = dictionary.inverse_norms(torch.float64)
        sums = torch.zeros(largest + 1, dtype=torch.float64)
        for features in torch.split(torch.arange(dictionary.n), _CHUNK):
            gram = (dictionary.gram_columns(features).double() * scale * scale[features, None]).abs()
            gram[torch.arange(len(features)), features] = 0.0
            here = gram.topk(min(largest, dictionary.n), dim=1).values.cumsum(dim=1).amax(dim=0)
            beyond = here[-1:].expand(largest - len(here))  # there are no more columns
            sums = torch.maximum(sums, torch.cat([sums[:1], here, beyond]))
    return sums


def certified(sums: Float[Tensor, " largest_plus_1"], ratio: float = 1.0) -> int:
    """The largest k for which every support is recovered: babel(k) + babel(k - 1) < ratio.

    With ratio 1 by OMP and by l1 minimisation; by TopK with the smallest coefficient as a share of the largest.
    """
    holds = sums[1:] + sums[:-1] < ratio - MARGIN
    return int(holds.cumprod(dim=0).sum())


def welch(m: int, n: int) -> int:
    """The largest k that the coherence of any m by n dictionary at all could certify; n where nothing limits it."""
    if n <= m:
        return n
    coherence = math.sqrt((n - m) / (m * (n - 1)))
    return math.ceil((1 + 1 / coherence) / 2) - 1


def voting_threshold(d: int, agree: int) -> float:
    """k / m up to which rounds of votes uncover nearly every random support, by density evolution."""

    def load(clean: float) -> float:
        return -math.log(clean) / (d * float(binom.cdf(agree - 1, d - 1, clean)))

    return min(load(step / _STEPS) for step in range(1, _STEPS))


def l1_threshold(m_over_n: float, *, signed: bool) -> float:
    """k / m up to which l1 minimisation recovers most codes of Gaussian columns as m grows (Donoho and Tanner)."""
    sides = 2 if signed else 1

    def lost(threshold: float) -> float:
        noise = (1 + threshold**2) * norm.cdf(-threshold) - threshold * norm.pdf(threshold)
        return -float((1 - sides / m_over_n * noise) / (1 + threshold**2 - sides * noise))

    return max(0.0, -float(minimize_scalar(lost, bounds=(0.0, 10.0), method="bounded").fun))
