"""The report of the demo: its numbers in a table and in pictures, some features, and how it was made."""

from __future__ import annotations

import math
import os
import platform
import shlex
from importlib.metadata import version
from pathlib import Path

from rich.filesize import decimal

from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.dictionaries import ExpanderDictionary
from expander_sae.evaluation.results import Estimate, LanguageModelLoss
from expander_sae.reporting.charts import Point, Series
from expander_sae.reporting.figures import dead_features, loss_curves, storage_fidelity
from expander_sae.reporting.highlights import FeatureCard, highlighted
from expander_sae.reporting.page import Figure, Page, render
from expander_sae.reporting.tables import Cell, Table, estimate_cell
from expander_sae.studies.demo.config import DemoConfig
from expander_sae.studies.demo.run import ACTIVATIONS, DICTIONARIES, Contestant, DemoResult, SampleFeature
from expander_sae.version import __version__

REPORT = "report.html"
"""The page in the folder of the demo."""
COORDINATES = 8
"""Coordinates of a column that are shown at most."""


def write_report(result: DemoResult) -> Path:
    """Write the page, and every picture beside it as SVG and PNG; the path of the page."""
    figures = _figures(result)
    for name, figure in figures.items():
        figure.picture.save(result.config.out / name)
    path = result.config.out / REPORT
    path.write_text(render(_page(result, list(figures.values()))), encoding="utf-8")
    return path


def table_of(result: DemoResult) -> Table:
    """The comparison, one row per dictionary."""
    headings = [
        Cell("dictionary"),
        Cell("learned values"),
        Cell("times fewer"),
        Cell("on disk"),
        Cell("FVU"),
        Cell("never fired"),
        Cell("CE recovered", "against zeros", "(zeros)"),
        Cell("CE recovered", "against the mean", "(mean)"),
        Cell("retention"),
    ]
    most = result.dense.evaluation.learned_values
    return Table(headings, [_row(name, contestant, most) for name, contestant in result.contestants.items()])


def _row(name: str, contestant: Contestant, most: int) -> list[Cell]:
    evaluation, loss = contestant.evaluation, contestant.evaluation.language_model
    return [
        Cell(name, _shape(contestant)),
        Cell(f"{evaluation.learned_values:,}"),
        Cell(f"{most / evaluation.learned_values:.1f}"),
        Cell(decimal(contestant.bytes_on_disk)),
        estimate_cell(evaluation.fvu),
        Cell(f"{evaluation.never_fired:.1%}"),
        estimate_cell(None if loss is None else loss.recovered_zero, percent=True),
        estimate_cell(None if loss is None else loss.recovered_mean, percent=True),
        estimate_cell(None if loss is None else loss.retention_mean, percent=True),
    ]


def _shape(contestant: Contestant) -> str:
    config, m = contestant.run.config, contestant.run.sae.m
    on_average = " on average" if config.learns_rows and config.longest(m) != config.d else ""
    return f"{config.n:,} columns of {config.d or m} values{on_average}"


def _figures(result: DemoResult) -> dict[str, Figure]:
    """The pictures by the names of their files."""
    curves = {name: contestant.run.metrics for name, contestant in result.contestants.items()}
    evaluations = {name: contestant.evaluation for name, contestant in result.contestants.items()}
    recovered = {name: _recovered(each.language_model) for name, each in evaluations.items()}

    def series(measure: str) -> list[Series]:
        return [Series(name, [row["tokens"] for row in rows], [row[measure] for row in rows])
                for name, rows in curves.items()]  # fmt: skip

    def points(estimates: dict[str, Estimate]) -> list[Point]:
        return [Point(name, evaluations[name].learned_values, each.value, each.low, each.high)
                for name, each in estimates.items() if each.value == each.value]  # fmt: skip

    figures = {
        "loss_curves": Figure(
            loss_curves(series("fvu")),
            "Learning",
            "Lower is better. A curve that still falls at its end would have come lower with more tokens.",
        ),
        "dead_features": Figure(
            dead_features(series("dead")),
            "Dead features",
            f"Dead: silent for the last {result.first.run.config.dead_tokens:,} tokens. Dead columns are storage that "
            "does nothing.",
        ),
        "storage_fvu": Figure(
            storage_fidelity(points({name: each.fvu for name, each in evaluations.items()}), "FVU on held-out text"),
            "Storage against error",
            "Lower is better, further left is smaller. Bars: 95 % intervals over documents.",
        ),
    }
    shown = points({name: each for name, each in recovered.items() if each is not None})
    if shown:
        figures["storage_recovered"] = Figure(
            storage_fidelity(shown, "cross-entropy recovered, against the mean", percent=True),
            "Storage against what the model keeps",
            "Higher is better, further left is smaller: how far a point lies below the dense one is what its "
            "compression costs.",
        )
    return figures


def _recovered(loss: LanguageModelLoss | None) -> Estimate | None:
    return None if loss is None else loss.recovered_mean


def _page(result: DemoResult, figures: list[Figure]) -> Page:
    config = result.config
    return Page(
        title=f"{config.model}, {config.hookpoint}: dictionaries of few values, beside a dense one",
        summary=summary(result),
        table=table_of(result),
        notes=notes(result),
        figures=figures,
        features_of=(
            f"Features of {next(iter(result.contestants))}, from rare to frequent, chosen by frequency alone. Each is "
            f"shown in the {config.contexts} training documents in which it fires most strongly: the deeper "
            "a token's colour, the more strongly; the strongest is underlined."
        ),
        features=[_card(sample, result) for sample in result.samples],
        facts=_facts(result),
        commands=_commands(result),
        cautions=cautions(result),
    )


def _card(sample: SampleFeature, result: DemoResult) -> FeatureCard:
    tokens = result.store.norms.count
    return FeatureCard(
        feature=sample.feature,
        frequency=f"Fires on {sample.firings / tokens:.2%} of {tokens:,} tokens.",
        touches=_touched(result.first.run.sae, sample.feature),
        contexts=highlighted(result.language_model.tokenizer, sample.contexts),
    )


def _touched(sae: SparseAutoencoder, feature: int) -> str:
    """The coordinates of a column and its values there, the largest first."""
    if not isinstance(sae.dictionary, ExpanderDictionary):
        return ""
    rows, values = sae.dictionary.support.column(feature).tolist(), sae.dictionary.values[feature].tolist()
    order = sorted(range(len(rows)), key=lambda entry: -abs(values[entry]))
    listed = ", ".join(f"{rows[entry]} ({values[entry]:+.2f})" for entry in order[:COORDINATES])
    rest = f" and {len(rows) - COORDINATES} more" if len(rows) > COORDINATES else ""
    return f"Touches {len(rows)} of {sae.m} coordinates: {listed}{rest}."


def _facts(result: DemoResult) -> list[tuple[str, str]]:
    config, store, evaluation = result.config, result.store, result.dense.evaluation
    left = " and ".join(f"{count:,} {kind}" for kind, count in evaluation.passed_through.items())
    seconds = ", ".join(f"{stage} {time:,.0f}" for stage, time in result.seconds.items())
    versions = ", ".join(f"{package} {version(package)}" for package in ("torch", "transformers", "numpy"))
    system = f"{platform.machine()}, {platform.system()}; Python {platform.python_version()}"
    return [
        ("Model", f"{config.model}, revision {(result.language_model.revision or 'not known')[:12]}"),
        (
            "Activations",
            f"{store.tokens:,} tokens of {store.documents:,} documents at {config.hookpoint}, width {store.width}",
        ),
        ("Text", f"{config.text}; one document in twenty is held out for the evaluation"),
        (
            "Training",
            f"{config.train_tokens:,} tokens in batches of {config.batch:,}, k={config.k}, all dictionaries on "
            f"the same batches; {store.norms.massive:,} massive tokens of the store left out",
        ),
        (
            "Evaluation",
            f"{evaluation.tokens:,} tokens of {evaluation.documents:,} documents; passed through unchanged: {left}",
        ),
        ("Seconds", f"{seconds}, over all runs in this folder"),
        ("Machine", f"{os.cpu_count()} cores, {system}"),
        ("Versions", f"expander-sae {__version__}, {versions}"),
    ]


def _commands(result: DemoResult) -> list[str]:
    """The demo again, and the same by single commands."""
    config, rest = result.config, [str(degree) for degree in result.config.degrees[1:]]
    acts, dictionaries = str(config.out / ACTIVATIONS), str(config.out / DICTIONARIES)
    changed = [
        word
        for name, value in config.to_json().items()
        if value != DemoConfig().to_json()[name]
        for word in (f"--{name.replace('_', '-')}", *(map(str, value) if isinstance(value, list) else [str(value)]))
    ]
    sizes = ["--n", str(config.n), "--d", str(config.degrees[0]), "--k", str(config.k), "--batch", str(config.batch)]
    source = ["--hookpoint", config.hookpoint, "--text", config.text, "--context", str(config.context)]
    lines = [
        ["expander", "demo", "--out", str(config.out), *changed],
        ["expander", "harvest", config.model, *source, "--tokens", str(config.harvest_tokens), "--out", acts],
        ["expander", "train", acts, "--out", dictionaries, *sizes, "--tokens", str(config.train_tokens),
         "--also", *rest, "dense", "matched"],
        ["expander", "eval", dictionaries, "--tokens", str(config.evaluation_tokens)],
    ]  # fmt: skip
    return [shlex.join(line) for line in lines]


def summary(result: DemoResult) -> str:
    """What the compression costs, in three sentences."""
    first, dense, matched = result.first, result.dense, result.matched
    few, many = first.evaluation.learned_values, dense.evaluation.learned_values
    return (
        f"With {first.run.config.d} learned values per column the dictionary of {result.config.hookpoint} is "
        f"{many / few:.0f} times smaller than the dense one ({few:,} learned values against {many:,}). "
        f"It explains {_percent(first.evaluation.explained_variance)} of the variance of held-out activations, the "
        f"dense one {_percent(dense.evaluation.explained_variance)}; put into the model, it retains "
        f"{_percent(_retention(first))} of the loss that the dense one recovers. "
        f"A dense dictionary cut down to {matched.run.config.n} columns, {_size(matched, first)}, retains "
        f"{_percent(_retention(matched))}{_verdict(_retention(first), _retention(matched))}."
    )


def notes(result: DemoResult) -> list[str]:
    """How to read the table."""
    evaluation = result.dense.evaluation
    found = [
        "Learned values: all learned numbers, dictionary and biases. On disk: the folder, in float32.",
        "FVU: the share of the variance of held-out activations that is left unexplained; 0 is perfect, 1 is no better "
        "than their mean.",
        f"Never fired: features that fire on none of the {evaluation.tokens:,} evaluated tokens (rare ones may fire on "
        "others).",
        "CE recovered: how much of the cross-entropy that is lost when activations are replaced by zeros, or by their "
        "mean, comes back with the reconstruction. Against the mean it is the stricter measure.",
        "Retention: CE recovered against the mean, as a share of the dense dictionary's.",
        f"Small print under a number: its 95 % interval over the {evaluation.documents:,} evaluated documents.",
    ]
    if evaluation.language_model is not None:
        loss = evaluation.language_model
        found.append(
            f"The model's own cross-entropy is {loss.clean.value:.3f} nats a token; {loss.zero.value:.3f} with zeros "
            f"and {loss.mean.value:.3f} with the mean in place of the activations."
        )
    return found


def cautions(result: DemoResult) -> list[str]:
    """What must not be concluded from a run this small."""
    config, tokens = result.config, result.store.tokens
    passes = config.train_tokens / tokens
    repeated = f", {passes:.1f} passes over {tokens:,}" if passes > 1 else ""
    return [
        f"The dictionaries saw {config.train_tokens:,} tokens{repeated}; published ones see hundreds of millions. All "
        "of them would improve with more, and not equally: where features are still dead, most.",
        "Every dictionary was trained once, from one seed. The intervals tell of other documents, not of other seeds "
        "or settings; small differences between rows may turn round.",
        f"One layer of one model on one kind of text ({config.text}). Other layers and models may compress better or "
        "worse.",
        "Each dictionary is coded as it was trained: the expander ones by orthogonal matching pursuit, the dense ones "
        f"by TopK. expander eval --coder omp:{config.k} measures all under the pursuit, which helps dense ones too.",
        "Fewer learned values are not as many times less memory or time in use; expander bench measures those.",
        "The contexts are where a feature fires most strongly, on the text it was trained on. What they have in common "
        "is a guess at what the feature means, not a proof.",
    ]


def _retention(contestant: Contestant) -> Estimate | None:
    loss: LanguageModelLoss | None = contestant.evaluation.language_model
    return None if loss is None else loss.retention_mean


def _percent(estimate: Estimate | None) -> str:
    if estimate is None or math.isnan(estimate.value):
        return "an unknown share"
    interval = "" if math.isnan(estimate.low) else f" ({100 * estimate.low:.0f} to {100 * estimate.high:.0f})"
    return f"{100 * estimate.value:.0f} %{interval}"


def _size(contestant: Contestant, first: Contestant) -> str:
    """How its size compares with the first one's; rounding to whole columns may leave it larger or smaller."""
    ratio = contestant.evaluation.learned_values / first.evaluation.learned_values
    if 0.75 <= ratio <= 1.25:
        return "about as few values"
    return f"{ratio:.1f} times as many values as the expander one"


def _verdict(first: Estimate | None, matched: Estimate | None) -> str:
    """Whether the support, or only the size, made the difference."""
    if first is None or matched is None or any(math.isnan(end) for end in (first.low, matched.low)):
        return ""
    if first.low > matched.high:
        return ": at this size, sparse columns keep more"
    if matched.low > first.high:
        return ": at this size and after this little training, few dense columns keep more"
    return ": no clear difference at this size"
