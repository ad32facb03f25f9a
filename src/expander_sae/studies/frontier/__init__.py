"""The frontier: what a dictionary keeps of the activations over how many values it learns and how many bytes it takes,
for expander dictionaries of every degree and for everything that an engineer would do to a dense one instead."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.reporting.report import Report
from expander_sae.studies.compare import EVALUATIONS, TRAINED, Comparison, Contender, Record, measure, train_in_one_pass
from expander_sae.studies.data import open_data
from expander_sae.studies.frontier.config import FrontierConfig
from expander_sae.studies.frontier.contestants import (
    REFERENCE,
    CoderName,
    Contestant,
    cell_name,
    coder_for,
    contestants,
    cost_of,
    multiply_adds,
)
from expander_sae.studies.frontier.report import report_of
from expander_sae.studies.readability import qualities_of, read_text, readable_data, with_readability
from expander_sae.studies.study import Listener, Stages, Study, begun

CONTESTANTS = "contestants"
"""The folder of everything that is compared, in as few bytes as its form has."""


def run(config: FrontierConfig, listener: Listener) -> Report:
    """Do what an earlier run in the same folder has not done yet, and say who wins where."""
    return report_of(compared(config, listener))


def compared(config: FrontierConfig, listener: Listener) -> Comparison[FrontierConfig]:
    """Every dictionary under its coders, as it was measured."""
    with begun(config, listener, "a frontier") as stages:
        data = open_data(config)
        plans = config.trained(data)
        text = readable_data(data) if config.readability else None
    if text is not None:
        read_text(config, text, stages)
    trained = config.out / TRAINED
    train_in_one_pass([each for plan in plans.values() for each in plan.all], trained, data, stages)
    found = contestants(config, plans, lambda each: SparseAutoencoder.load(trained / each.name), data.source)
    _make(config, found, stages)
    cells = [(each, coder) for each in found for coder in each.coders]
    references = {each.seed: cell_name(each, each.coders[0]) for each in found if each.name == REFERENCE}
    contenders = [_contender(config, each, coder, references[each.seed]) for each, coder in cells]
    measured, scope = measure(contenders, config.out / EVALUATIONS, data, stages, config.evaluation_tokens)
    records = [_with_costs(config, record, each, coder) for record, (each, coder) in zip(measured, cells, strict=True)]
    if text is not None:
        qualities = qualities_of(contenders, config, stages)
        records = [with_readability(record, quality) for record, quality in zip(records, qualities, strict=True)]
    return Comparison(config, data, config.base(data), records, scope, stages.rounded)


def _with_costs(config: FrontierConfig, record: Record, contestant: Contestant, coder: CoderName) -> Record:
    """The record with what the dictionary takes in its own form."""
    folder = config.out / CONTESTANTS
    learned_values, size = cost_of(contestant.path_in(folder))
    work = multiply_adds(contestant, coder, folder, config.k)
    return record.with_counts(learned_values=learned_values, bytes_on_disk=size, multiply_adds=work)


def _make(config: FrontierConfig, found: Sequence[Contestant], stages: Stages) -> None:
    """Cut, round and train once more what is not on disk yet."""
    folder = config.out / CONTESTANTS
    missing = [each for each in found if not each.is_in(folder)]
    what = "dense dictionaries cut and rounded, some of them trained once more"
    with stages.stage("compress", what, found=not missing) as stage:
        for each in missing:
            each.write_to(folder)
        stage.outcome = f"{len(found)} dictionaries to compare"


def _contender(config: FrontierConfig, contestant: Contestant, coder: CoderName, reference: str) -> Contender:
    labels: dict[str, str | int] = {
        "family": contestant.family, "name": contestant.name, "coder": coder, "seed": contestant.seed,
    }  # fmt: skip
    return Contender(cell_name(contestant, coder), labels, partial(_load, config, contestant, coder), reference)


def _load(config: FrontierConfig, contestant: Contestant, coder: CoderName) -> SparseAutoencoder:
    sae = SparseAutoencoder.load(contestant.path_in(config.out / CONTESTANTS))
    return sae.with_coder(coder_for(coder, config.k, sae.coder))


STUDY = Study(FrontierConfig, run)
