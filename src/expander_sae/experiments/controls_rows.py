"""What a study of supports found, a row for each support under each coder, over all seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from expander_sae.evaluation.results import Estimate
from expander_sae.experiments.controls import Cell
from expander_sae.experiments.controls_config import Contender


@dataclass(frozen=True)
class Row:
    """A support under a coder: means over the seeds, from the lowest of them to the highest."""

    construction: str
    d: int
    coder: str
    fvu: Estimate
    dead: Estimate
    """Share of the columns that fired on no held-out token."""
    distinct: Estimate
    """Different sets of coordinates, as a share of the columns."""
    largest_overlap: int
    """Coordinates that two columns share at most, with any seed."""
    overlaps: list[float]
    """Shares of the pairs of columns that have 0, 1, ..., d coordinates in common."""
    uncovered: Estimate
    """Coordinates that no column touches."""


def rows_of(cells: Sequence[Cell], features: int) -> list[Row]:
    """One for every support and coder, in the order of the cells."""
    groups = dict[tuple[str, Contender], list[Cell]]()
    for cell in cells:
        groups.setdefault((cell.coder, cell.contender), []).append(cell)
    return [_row(contender, coder, group, features) for (coder, contender), group in groups.items()]


def _row(contender: Contender, coder: str, cells: Sequence[Cell], features: int) -> Row:
    evaluations, shapes = [cell.evaluation for cell in cells], [cell.shape for cell in cells]
    pairs = [sum(entries) for entries in zip(*(shape.overlaps for shape in shapes), strict=True)]
    return Row(
        construction=contender.construction,
        d=contender.d,
        coder=coder,
        fvu=over_seeds([evaluation.fvu.value for evaluation in evaluations]),
        dead=over_seeds([evaluation.never_fired for evaluation in evaluations]),
        distinct=over_seeds([shape.distinct / features for shape in shapes]),
        largest_overlap=max((overlap for overlap, count in enumerate(pairs) if count), default=0),
        overlaps=[count / max(1, sum(pairs)) for count in pairs],
        uncovered=over_seeds([float(shape.uncovered) for shape in shapes]),
    )


def over_seeds(numbers: Sequence[float]) -> Estimate:
    """The mean, from the lowest to the highest."""
    return Estimate(fmean(numbers), min(numbers), max(numbers))
