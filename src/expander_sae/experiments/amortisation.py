"""Amortisation: how much of what small dictionaries lose is lost by reading codes off one product."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.coders import Coder
from expander_sae.evaluation import Evaluation
from expander_sae.experiments.amortisation_config import AmortisationConfig, Contender
from expander_sae.experiments.comparison import Subject, measure, train_in_one_pass
from expander_sae.experiments.frontier_data import Data, open_data
from expander_sae.experiments.records import check_same_settings
from expander_sae.experiments.stages import Listener, Stages
from expander_sae.reporting.charts import check_matplotlib
from expander_sae.storage.folder import replace_file
from expander_sae.training import TrainConfig

CONFIG, TRAINED, EVALUATIONS = "config.json", "trained", "evaluations"
"""What the folder of a study holds, besides the report."""
PLANTED_PASSES = 4
"""Times that planted data are read when no number of tokens is asked for; they are few."""
HELD_OUT = 1024
"""Planted tokens to measure on; the lasso takes its time."""


@dataclass(frozen=True)
class Cell:
    """A dictionary under a coder, measured."""

    contender: Contender
    coder: str
    evaluation: Evaluation


@dataclass(frozen=True)
class AmortisationResult:
    """Everything that the report is made of."""

    config: AmortisationConfig
    data: Data
    base: TrainConfig
    cells: list[Cell]
    seconds: dict[str, float]
    """Of every stage."""


def run_amortisation(config: AmortisationConfig, listener: Listener, *, progress: bool = True) -> AmortisationResult:
    """Do what an earlier run in the same folder has not done yet; `progress` lets training draw its live lines."""
    check_matplotlib()
    config.out.mkdir(parents=True, exist_ok=True)
    check_same_settings(config.out / CONFIG, config.to_json(), "a study of amortisation")
    stages, data = Stages(config.out, listener), open_data(config, HELD_OUT)
    base = config.base(data.width, data.tokens * (PLANTED_PASSES if config.synthetic else 1))
    contenders = config.contenders(base, data.width)
    replace_file(config.out / CONFIG, (json.dumps(config.to_json(), indent=2) + "\n").encode())
    train_in_one_pass([each.config for each in contenders], config.out / TRAINED, data, stages, progress)
    cells = _measure(config, contenders, data, stages)
    return AmortisationResult(config, data, base, cells, stages.seconds)


def _measure(config: AmortisationConfig, contenders: list[Contender], data: Data, stages: Stages) -> list[Cell]:
    """Every dictionary as it was trained, under all coders."""
    places = [(each, coder) for each in contenders for coder in each.coders]
    references = {
        each.config.seed: _name(each, "topk") for each in contenders if (each.name, each.loop) == ("dense", "topk")
    }
    subjects = [
        Subject(
            _name(each, coder),
            partial(_load, config.out / TRAINED / each.config.name, config.coder(coder)),
            references[each.config.seed],
        )
        for each, coder in places
    ]
    found = measure(subjects, config.out / EVALUATIONS, data, stages, config.evaluation_tokens)
    return [Cell(each, coder, found[_name(each, coder)]) for each, coder in places]


def _name(contender: Contender, coder: str) -> str:
    return f"{contender.config.name}-under-{coder}"


def _load(folder: Path, coder: Coder) -> SparseAutoencoder:
    return SparseAutoencoder.load(folder).with_coder(coder)
