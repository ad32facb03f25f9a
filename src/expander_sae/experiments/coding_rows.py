"""What a study of sparse coding found: a row for every coder in every world and setting, over all seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from scipy.stats import t as student

from expander_sae.evaluation.results import Estimate
from expander_sae.experiments.coding import CodingResult, Outcome
from expander_sae.experiments.coding_config import CODERS, KNOWN_DICTIONARY


@dataclass(frozen=True)
class Row:
    """A coder under a setting: means over seeds with Student's 95 % intervals, which one seed alone does not have."""

    truth: str
    setting: str
    coder: str
    features: Estimate
    """Nan where the dictionary was given."""
    codes: Estimate
    precision: Estimate
    recall: Estimate
    error: Estimate
    inference: float
    """Multiply-adds per token, and to learn in all."""
    training: float


def rows_of(result: CodingResult) -> list[Row]:
    """One for every world, setting and coder, in this order."""
    groups = dict[tuple[str, str, str], list[Outcome]]()
    for cell in result.cells:
        groups.setdefault((cell.truth, cell.setting, cell.coder), []).append(cell.outcome)
    rows = [_row(*key, outcomes) for key, outcomes in groups.items()]
    truths, settings = result.config.truths, result.config.settings
    return sorted(
        rows, key=lambda row: (truths.index(row.truth), settings.index(row.setting), CODERS.index(row.coder))
    )  # fmt: skip


def _row(truth: str, setting: str, coder: str, outcomes: Sequence[Outcome]) -> Row:
    def over(score: Callable[[Outcome], float]) -> Estimate:
        return over_seeds([score(outcome) for outcome in outcomes])

    given = setting == KNOWN_DICTIONARY
    return Row(
        truth=truth,
        setting=setting,
        coder=coder,
        features=Estimate(*[math.nan] * 3) if given else over(lambda each: each.scores.features),
        codes=over(lambda each: each.scores.codes),
        precision=over(lambda each: each.scores.precision),
        recall=over(lambda each: each.scores.recall),
        error=over(lambda each: each.scores.error),
        inference=fmean(each.inference for each in outcomes),
        training=fmean(each.training for each in outcomes),
    )


def over_seeds(numbers: Sequence[float]) -> Estimate:
    """The mean, and where that of many seeds lies with 95 % confidence."""
    mean = fmean(numbers)
    if len(numbers) < 2:
        return Estimate(mean, math.nan, math.nan)
    half = float(student.ppf(0.975, len(numbers) - 1)) * stdev(numbers) / math.sqrt(len(numbers))
    return Estimate(mean, mean - half, mean + half)
