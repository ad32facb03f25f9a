"""The frontier: what a dictionary keeps of the activations over how many values it learns and how many bytes it takes,
for expander dictionaries of every degree and for everything that an engineer would do to a dense one instead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from expander_sae.experiments.comparison import Subject, measure, train_in_one_pass
from expander_sae.experiments.frontier_config import FrontierConfig
from expander_sae.experiments.frontier_contestants import (
    CODERS,
    REFERENCE,
    CoderName,
    Contestant,
    cell_name,
    contestants,
    cost_of,
)
from expander_sae.experiments.frontier_data import Data, open_data
from expander_sae.experiments.settings import settled
from expander_sae.experiments.stages import Listener, Stages

from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.evaluation import Evaluation
from expander_sae.training import TrainConfig

TRAINED, CONTESTANTS, EVALUATIONS = "trained", "contestants", "evaluations"
"""What the folder of a frontier holds, besides the report."""


@dataclass(frozen=True)
class Cell:
    """A dictionary under a coder, measured."""

    family: str
    name: str
    coder: str
    seed: int
    learned_values: int
    bytes_on_disk: int
    evaluation: Evaluation


@dataclass(frozen=True)
class FrontierResult:
    """Everything that the report is made of."""

    config: FrontierConfig
    data: Data
    dense: TrainConfig
    """As the dense dictionary was trained."""
    cells: list[Cell]
    seconds: dict[str, float]
    """Of every stage."""


def run_frontier(config: FrontierConfig, listener: Listener, *, progress: bool = True) -> FrontierResult:
    """Do what an earlier run in the same folder has not done yet; `progress` lets training draw its live lines."""
    with settled(config, "a frontier"):
        data = open_data(config)
        plans = config.trained(data.width, data.tokens)
    stages = Stages(config.out, listener)
    train_in_one_pass(
        [each for plan in plans.values() for each in plan.all], config.out / TRAINED, data, stages, progress
    )
    found = contestants(
        config, plans, lambda each: SparseAutoencoder.load(config.out / TRAINED / each.name), data.source
    )
    _make(config, found, stages)
    cells = _measure(config, found, data, stages)
    dense = next(iter(plans.values())).dense
    return FrontierResult(config, data, dense, cells, stages.seconds)


def _make(config: FrontierConfig, found: Sequence[Contestant], stages: Stages) -> None:
    """Cut, round and train once more what is not on disk yet."""
    folder = config.out / CONTESTANTS
    missing = [each for each in found if not each.is_in(folder)]
    what = "dense dictionaries cut and rounded, some of them trained once more"
    with stages.stage("compress", what, found=not missing) as stage:
        for each in missing:
            each.write_to(folder)
        stage.outcome = f"{len(found)} dictionaries to compare"


def _measure(config: FrontierConfig, found: Sequence[Contestant], data: Data, stages: Stages) -> list[Cell]:
    """All that was measured, under the coders that each is measured under."""
    cells = [(each, coder) for each in found for coder in each.coders]
    references = {each.seed: cell_name(each, each.coders[0]) for each in found if each.name == REFERENCE}
    subjects = [
        Subject(cell_name(each, coder), partial(_load, config, each, coder), references[each.seed])
        for each, coder in cells
    ]
    measured = measure(subjects, config.out / EVALUATIONS, data, stages, config.evaluation_tokens)
    return [
        _cell(config, each, coder, measured[subject.name])
        for (each, coder), subject in zip(cells, subjects, strict=True)
    ]


def _load(config: FrontierConfig, contestant: Contestant, coder: CoderName) -> SparseAutoencoder:
    sae = SparseAutoencoder.load(contestant.path_in(config.out / CONTESTANTS))
    return sae.with_coder(CODERS[coder](k=config.k))  # type: ignore[call-arg]  # each of them takes it


def _cell(config: FrontierConfig, contestant: Contestant, coder: CoderName, evaluation: Evaluation) -> Cell:
    """What was measured, beside what it takes."""
    learned_values, size = cost_of(contestant.path_in(config.out / CONTESTANTS))
    return Cell(contestant.family, contestant.name, coder, contestant.seed, learned_values, size, evaluation)
