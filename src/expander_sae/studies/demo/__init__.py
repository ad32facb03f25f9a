"""The demo: a real model, four dictionaries of one of its layers, and what each of them keeps of the model."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from expander_sae.activations.harvest import TextConfig, harvest, plan_harvest
from expander_sae.activations.models import SMOLLM2, LanguageModel, load_language_model
from expander_sae.activations.smollm2 import smollm2_folder
from expander_sae.activations.store import Store
from expander_sae.activations.store.manifest import STORE
from expander_sae.autoencoder import SparseAutoencoder, describe
from expander_sae.errors import ExpanderError
from expander_sae.features import FeatureDatabase, FeaturesConfig, collect_features, spread_over_frequency
from expander_sae.reporting.dashboard import Shown, write_dashboard
from expander_sae.reporting.page import check_installed
from expander_sae.reporting.report import Report
from expander_sae.studies.compare import EVALUATIONS, Contender, measure, train_in_one_pass
from expander_sae.studies.data import StoreData
from expander_sae.studies.demo.config import ACTIVATIONS, DASHBOARD, DENSE, DICTIONARIES, DemoConfig
from expander_sae.studies.demo.report import Compared, DemoResult, SampleFeature, report_of
from expander_sae.studies.study import Listener, Stages, begun
from expander_sae.training import read_metrics
from expander_sae.training.metrics import METRICS

_TOKENS_PER_SHARD = 16_384  # what a killed harvest loses at most: half a minute


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
    shown = folder / next(iter(plans.values())).name
    first = SparseAutoencoder.load(shown)
    database = _features(shown, first, data.source, language_model, stages)
    samples = _samples(config, database)
    _dashboard(Shown(database, first), shown / DASHBOARD, stages)
    return DemoResult(config, language_model, data.source, compared, scope, first, samples, stages.rounded)


def _load(config: DemoConfig, stages: Stages) -> LanguageModel:
    """The model; fetched first if it is the default one and not here yet."""
    with stages.stage("model", config.model) as stage:
        try:
            language_model = load_language_model(config.model, fetch=True)
        except ExpanderError as error:
            if config.model == SMOLLM2 and smollm2_folder() is None:
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
    folder: Path, sae: SparseAutoencoder, store: Store, language_model: LanguageModel, stages: Stages
) -> FeatureDatabase:
    """Where every feature fires."""
    with stages.stage("features", f"where features of {folder.name} fire", total=store.tokens) as stage:
        database = collect_features(
            sae, store, out=folder / "features", language_model=language_model,
            config=FeaturesConfig(tokens=store.tokens),
            report=lambda what, done, total: stage.proceeds(done * store.tokens // total),
        )  # fmt: skip
        stage.outcome = f"{database.info.n - database.info.dead:,} of {database.info.n:,} do"
    return database


def _samples(config: DemoConfig, database: FeatureDatabase) -> list[SampleFeature]:
    """Features from rare to frequent, and where they fire most strongly; the others are on the dashboard."""
    fired = database.features().column("fired").to_numpy()
    return [
        SampleFeature(feature, int(fired[feature]), database.contexts(feature)[: config.contexts])
        for feature in spread_over_frequency(fired, config.features)
    ]


def _dashboard(shown: Shown, folder: Path, stages: Stages) -> None:
    """A page with every feature, which opens from the disk."""
    n = shown.database.info.n
    with stages.stage("dashboard", "a page with every feature", total=n) as stage:
        page = write_dashboard([shown], folder, lambda what, done, total: stage.proceeds(done))
        stage.outcome = str(page)
