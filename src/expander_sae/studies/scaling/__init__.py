"""Scaling: the error on held-out tokens over a grid of features, active features, values per column and tokens."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from expander_sae.activations.harvest import harvest, text_of
from expander_sae.activations.models import load_language_model, name_of
from expander_sae.activations.store import Store
from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.errors import ExpanderError
from expander_sae.evaluation import Interval
from expander_sae.reporting.report import Report
from expander_sae.studies.compare import (
    EVALUATIONS,
    TRAINED,
    Comparison,
    Contender,
    Record,
    measure,
    over_seeds,
    train_in_one_pass,
)
from expander_sae.studies.data import WIDTH, Data, PlantedData, StoreData
from expander_sae.studies.scaling.config import FACTORS, Grid, ScalingConfig
from expander_sae.studies.scaling.law import Trials, put_on_trial
from expander_sae.studies.scaling.report import report_of
from expander_sae.studies.study import Listener, Stages, Study, begun
from expander_sae.training import TrainConfig

HELD_OUT_STORE = "held-out"
"""The folder of held-out activations, where the study harvests them itself."""
PLANTED, HELD_OUT = 24_576, 4096
"""Planted tokens to train on, none of them twice, and to measure on."""


def run(config: ScalingConfig, listener: Listener) -> Report:
    """Do what an earlier run in the same folder has not done yet, and say which law holds and how far."""
    comparison, grid = compared(config, listener)
    rows, trials = on_trial(comparison.records, grid)
    return report_of(comparison, grid, rows, trials)


def compared(config: ScalingConfig, listener: Listener) -> tuple[Comparison[ScalingConfig], Grid]:
    """Every dictionary of the grid, as it was trained, on held-out tokens."""
    with begun(config, listener, "a study of scaling") as stages:
        grid = config.grid(*_size(config))  # before hours are spent on a grid that cannot be
        passes = config.passes(grid)
    data = _open(config, stages)
    for tokens, plans in passes.items():
        train_in_one_pass(plans, _folder(config, tokens), data, stages)
    all_plans = [plan for plans in passes.values() for plan in plans]
    contenders = [_contender(config, plan, _name(all_plans[0])) for plan in all_plans]
    measured, scope = measure(contenders, config.out / EVALUATIONS, data, stages, config.evaluation_tokens)
    records = [
        Record(record.labels, record.measures, {"learned_values": plan.n * plan.degree})
        for record, plan in zip(measured, all_plans, strict=True)
    ]
    return Comparison(config, data, all_plans[-1], records, scope, stages.rounded), grid


def on_trial(records: Sequence[Record], grid: Grid) -> tuple[list[Record], Trials]:
    """The cells over seeds, with what the best law says of each when fitted to the others, and all laws."""
    rows = over_seeds(records, FACTORS)
    values = np.array([[row.labels[name] for name in grid.varied] for row in rows], dtype=float)
    trials = put_on_trial(grid.varied, values, np.array([row["fvu"].value for row in rows]))
    said = np.exp(trials.best.left_out).tolist()
    return [_told(row, each) for row, each in zip(rows, said, strict=True)], trials


def _told(row: Record, predicted: float) -> Record:
    """The cell with what the law of the others says, and how far that is off as a share of what was measured."""
    told = {"predicted": Interval.bare(predicted), "miss": Interval.bare(predicted / row["fvu"].value - 1)}
    return Record(row.labels, {**row.measures, **told}, row.counts)


def _folder(config: ScalingConfig, tokens: int) -> Path:
    """Where the dictionaries of one pass are."""
    return config.out / TRAINED / str(tokens)


def _name(plan: TrainConfig) -> str:
    return f"{plan.tokens}-tokens-{plan.name}"


def _contender(config: ScalingConfig, plan: TrainConfig, reference: str) -> Contender:
    labels = {"n": plan.n, "k": plan.k, "d": plan.degree, "tokens": plan.tokens, "seed": plan.seed}
    load = partial(SparseAutoencoder.load, _folder(config, plan.tokens) / plan.name)
    return Contender(_name(plan), labels, load, reference)


def _size(config: ScalingConfig) -> tuple[int, int]:
    """The width of the activations and how many there are to train on."""
    if config.store is None:
        return WIDTH, PLANTED
    store = Store.open(config.store)
    if config.held_out is None and not {"model", "hookpoint", "text"} <= store.origin.keys():
        raise ExpanderError(f"{config.store} does not say which model and text it comes from; give a --held-out store.")
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
    found = folder.exists() and Store.open(folder).tokens >= tokens
    with stages.stage("harvest", "the held-out part of the text", total=tokens, found=found) as stage:
        if not found:
            text = dataclasses.replace(text_of(origin), part="held-out")
            language_model = load_language_model(name_of(origin))
            harvest(language_model, [origin["hookpoint"]], tokens=tokens, out=folder, text=text, report=stage.proceeds)
        stage.outcome = f"{Store.open(folder).tokens:,} tokens"
    return folder


STUDY = Study(ScalingConfig, run)
