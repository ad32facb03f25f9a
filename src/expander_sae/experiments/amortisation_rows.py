"""What a study of amortisation found, a row for each dictionary under each coder, over all seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from expander_sae.experiments.amortisation import Cell

from expander_sae.evaluation.results import Estimate
from expander_sae.experiments.frontier_rows import NOTHING, over_seeds


@dataclass(frozen=True)
class Row:
    """A dictionary under a coder: means over the seeds, intervals that reach over those of all seeds."""

    name: str
    trained_with: str
    coder: str
    fvu: Estimate
    never_fired: Estimate
    recovered_mean: Estimate
    """Of the cross-entropy, against the mean; it and retention are nan where no language model was asked."""
    retention: Estimate
    learned_values: int
    """Of the dictionary and its biases."""
    network_values: int
    """Of the coder's own, where it has a network."""


def rows_of(cells: Sequence[Cell]) -> list[Row]:
    """One for every dictionary and coder, in the order of the cells."""
    groups = dict[tuple[str, str, str], list[Cell]]()
    for cell in cells:
        groups.setdefault((cell.contender.name, cell.contender.loop, cell.coder), []).append(cell)
    return [_row(*key, group) for key, group in groups.items()]


def _row(name: str, loop: str, coder: str, cells: Sequence[Cell]) -> Row:
    evaluations = [cell.evaluation for cell in cells]
    losses = [evaluation.language_model for evaluation in evaluations]
    shares = [evaluation.never_fired for evaluation in evaluations]
    return Row(
        name=name,
        trained_with=loop,
        coder=coder,
        fvu=over_seeds([evaluation.fvu for evaluation in evaluations]),
        never_fired=Estimate(fmean(shares), min(shares), max(shares)),
        recovered_mean=over_seeds([NOTHING if loss is None else loss.recovered_mean for loss in losses]),
        learned_values=round(fmean(evaluation.learned_values for evaluation in evaluations)),
        network_values=round(fmean(cell.network_values for cell in cells)),
        retention=over_seeds([(None if loss is None else loss.retention_mean) or NOTHING for loss in losses]),
    )
