"""Supports: what it matters where the values of a column are, beside how many there are."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.evaluation import Interval
from expander_sae.reporting.report import Report
from expander_sae.studies.compare import (
    EVALUATIONS,
    TRAINED,
    Comparison,
    Contender,
    Record,
    least_and_most,
    measure,
    over_seeds,
    train_in_one_pass,
)
from expander_sae.studies.data import open_data
from expander_sae.studies.study import Listener, Study, begun
from expander_sae.studies.supports.config import CODERS, Recipe, SupportsConfig
from expander_sae.studies.supports.report import report_of
from expander_sae.supports import Support, distinct_supports, overlap_histogram, uncovered_rows
from expander_sae.training import TrainConfig

HELD_OUT = 4096
"""Planted tokens to measure on: a feature that is used evenly fires 85 times on them."""


@dataclass(frozen=True)
class Shape:
    """Exact numbers about a support."""

    distinct: int
    """Different sets of coordinates."""
    overlaps: list[int]
    """How many pairs of columns share 0, 1, ..., d coordinates."""
    uncovered: int
    """Coordinates that no column touches."""

    @classmethod
    def of(cls, support: Support) -> Shape:
        """The numbers of this support."""
        overlaps = overlap_histogram(support).tolist()
        return cls(distinct_supports(support), overlaps, len(uncovered_rows(support)))


def run(config: SupportsConfig, listener: Listener) -> Report:
    """Train and measure what an earlier run in the same folder has not, and say what came of it."""
    comparison, shapes, absent = compared(config, listener)
    pooled = dict[tuple[str, int], list[int]]()
    for (recipe, _), shape in shapes.items():
        before = pooled.get((recipe.construction, recipe.d), [0] * len(shape.overlaps))
        pooled[recipe.construction, recipe.d] = [sum(both) for both in zip(before, shape.overlaps, strict=True)]
    rows = over_seeds(comparison.records, ("construction", "d", "coder"), least_and_most)
    return report_of(comparison, rows, pooled, absent)


def compared(
    config: SupportsConfig, listener: Listener
) -> tuple[Comparison[SupportsConfig], dict[tuple[Recipe, int], Shape], dict[str, str]]:
    """Every dictionary as it was measured; the supports by recipe and seed; why some do not exist at this size."""
    with begun(config, listener, "a study of supports") as stages:
        data = open_data(config, HELD_OUT)
        base = config.base(data)
        recipes, absent = config.recipes(data.width)
    plans = {
        config.trained(base, recipe, coder, seed): recipe
        for seed in config.seeds
        for coder in CODERS
        for recipe in recipes
    }
    train_in_one_pass(list(plans), config.out / TRAINED, data, stages)
    contenders = [_contender(config, plan, recipe, next(iter(plans)).name) for plan, recipe in plans.items()]
    measured, scope = measure(contenders, config.out / EVALUATIONS, data, stages, config.evaluation_tokens)
    shapes = {
        (recipe, seed): Shape.of(config.support(recipe, data.width, seed))
        for recipe in recipes
        for seed in config.seeds
    }
    records = [
        _with_shape(record, shapes[recipe, plan.seed], base.n)
        for record, (plan, recipe) in zip(measured, plans.items(), strict=True)
    ]
    return Comparison(config, data, base, records, scope, stages.rounded), shapes, absent


def _contender(config: SupportsConfig, plan: TrainConfig, recipe: Recipe, reference: str) -> Contender:
    """A dictionary under the coder that it was trained with."""
    labels: dict[str, str | int] = {
        "construction": recipe.construction, "d": recipe.d, "coder": plan.coding, "seed": plan.seed,
    }  # fmt: skip
    load = partial(SparseAutoencoder.load, config.out / TRAINED / plan.name)
    return Contender(plan.name, labels, load, reference)


def _with_shape(record: Record, shape: Shape, features: int) -> Record:
    """The record with what is known of the support itself."""
    known = {"distinct": shape.distinct / features, "uncovered": float(shape.uncovered)}
    return record.with_measures({name: Interval.bare(number) for name, number in known.items()})


STUDY = Study(SupportsConfig, run)
