"""The demo: a real model, four dictionaries of one of its layers, and what each of them keeps of the model."""

from dataclasses import dataclass

from expander_sae.activations.harvest import TextConfig, harvest, plan_harvest
from expander_sae.activations.models import SMOLLM2, LanguageModel, load_language_model
from expander_sae.activations.smollm2 import smollm2_folder
from expander_sae.activations.store import Store
from expander_sae.activations.store.manifest import MANIFEST
from expander_sae.errors import ExpanderError
from expander_sae.evaluation import Evaluation, evaluate
from expander_sae.evaluation.contexts import Context, firing_counts, spread_over_frequency, top_contexts
from expander_sae.experiments.records import read_evaluations, write_evaluations
from expander_sae.experiments.settings import settled
from expander_sae.experiments.stages import Listener, Stages
from expander_sae.reporting.page import check_installed
from expander_sae.storage import describe
from expander_sae.storage.folder import CONFIG as AUTOENCODER
from expander_sae.studies.demo.config import DENSE, DemoConfig
from expander_sae.training import Run, StoppedError, TrainConfig, train
from expander_sae.training.checkpoints import FILE as CHECKPOINT_FILE
from expander_sae.training.loop import CHECKPOINT

CONFIG, ACTIVATIONS, DICTIONARIES, EVALUATION = "demo.json", "acts", "dictionaries", "evaluation.json"
"""What the folder of a demo holds, besides the report."""

_TOKENS_PER_SHARD = 16_384  # what a killed harvest loses at most: half a minute


@dataclass(frozen=True)
class Contestant:
    """One of the dictionaries, trained and measured."""

    run: Run
    evaluation: Evaluation
    bytes_on_disk: int


@dataclass(frozen=True)
class SampleFeature:
    """A feature of the first dictionary, and where it fires most strongly."""

    feature: int
    firings: int
    contexts: list[Context]


@dataclass(frozen=True)
class DemoResult:
    """Everything that the report is made of."""

    config: DemoConfig
    language_model: LanguageModel
    store: Store
    contestants: dict[str, Contestant]
    """By name, the expander dictionaries first, then the dense one, then the one of few columns."""
    samples: list[SampleFeature]
    seconds: dict[str, float]
    """Of every stage."""

    @property
    def first(self) -> Contestant:
        """The expander dictionary with the first of the degrees."""
        return next(iter(self.contestants.values()))

    @property
    def dense(self) -> Contestant:
        """What the others are compared with."""
        return self.contestants[DENSE]

    @property
    def matched(self) -> Contestant:
        """The dense dictionary with as many learned values as the first."""
        return list(self.contestants.values())[-1]


def run_demo(config: DemoConfig, listener: Listener, *, progress: bool = True) -> DemoResult:
    """Do what an earlier run in the same folder has not done yet; `progress` lets training draw its live lines."""
    check_installed()
    stages = Stages(config.out, listener)
    with settled(config, "a demo", CONFIG):
        language_model = _load(config, stages)
        _check_plan(config, language_model)
    store = _harvest(config, language_model, stages)
    configs = config.train_configs(store.width)
    runs = _train(config, configs, store, stages, progress)
    evaluations = _evaluate(config, runs, language_model, stages)
    samples = _samples(config, next(iter(runs.values())), store, stages)
    contestants = {
        name: Contestant(run, evaluations[name], describe(run.path or config.out).bytes_on_disk)
        for name, run in runs.items()
    }
    return DemoResult(config, language_model, store, contestants, samples, stages.seconds)


def _load(config: DemoConfig, stages: Stages) -> LanguageModel:
    """The model; fetched first if it is the default one and not here yet."""
    with stages.stage("model", config.model) as stage:
        try:
            language_model = load_language_model(config.model, fetch=True)
        except ExpanderError as error:
            if config.model == SMOLLM2 and smollm2_folder() is None:
                sentence = str(error).rstrip(".")
                raise ExpanderError(
                    f"{sentence}; `expander planted` shows what coders do without any model."
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


def _harvest(config: DemoConfig, language_model: LanguageModel, stages: Stages) -> Store:
    path, tokens = config.out / ACTIVATIONS, config.harvest_tokens
    found = (path / MANIFEST).exists() and Store.open(path).complete
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
    return store


def _train(
    config: DemoConfig, configs: dict[str, TrainConfig], store: Store, stages: Stages, progress: bool
) -> dict[str, Run]:
    folder = config.out / DICTIONARIES
    begun = (folder / CHECKPOINT / CHECKPOINT_FILE).exists()
    found = all((folder / each.name / AUTOENCODER).exists() for each in configs.values())
    what = f"{len(configs)} dictionaries in one pass over {config.train_tokens:,} tokens"
    with stages.stage("train", what, found=found) as stage:
        try:
            # A finished run is gone on with too: it has no step left, and gives back what it had found.
            runs = train(store, list(configs.values()), out=folder, resume=begun, progress=progress and not found)
        except StoppedError as error:
            raise StoppedError("Stopped in the middle of training; the same command goes on from there.") from error
        stage.outcome = "training FVU " + ", ".join(f"{run.metrics[-1]['fvu']:.3f}" for run in runs)
    return dict(zip(configs, runs, strict=True))


def _evaluate(
    config: DemoConfig, runs: dict[str, Run], language_model: LanguageModel, stages: Stages
) -> dict[str, Evaluation]:
    path, tokens = config.out / EVALUATION, config.evaluation_tokens
    found = path.exists()
    what = f"the model's loss on {tokens:,} held-out tokens, with every dictionary in its place"
    with stages.stage("evaluate", what, total=tokens, found=found) as stage:
        if not found:
            saes = {name: run.sae for name, run in runs.items()}
            write_evaluations(
                path, evaluate(saes, language_model, tokens=tokens, reference=DENSE, report=stage.proceeds)
            )
        evaluations = read_evaluations(path)
        first = next(iter(evaluations.values()))
        stage.outcome = f"{first.tokens:,} tokens of {first.documents:,} documents"
    return evaluations


def _samples(config: DemoConfig, run: Run, store: Store, stages: Stages) -> list[SampleFeature]:
    with stages.stage("features", f"where features of {run.config.name} fire") as stage:
        counts = firing_counts(run.sae, store)
        chosen = spread_over_frequency(counts, config.features)
        contexts = top_contexts(run.sae, store, chosen, per_feature=config.contexts)
        stage.outcome = f"{len(chosen)} of {int((counts > 0).sum()):,} that fire"
    return [SampleFeature(feature, int(counts[feature]), contexts[feature]) for feature in chosen]
