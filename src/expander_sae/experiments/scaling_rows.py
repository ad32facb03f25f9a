"""What a study of scaling found, a row for each cell of the grid over all seeds, and the laws that are tried on it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from expander_sae.experiments.scaling import Cell, ScalingResult
from expander_sae.experiments.scaling_config import FACTORS

from expander_sae.evaluation.results import Estimate
from expander_sae.experiments.frontier_rows import over_seeds
from expander_sae.experiments.scaling_trials import Trials, put_on_trial


@dataclass(frozen=True)
class Row:
    """A cell: means over the seeds, the interval of the error reaches over those of all seeds."""

    n: int
    k: int
    d: int
    tokens: int
    learned_values: int
    """Of the dictionary, n d."""
    fvu: Estimate
    never_fired: float
    predicted: float = math.nan
    """The error that the law says when fitted to all other cells."""
    miss: float = math.nan
    """How far that is off, as a share of what was measured."""


def study_of(result: ScalingResult) -> tuple[list[Row], Trials]:
    """The cells, with what the best law says of each when fitted to the others, and all laws."""
    rows = _rows(result.cells)
    varied = result.grid.varied
    values = np.array([[getattr(row, name) for name in varied] for row in rows], dtype=float)
    trials = put_on_trial(varied, values, np.array([row.fvu.value for row in rows]))
    said = np.exp(trials.best.left_out).tolist()
    return [
        dataclasses.replace(row, predicted=each, miss=each / row.fvu.value - 1)
        for row, each in zip(rows, said, strict=True)
    ], trials


def _rows(cells: Iterable[Cell]) -> list[Row]:
    """One for every place of the grid, in the order of the cells."""
    groups = dict[tuple[int, ...], list[Cell]]()
    for cell in cells:
        plan = cell.trained
        groups.setdefault((plan.n, plan.k, plan.degree, plan.tokens), []).append(cell)
    return [_row(dict(zip(FACTORS, place, strict=True)), group) for place, group in groups.items()]


def _row(place: dict[str, int], cells: Sequence[Cell]) -> Row:
    return Row(
        **place,
        learned_values=place["n"] * place["d"],
        fvu=over_seeds([cell.evaluation.fvu for cell in cells]),
        never_fired=fmean(cell.evaluation.never_fired for cell in cells),
    )
