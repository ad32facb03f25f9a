"""What a frontier found, a row for each dictionary under each coder, over all seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

from expander_sae.experiments.frontier import Cell

from expander_sae.evaluation.results import Estimate

NOTHING = Estimate(math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class Row:
    """A dictionary under a coder: means over the seeds, intervals that reach over those of all seeds."""

    family: str
    name: str
    coder: str
    learned_values: int
    bytes_on_disk: int
    fvu: Estimate
    never_fired: Estimate
    recovered_zero: Estimate
    recovered_mean: Estimate
    """Both of these, and retention, nan where no language model was asked."""
    retention: Estimate
    """Of the cross-entropy recovered against the mean."""


class Measure(NamedTuple):
    """A column of the table that pictures are made of."""

    name: str
    label: str
    of: Callable[[Row], Estimate]
    lower_is_better: bool
    percent: bool

    def better(self, one: Estimate, other: Estimate) -> bool:
        """Whether one number is better than another."""
        return one.value < other.value if self.lower_is_better else one.value > other.value

    def clearly_better(self, one: Estimate, other: Estimate) -> bool:
        """Whether it is better and the intervals lie apart; without intervals whether it is better."""
        if any(math.isnan(each.low) for each in (one, other)):
            return self.better(one, other)
        return one.high < other.low if self.lower_is_better else one.low > other.high


FVU = Measure("fvu", "share of the variance left unexplained (FVU)", lambda row: row.fvu, True, False)
RECOVERED = Measure(
    "recovered", "cross-entropy recovered, against the mean", lambda row: row.recovered_mean, False, True
)
RETENTION = Measure(
    "retention",
    "retention: CE recovered, as a share of the dense one's",
    lambda row: row.retention,
    False,
    True,
)
NEVER_FIRED = Measure("never_fired", "features that never fired", lambda row: row.never_fired, True, True)


def measures_of(rows: Sequence[Row]) -> list[Measure]:
    """Those that there are numbers for."""
    return [
        measure for measure in (FVU, RECOVERED, RETENTION, NEVER_FIRED)
        if any(not math.isnan(measure.of(row).value) for row in rows)
    ]  # fmt: skip


def rows_of(cells: Iterable[Cell]) -> list[Row]:
    """One for every dictionary and coder, in the order of the cells."""
    groups = dict[tuple[str, str, str], list[Cell]]()
    for cell in cells:
        groups.setdefault((cell.family, cell.name, cell.coder), []).append(cell)
    return [_row(*key, group) for key, group in groups.items()]


def _row(family: str, name: str, coder: str, cells: list[Cell]) -> Row:
    evaluations = [cell.evaluation for cell in cells]
    losses = [evaluation.language_model for evaluation in evaluations]

    def of_losses(name: str) -> Estimate:
        found = [None if loss is None else getattr(loss, name) for loss in losses]
        return over_seeds([NOTHING if estimate is None else estimate for estimate in found])

    shares = [evaluation.never_fired for evaluation in evaluations]
    return Row(
        family=family,
        name=name,
        coder=coder,
        learned_values=round(fmean(cell.learned_values for cell in cells)),
        bytes_on_disk=round(fmean(cell.bytes_on_disk for cell in cells)),
        fvu=over_seeds([evaluation.fvu for evaluation in evaluations]),
        never_fired=Estimate(fmean(shares), min(shares), max(shares)),
        recovered_zero=of_losses("recovered_zero"),
        recovered_mean=of_losses("recovered_mean"),
        retention=of_losses("retention_mean"),
    )


def over_seeds(estimates: Sequence[Estimate]) -> Estimate:
    """The mean, from the lowest end of all intervals to the highest; nan if any of them is."""
    ends = [number for estimate in estimates for number in (estimate.low, estimate.high)]
    known = not any(map(math.isnan, ends))
    return Estimate(
        fmean(estimate.value for estimate in estimates), min(ends) if known else math.nan,
        max(ends) if known else math.nan,
    )  # fmt: skip
