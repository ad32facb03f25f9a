"""Amortisation: how much of what small dictionaries lose is lost by reading codes off one product."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path

from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.reporting.report import Report
from expander_sae.studies.amortisation.config import MLP, AmortisationConfig, Plan
from expander_sae.studies.amortisation.report import DENSE, report_of
from expander_sae.studies.compare import EVALUATIONS, TRAINED, Comparison, Contender, measure, train_in_one_pass
from expander_sae.studies.data import Data, open_data
from expander_sae.studies.encoders import MLPCodes, read_encoder, train_encoder, write_encoder
from expander_sae.studies.study import Listener, Stages, Study, begun

NETWORKS = "networks"
"""The folder of the MLP encoders."""
HELD_OUT = 1024
"""Planted tokens to measure on; the lasso takes its time."""


def run(config: AmortisationConfig, listener: Listener) -> Report:
    """Do what an earlier run in the same folder has not done yet, and say whose the loss is."""
    return report_of(compared(config, listener))


def compared(config: AmortisationConfig, listener: Listener) -> Comparison[AmortisationConfig]:
    """Every dictionary as it was trained, under all coders."""
    with begun(config, listener, "a study of amortisation") as stages:
        data = open_data(config, HELD_OUT)
        base = config.base(data)
        plans = config.plans(base, data.width)
    train_in_one_pass([each.config for each in plans], config.out / TRAINED, data, stages)
    learned = _train_networks(config, plans, data, stages)
    places = [(each, coder) for each in plans for coder in each.coders]
    dense = [each for each in plans if (each.name, each.loop) == (DENSE, "topk")]
    references = {each.config.seed: _name(each, "topk") for each in dense}
    contenders = [_contender(config, each, coder, references[each.config.seed]) for each, coder in places]
    measured, scope = measure(contenders, config.out / EVALUATIONS, data, stages, config.evaluation_tokens)
    records = [
        record.with_counts(network_values=learned[each.config.name] if coder == MLP else 0)
        for record, (each, coder) in zip(measured, places, strict=True)
    ]
    return Comparison(config, data, base, records, scope, stages.rounded)


def _train_networks(config: AmortisationConfig, plans: list[Plan], data: Data, stages: Stages) -> dict[str, int]:
    """An MLP encoder for every dictionary that an earlier run left without; how many values each of them learned."""
    (config.out / NETWORKS).mkdir(exist_ok=True)
    tokens = config.mlp_tokens or plans[0].config.tokens
    missing = [each for each in plans if not _network(config, each).exists()]
    what = f"{len(plans)} MLP encoders, {tokens:,} tokens each"
    with stages.stage("networks", what, total=tokens * len(missing) or None, found=not missing) as stage:
        for number, each in enumerate(missing):
            settings, sae = dataclasses.replace(each.config, tokens=tokens), _load(config, each)
            write_encoder(_network(config, each), train_encoder(sae, data.source, settings, config.hidden))
            stage.proceeds((number + 1) * tokens)
        stage.outcome = f"in {config.out / NETWORKS}"
        return {
            each.config.name: read_encoder(_network(config, each), _load(config, each), config.hidden).learned_values
            for each in plans
        }


def _contender(config: AmortisationConfig, plan: Plan, coder: str, reference: str) -> Contender:
    labels: dict[str, str | int] = {
        "name": plan.name, "trained_with": plan.loop, "coder": coder, "seed": plan.config.seed,
    }  # fmt: skip
    return Contender(_name(plan, coder), labels, partial(_under, config, plan, coder), reference)


def _name(plan: Plan, coder: str) -> str:
    return f"{plan.config.name}-under-{coder}"


def _network(config: AmortisationConfig, plan: Plan) -> Path:
    return config.out / NETWORKS / f"{plan.config.name}.safetensors"


def _load(config: AmortisationConfig, plan: Plan) -> SparseAutoencoder:
    return SparseAutoencoder.load(config.out / TRAINED / plan.config.name)


def _under(config: AmortisationConfig, plan: Plan, coder: str) -> SparseAutoencoder:
    """As it was trained, under a coder."""
    sae = _load(config, plan)
    if coder != MLP:
        return sae.with_coder(config.coder(coder))
    return sae.with_coder(MLPCodes(read_encoder(_network(config, plan), sae, config.hidden), config.k))


STUDY = Study(AmortisationConfig, run)
