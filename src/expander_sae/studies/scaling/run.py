"""Scaling: the error on held-out tokens over a grid of features, active features, values per column and tokens."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from expander_sae.experiments.comparison import Subject, measure, train_in_one_pass
from expander_sae.experiments.frontier_data import WIDTH, Data, PlantedData, StoreData
from expander_sae.experiments.scaling_config import Grid, ScalingConfig
from expander_sae.experiments.settings import settled
from expander_sae.experiments.stages import Listener, Stages

from expander_sae.activations.harvest import harvest, text_of
from expander_sae.activations.models import load_language_model, name_of
from expander_sae.activations.store import Store
from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.errors import ExpanderError
from expander_sae.evaluation import Evaluation
from expander_sae.training import TrainConfig

TRAINED, EVALUATIONS, HELD_OUT_STORE = "trained", "evaluations", "held-out"
"""What the folder of a study holds, besides the report; the last one where the study harvests it itself."""
PLANTED, HELD_OUT = 24_576, 4096
"""Planted tokens to train on, none of them twice, and to measure on."""


@dataclass(frozen=True)
class Cell:
    """A dictionary, measured."""

    trained: TrainConfig
    evaluation: Evaluation


@dataclass(frozen=True)
class ScalingResult:
    """Everything that the report is made of."""

    config: ScalingConfig
    data: Data
    grid: Grid
    cells: list[Cell]
    seconds: dict[str, float]
    """Of every stage."""


def run_scaling(config: ScalingConfig, listener: Listener, *, progress: bool = True) -> ScalingResult:
    """Do what an earlier run in the same folder has not done yet; `progress` lets training draw its live lines."""
    stages = Stages(config.out, listener)
    with settled(config, "a study of scaling"):
        grid = config.grid(*_size(config))  # before hours are spent on a grid that cannot be
        passes = config.passes(grid)
        data = _open(config, stages)
    for tokens, plans in passes.items():
        train_in_one_pass(plans, _folder(config, tokens), data, stages, progress)
    cells = _measure(config, [plan for plans in passes.values() for plan in plans], data, stages)
    return ScalingResult(config, data, grid, cells, stages.seconds)


def _folder(config: ScalingConfig, tokens: int) -> Path:
    """Where the dictionaries of one pass are."""
    return config.out / TRAINED / str(tokens)


def _size(config: ScalingConfig) -> tuple[int, int]:
    """The width of the activations and how many there are to train on."""
    if config.store is None:
        return WIDTH, PLANTED
    store = Store.open(config.store)
    return store.width, store.norms.count


def _open(config: ScalingConfig, stages: Stages) -> Data:
    """The activations; reconstruction is all that is measured, for a language model's loss takes far too long here."""
    if config.store is None:
        return PlantedData(config.evaluation_tokens, HELD_OUT, PLANTED)
    held_out = config.held_out or _harvested(
        config.store, config.out / HELD_OUT_STORE, config.evaluation_tokens, stages
    )
    return StoreData(str(config.store), str(held_out), config.evaluation_tokens)


def _harvested(store: Path, folder: Path, tokens: int, stages: Stages) -> Path:
    """A store of the held-out part of the text that a store is from."""
    origin = Store.open(store).origin
    if not {"model", "hookpoint", "text"} <= origin.keys():
        raise ExpanderError(f"{store} does not say which model and text it comes from; give a --held-out store.")
    found = folder.exists() and Store.open(folder).tokens >= tokens
    with stages.stage("harvest", "the held-out part of the text", total=tokens, found=found) as stage:
        if not found:
            text = dataclasses.replace(text_of(origin), part="held-out")
            language_model = load_language_model(name_of(origin))
            harvest(language_model, [origin["hookpoint"]], tokens=tokens, out=folder, text=text, report=stage.proceeds)
        stage.outcome = f"{Store.open(folder).tokens:,} tokens"
    return folder


def _measure(config: ScalingConfig, plans: list[TrainConfig], data: Data, stages: Stages) -> list[Cell]:
    """Every dictionary as it was trained, on held-out tokens."""
    names = [f"{plan.tokens}-tokens-{plan.name}" for plan in plans]
    subjects = [
        Subject(name, partial(SparseAutoencoder.load, _folder(config, plan.tokens) / plan.name), names[0])
        for name, plan in zip(names, plans, strict=True)
    ]
    evaluations = measure(subjects, config.out / EVALUATIONS, data, stages, config.evaluation_tokens)
    return [Cell(plan, evaluations[name]) for name, plan in zip(names, plans, strict=True)]
