"""What a study of recovery found: a row for every cell, and where each coder stops recovering."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from expander_sae.certificates.samples import Rate
from expander_sae.evaluation.results import Estimate
from expander_sae.experiments.recovery import RecoveryResult, Strip
from expander_sae.experiments.recovery_config import RecoveryConfig

HALF = 0.5


@dataclass(frozen=True)
class Row:
    """A cell."""

    dictionary: str
    coder: str
    n_over_m: float
    k_over_m: float
    n: int
    k: int
    tokens: int
    recovered: int
    exact: Estimate
    """Share of the tokens whose features were found exactly, with a Clopper-Pearson interval of 95 %."""


@dataclass(frozen=True)
class Transition:
    """Where a coder no longer recovers half of the tokens."""

    dictionary: str
    coder: str
    n_over_m: float
    k_over_m: Estimate
    """0 where the fewest features are too many already, inf where the most are not."""


def rows_of(result: RecoveryResult) -> list[Row]:
    """Every cell that was tried, strip after strip."""
    config = result.config
    return [
        Row(strip.dictionary, strip.coder, strip.n / config.m, k / config.m, strip.n, k, config.tokens, recovered,
            clopper_pearson(recovered, config.tokens))
        for strip in result.strips
        for k, recovered in zip(config.active, strip.recovered, strict=False)
    ]  # fmt: skip


def clopper_pearson(successes: int, trials: int) -> Estimate:
    """The share, and the 95 % interval that holds whatever the true one is."""
    rate = Rate.counted(successes, trials)
    return Estimate(rate.share, rate.low, rate.high)


def transition_of(result: RecoveryResult, strip: Strip) -> Transition:
    """Where a strip falls through one half, and where the ends of its intervals do."""
    config = result.config
    found = half_of(config, strip.recovered, config.tokens)
    return Transition(strip.dictionary, strip.coder, strip.n / config.m, found)


def half_of(config: RecoveryConfig, counts: Sequence[int], trials: int) -> Estimate:
    """The k / m where counts of so many trials, for ever more active features, fall through one half."""
    shares = [clopper_pearson(count, trials) for count in counts]
    places = [k / config.m for k, _ in zip(config.active, shares, strict=False)]
    return Estimate(
        falls_through(HALF, places, [each.value for each in shares]),
        falls_through(HALF, places, [each.low for each in shares]),
        falls_through(HALF, places, [each.high for each in shares]),
    )


def falls_through(level: float, places: Sequence[float], shares: Sequence[float]) -> float:
    """The first place where the shares fall below a level, between two places by logarithms; 0 or inf if outside."""
    number = next((number for number, share in enumerate(shares) if share < level), None)
    if number is None:
        return math.inf
    if number == 0:
        return 0.0
    before, after = shares[number - 1], shares[number]
    way = (before - level) / (before - after)
    return math.exp((1 - way) * math.log(places[number - 1]) + way * math.log(places[number]))
