"""Readability: what makes the features of a dictionary tell a reader something."""

from __future__ import annotations

from functools import partial

from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.evaluation.quality import Quality
from expander_sae.reporting.report import Report
from expander_sae.studies.compare import EVALUATIONS, TRAINED, Comparison, Contender, measure, train_in_one_pass
from expander_sae.studies.data import open_data
from expander_sae.studies.readability import qualities_of, read_text, readable_data, with_readability
from expander_sae.studies.readable.config import DENSE, FIDELITY_OMP, MOVED, TOPK, Plan, ReadableConfig
from expander_sae.studies.readable.report import report_of
from expander_sae.studies.study import Listener, Study, begun

AGAIN = "trained again"
"""The folder of what is trained on the rows of other dictionaries."""
SHOWN = 10
"""Features of a dictionary, drawn at random, whose contexts are kept."""


def run(config: ReadableConfig, listener: Listener) -> Report:
    """Do what an earlier run in the same folder has not done yet, and say what makes features readable."""
    comparison, qualities = compared(config, listener)
    return report_of(comparison, qualities)


def compared(config: ReadableConfig, listener: Listener) -> tuple[Comparison[ReadableConfig], list[Quality]]:
    """Every dictionary under its coders, as it was measured, and all that was found of its features."""
    with begun(config, listener, "a study of readability") as stages:
        data = readable_data(open_data(config))
        base = config.base(data)
        plans = config.plans(base, data.width)
    read_text(config, data, stages)
    trained = config.out / TRAINED
    train_in_one_pass([each.config for each in plans], trained, data, stages)
    moved = [each for each in plans if (each.rows, each.trained) == (MOVED, FIDELITY_OMP)]
    again = [config.again(each, trained) for each in moved]
    train_in_one_pass([each.config for each in again], config.out / AGAIN, data, stages)
    references = {each.config.seed: _name(each, TOPK) for each in plans if each.name == DENSE}
    contenders = [
        _contender(config, each, coder, references[each.config.seed]) for each in [*plans, *again]
        for coder in each.coders
    ]  # fmt: skip
    measured, scope = measure(contenders, config.out / EVALUATIONS, data, stages, config.evaluation_tokens)
    qualities = qualities_of(contenders, config, stages, SHOWN)
    records = [with_readability(record, quality) for record, quality in zip(measured, qualities, strict=True)]
    return Comparison(config, data, base, records, scope, stages.rounded), qualities


def _contender(config: ReadableConfig, plan: Plan, coder: str, reference: str) -> Contender:
    labels: dict[str, str | int] = {
        "name": plan.name, "rows": plan.rows, "trained_for": plan.trained, "coder": coder,
        "own": int(coder == config.own(plan)), "seed": plan.config.seed,
    }  # fmt: skip
    return Contender(_name(plan, coder), labels, partial(_under, config, plan, coder), reference)


def _name(plan: Plan, coder: str) -> str:
    return f"{plan.config.name}-under-{coder.replace(' ', '-')}"


def _under(config: ReadableConfig, plan: Plan, coder: str) -> SparseAutoencoder:
    """As it was trained, under a coder."""
    folder = config.out / (TRAINED if plan.config.start is None else AGAIN)
    return SparseAutoencoder.load(folder / plan.config.name).with_coder(config.coder(coder))


STUDY = Study(ReadableConfig, run)
