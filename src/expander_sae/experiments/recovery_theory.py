"""Where recovery of most supports ends as m grows, by theory."""

from __future__ import annotations

import math

from scipy.optimize import minimize_scalar
from scipy.stats import binom, norm

_STEPS = 4000


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
