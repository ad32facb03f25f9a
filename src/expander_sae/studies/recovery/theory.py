"""Where recovery of most supports ends: as m grows, by theory, and of one dictionary, by a condition on each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.stats import binom, norm

from expander_sae.certificates.samples import decide
from expander_sae.certificates.sampling import random_sets
from expander_sae.certificates.streaming import silent
from expander_sae.certificates.subject import Columns

_STEPS = 4000


def voting_threshold(d: int, agree: int) -> float:
    """k / m up to which rounds of votes uncover nearly every random support, by density evolution."""
    clean = np.arange(1, _STEPS) / _STEPS
    return float(np.min(-np.log(clean) / (d * binom.cdf(agree - 1, d - 1, clean))))


def l1_threshold(m_over_n: float, *, signed: bool) -> float:
    """k / m up to which l1 minimisation recovers most codes of Gaussian columns as m grows (Donoho and Tanner)."""
    sides = 2 if signed else 1

    def lost(threshold: float) -> float:
        noise = (1 + threshold**2) * norm.cdf(-threshold) - threshold * norm.pdf(threshold)
        return -float((1 - sides / m_over_n * noise) / (1 + threshold**2 - sides * noise))

    return max(0.0, -float(minimize_scalar(lost, bounds=(0.0, 10.0), method="bounded").fun))


def sets_with_condition(columns: Columns, sizes: Sequence[int], number: int, seed: int) -> list[int]:
    """Of so many random sets of each size, those that satisfy Tropp's condition; up to the first size without any."""
    passed = list[int]()
    for k in sizes:
        sets = random_sets(columns.used, k, number, seed)
        passed.append(sum(each.recovers for each in decide(columns, sets, "", silent)))
        if passed[-1] == 0:
            break
    return passed
