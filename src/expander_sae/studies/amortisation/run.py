"""Amortisation: how much of what small dictionaries lose is lost by reading codes off one product."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from expander_sae.experiments.amortisation_config import MLP, AmortisationConfig, Contender
from expander_sae.experiments.amortisation_mlp import MLPCodes, read_encoder, train_encoder, write_encoder
from expander_sae.experiments.comparison import Subject, measure, train_in_one_pass
from expander_sae.experiments.frontier_data import Data, open_data
from expander_sae.experiments.settings import settled
from expander_sae.experiments.stages import Listener, Stages

from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.evaluation import Evaluation
from expander_sae.training import TrainConfig

TRAINED, NETWORKS, EVALUATIONS = "trained", "networks", "evaluations"
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
    network_values: int
    """Learned by the coder itself; 0 where it has nothing to learn."""


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
    with settled(config, "a study of amortisation"):
        data = open_data(config, HELD_OUT)
        base = config.base(data.width, data.tokens * (PLANTED_PASSES if config.synthetic else 1))
        contenders = config.contenders(base, data.width)
    stages = Stages(config.out, listener)
    train_in_one_pass([each.config for each in contenders], config.out / TRAINED, data, stages, progress)
    learned = _train_networks(config, contenders, data, stages)
    cells = _measure(config, contenders, learned, data, stages)
    return AmortisationResult(config, data, base, cells, stages.seconds)


def _train_networks(
    config: AmortisationConfig, contenders: list[Contender], data: Data, stages: Stages
) -> dict[str, int]:
    """An MLP encoder for every dictionary that an earlier run left without; how many values each of them learned."""
    (config.out / NETWORKS).mkdir(exist_ok=True)
    tokens = config.mlp_tokens or contenders[0].config.tokens
    missing = [each for each in contenders if not _network(config, each).exists()]
    what = f"{len(contenders)} MLP encoders, {tokens:,} tokens each"
    with stages.stage("networks", what, total=tokens * len(missing) or None, found=not missing) as stage:
        for number, each in enumerate(missing):
            settings, sae = dataclasses.replace(each.config, tokens=tokens), _load(config, each)
            write_encoder(_network(config, each), train_encoder(sae, data.source, settings, config.hidden))
            stage.proceeds((number + 1) * tokens)
        stage.outcome = f"in {config.out / NETWORKS}"
        return {
            each.config.name: read_encoder(_network(config, each), _load(config, each), config.hidden).learned_values
            for each in contenders
        }


def _measure(
    config: AmortisationConfig, contenders: list[Contender], learned: dict[str, int], data: Data, stages: Stages
) -> list[Cell]:
    """Every dictionary as it was trained, under all coders."""
    places = [(each, coder) for each in contenders for coder in each.coders]
    references = {
        each.config.seed: _name(each, "topk") for each in contenders if (each.name, each.loop) == ("dense", "topk")
    }
    subjects = [
        Subject(
            _name(each, coder),
            partial(_under, config, each, coder),
            references[each.config.seed],
        )
        for each, coder in places
    ]
    found = measure(subjects, config.out / EVALUATIONS, data, stages, config.evaluation_tokens)
    return [
        Cell(each, coder, found[_name(each, coder)], learned[each.config.name] if coder == MLP else 0)
        for each, coder in places
    ]


def _name(contender: Contender, coder: str) -> str:
    return f"{contender.config.name}-under-{coder}"


def _network(config: AmortisationConfig, contender: Contender) -> Path:
    return config.out / NETWORKS / f"{contender.config.name}.safetensors"


def _load(config: AmortisationConfig, contender: Contender) -> SparseAutoencoder:
    return SparseAutoencoder.load(config.out / TRAINED / contender.config.name)


def _under(config: AmortisationConfig, contender: Contender, coder: str) -> SparseAutoencoder:
    """As it was trained, under a coder."""
    sae = _load(config, contender)
    if coder != MLP:
        return sae.with_coder(config.coder(coder))
    return sae.with_coder(MLPCodes(read_encoder(_network(config, contender), sae, config.hidden), config.k))
