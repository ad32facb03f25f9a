"""What is known before a coder is tried: certificates of a dictionary, and thresholds as m grows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.stats import binom, norm

from expander_sae.certificates.coherence import coherence_of
from expander_sae.certificates.matrix import Matrix, matrix_of
from expander_sae.certificates.progress import silent
from expander_sae.certificates.samples import decide, random_sets
from expander_sae.dictionaries import Dictionary, ExpanderDictionary
from expander_sae.studies.recovery.config import LARGEST, SMALLEST, RecoveryConfig
from expander_sae.supports.statistics import max_overlap

_STEPS = 4000


@dataclass(frozen=True)
class Certificates:
    """What is known about a dictionary before it is tried."""

    coherence: float
    omp_k: int
    """The largest k at which OMP and l1 minimisation recover every support, by the Babel function."""
    topk_k: int
    """The largest k at which TopK recovers every support, with coefficients of these sizes."""
    welch_k: int
    """The largest k that the coherence of any dictionary of this size could prove."""
    agree: int | None
    """Equal votes that the voting decoder was told to need; None for a dense dictionary."""
    condition: list[int]
    """Random sets of k features that satisfy the exact recovery condition, for every k up to the first of which none
    does: OMP and l1 minimisation find every code on these sets."""


def certificates_of(config: RecoveryConfig, dictionary: Dictionary) -> Certificates:
    """What the overlaps of the columns prove about a dictionary, and how many votes are safe."""
    columns = matrix_of(dictionary, 0.0)
    coherence = coherence_of(columns, config.m, silent)
    ratio = {"flat": 1.0, "uniform": SMALLEST / LARGEST, "gaussian": 0.0}[config.coefficients]
    agree = config.agree
    if agree is None and isinstance(dictionary, ExpanderDictionary):
        # Codes of several features, seen through weights of equal size, sum up to the same vote on all they share.
        agree = max(2, max_overlap(dictionary.support) + 1) if config.columns == "flat" else 2
    voted = agree if isinstance(dictionary, ExpanderDictionary) else None
    return Certificates(
        coherence.mu, coherence.babel_k, coherence.certified_k(ratio), coherence.welch_k or dictionary.n, voted,
        sets_with_condition(columns, config.active, config.sets, config.seed),
    )  # fmt: skip


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


def sets_with_condition(columns: Matrix, sizes: Sequence[int], number: int, seed: int) -> list[int]:
    """How many of `number` random sets of each size satisfy Tropp's condition, up to the first size without any."""
    passed = list[int]()
    for k in sizes:
        sets = random_sets(columns.used, k, number, seed)
        passed.append(sum(each.recovers for each in decide(columns, sets, "", silent)))
        if passed[-1] == 0:
            break
    return passed
