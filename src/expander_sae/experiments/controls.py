"""Support controls: what it matters where the values of a column are, beside how many there are."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.evaluation import Evaluation
from expander_sae.experiments.comparison import Subject, measure, train_in_one_pass
from expander_sae.experiments.controls_config import CODERS, Contender, ControlsConfig
from expander_sae.experiments.frontier_data import Data, open_data
from expander_sae.experiments.settings import settled
from expander_sae.experiments.stages import Listener, Stages
from expander_sae.supports import Support, distinct_supports, overlap_histogram, uncovered_rows
from expander_sae.training import TrainConfig

TRAINED, EVALUATIONS = "trained", "evaluations"
"""What the folder of a study holds, besides the report."""
PLANTED_PASSES = 4
"""Times that planted data are read when no number of tokens is asked for; they are few."""
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
        """Those of this one."""
        overlaps = overlap_histogram(support).tolist()
        return cls(distinct_supports(support), overlaps, len(uncovered_rows(support)))


@dataclass(frozen=True)
class Cell:
    """A dictionary on one support, trained and measured with one coder."""

    contender: Contender
    coder: str
    seed: int
    shape: Shape
    evaluation: Evaluation


@dataclass(frozen=True)
class ControlsResult:
    """Everything that the report is made of."""

    config: ControlsConfig
    data: Data
    base: TrainConfig
    cells: list[Cell]
    absent: dict[str, str]
    """Why some constructions do not exist at this size."""
    seconds: dict[str, float]
    """Of every stage."""


def run_controls(config: ControlsConfig, listener: Listener, *, progress: bool = True) -> ControlsResult:
    """Do what an earlier run in the same folder has not done yet; `progress` lets training draw its live lines."""
    with settled(config, "a study of supports"):
        data = open_data(config, HELD_OUT)
        base = config.base(data.width, data.tokens * (PLANTED_PASSES if config.synthetic else 1))
        contenders, absent = config.contenders(data.width)
    stages = Stages(config.out, listener)
    plans = {
        config.trained(base, contender, coder, seed): contender
        for seed in config.seeds
        for coder in CODERS
        for contender in contenders
    }
    train_in_one_pass(list(plans), config.out / TRAINED, data, stages, progress)
    cells = _measure(config, plans, data, stages)
    return ControlsResult(config, data, base, cells, absent, stages.seconds)


def _measure(config: ControlsConfig, plans: dict[TrainConfig, Contender], data: Data, stages: Stages) -> list[Cell]:
    """Every dictionary as it was trained, on held-out tokens."""
    first = next(iter(plans)).name
    subjects = [
        Subject(plan.name, partial(SparseAutoencoder.load, config.out / TRAINED / plan.name), first) for plan in plans
    ]
    evaluations = measure(subjects, config.out / EVALUATIONS, data, stages, config.evaluation_tokens)
    shapes = {
        (contender, seed): Shape.of(config.support(contender, data.width, seed))
        for contender in dict.fromkeys(plans.values())
        for seed in config.seeds
    }
    return [
        Cell(contender, plan.coding, plan.seed, shapes[contender, plan.seed], evaluations[plan.name])
        for plan, contender in plans.items()
    ]
