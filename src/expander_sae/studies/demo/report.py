"""The report of the demo: its numbers in a table and in pictures, some features, and how it was made."""

from __future__ import annotations

import math
import os
import platform
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version

from rich.filesize import decimal

from expander_sae.activations.models import LanguageModel
from expander_sae.activations.store import Store
from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.dictionaries import ExpanderDictionary
from expander_sae.evaluation.results import Interval, Scope
from expander_sae.reporting.charts import Axis, Picture, Point, Series, line_chart, point_chart
from expander_sae.reporting.highlights import FeatureCard, highlighted
from expander_sae.reporting.report import Features, Report
from expander_sae.reporting.tables import Cell, Percent, Shown, Table
from expander_sae.studies.compare import Record, was_asked
from expander_sae.studies.demo.config import ACTIVATIONS, DENSE, DICTIONARIES, DemoConfig
from expander_sae.studies.demo.telling import MEASURED, MEASURES, SampleFeature, Telling
from expander_sae.studies.study import notes_of, settings_of
from expander_sae.training import TrainConfig

COORDINATES = 8
"""Coordinates of a column that are shown at most."""
TOKENS = Axis("tokens trained on")
"""What curves of learning run over."""


@dataclass(frozen=True)
class Compared:
    """One of the dictionaries, trained and measured."""

    config: TrainConfig
    record: Record
    metrics: Sequence[Mapping[str, float]]
    """Rows of what was measured while it was trained."""
    bytes_on_disk: int

    @property
    def learned_values(self) -> int:
        """All learned numbers, dictionary and biases."""
        return self.record.counts["learned_values"]


@dataclass(frozen=True)
class DemoResult:
    """Everything that the report is made of."""

    config: DemoConfig
    language_model: LanguageModel
    store: Store
    compared: dict[str, Compared]
    """By name: the expander dictionaries, the dense one, and the one of few columns."""
    scope: Scope
    """What they were measured on."""
    sae: SparseAutoencoder
    """The first expander dictionary."""
    tellings: Mapping[str, Telling]
    """What features tell a reader, of the first expander dictionary and of the dense one."""
    seconds: dict[str, int]
    """Of every stage."""

    @property
    def first(self) -> Compared:
        """The expander dictionary with the first of the degrees."""
        return self.compared[self.config.first]

    @property
    def dense(self) -> Compared:
        """The dictionary that the others are compared with."""
        return self.compared[DENSE]

    @property
    def matched(self) -> Compared:
        """The dense dictionary with as many learned values as the first."""
        return next(each for name, each in self.compared.items() if each.config.d is None and name != DENSE)


def report_of(result: DemoResult) -> Report:
    """The report of everything."""
    config = result.config
    measures = ("fvu", "never_fired", "recovered_zero", "recovered_mean", "retention")
    return Report(
        name="demo",
        title=f"{config.model}, {config.hookpoint}: dictionaries of few values, beside a dense one",
        findings=[summary(result), *readability(result)],
        tables={"The dictionaries compared": table_of(result), "What features tell a reader": telling_table(result)},
        notes=notes(result),
        pictures=_pictures(result),
        facts={"made": _made(result), "settings": settings_of(config), "seconds": result.seconds},
        rows=[{**each.record.row(*measures), "bytes_on_disk": each.bytes_on_disk} for each in result.compared.values()],
        features=Features(
            f"Features of {config.first} and then of {DENSE}, drawn at random among those that fire, whatever they "
            f"look like. Each is shown in the {config.contexts} training documents in which it fires most strongly: "
            "the deeper a token's colour, the more strongly; the strongest is underlined.",
            [_card(name, sample, result) for name, each in result.tellings.items() for sample in each.samples],
        ),
        cautions=cautions(result),
        commands=_commands(config),
    )


def table_of(result: DemoResult) -> Table:
    """The comparison, a line for every dictionary."""
    most, m = result.dense.learned_values, result.store.width
    return Table.of(result.compared.items(), {
        "dictionary": lambda each: Cell(each[0], _shape(each[1].config, m)),
        "learned values": lambda each: each[1].learned_values,
        "times fewer": lambda each: f"{most / each[1].learned_values:.1f}",
        "on disk": lambda each: decimal(each[1].bytes_on_disk),
        "FVU": lambda each: each[1].record["fvu"],
        "never fired": lambda each: Percent(each[1].record["never_fired"]),
        Cell("CE recovered", "against zeros", "(zeros)"): lambda each: Percent(each[1].record["recovered_zero"]),
        Cell("CE recovered", "against the mean", "(mean)"): lambda each: Percent(each[1].record["recovered_mean"]),
        "retention": lambda each: Percent(each[1].record["retention"]),
    })  # fmt: skip


def telling_table(result: DemoResult) -> Table:
    """What features tell a reader, of the expander dictionary that is shown and of the dense one."""

    def mean(measure: str) -> Callable[[tuple[str, Telling]], Shown]:
        return lambda each: Interval.bare(each[1].means[measure])

    n = result.config.n
    return Table.of(result.tellings.items(), {
        "dictionary": lambda each: each[0],
        "fire at all": lambda each: Percent(Interval.bare(each[1].firing / n)),
        "fire often": lambda each: Percent(Interval.bare(each[1].often / n)),
        **{name: mean(measure) for measure, name in MEASURES.items()},
    })  # fmt: skip


def readability(result: DemoResult) -> list[str]:
    """A sentence on what features tell, if enough of them fire often enough in both dictionaries."""
    if not all(each.often for each in result.tellings.values()):
        return []
    parts = [
        f"{name} " + ", ".join(f"{said} {each.means[measure]:.2f}" for measure, said in MEASURES.items())
        for name, each in result.tellings.items()
    ]
    return [f"What features tell a reader, means over {MEASURED} drawn at random: {'; '.join(parts)}."]


def _shape(config: TrainConfig, m: int) -> str:
    on_average = " on average" if config.learns_rows and config.lengths.longest(m) != config.d else ""
    return f"{config.n:,} columns of {config.d or m} values{on_average}"


def _pictures(result: DemoResult) -> dict[str, Picture]:
    """Learning, dead features, and storage against what a dictionary achieves."""
    compared = result.compared

    def series(measure: str) -> list[Series]:
        return [
            Series(name, [row["tokens"] for row in each.metrics], [row[measure] for row in each.metrics])
            for name, each in compared.items()
        ]

    def points(measure: str) -> list[Point]:
        found = {name: (each.learned_values, each.record[measure]) for name, each in compared.items()}
        return [Point(name, values, number.value, number.low, number.high)
                for name, (values, number) in found.items() if not math.isnan(number.value)]  # fmt: skip

    pictures = {
        "loss_curves": loss_curves(series("fvu")).titled(
            "Learning", "Lower is better. A curve that still falls at its end would have come lower with more tokens."
        ),
        "dead_features": dead_features(series("dead")).titled(
            "Dead features",
            f"Dead: silent for the last {result.first.config.dead_tokens:,} tokens. Dead columns are storage that does "
            "nothing.",
        ),
        "storage_fvu": storage_fidelity(points("fvu"), "FVU on held-out text").titled(
            "Storage against error",
            "Lower is better, further left is smaller. Bars: 95 % intervals over documents.",
        ),
    }
    if was_asked([each.record for each in compared.values()]):
        pictures["storage_recovered"] = storage_fidelity(
            points("recovered_mean"), "cross-entropy recovered, against the mean", percent=True
        ).titled(
            "Storage against what the model keeps",
            "Higher is better, further left is smaller: how far a point lies below the dense one is what its "
            "compression costs.",
        )
    return pictures


def _card(name: str, sample: SampleFeature, result: DemoResult) -> FeatureCard:
    tokens = result.store.norms.count
    measured = [
        f"{said} {sample.scores[measure]:.2f}" for measure, said in MEASURES.items()
        if not math.isnan(sample.scores[measure])
    ]  # fmt: skip
    scores = ", ".join(measured) or "too rare to be measured"
    return FeatureCard(
        feature=sample.feature,
        frequency=f"Of {name}, fires on {sample.firings / tokens:.2%} of {tokens:,} tokens: {scores}.",
        touches=_touched(result.sae, sample.feature) if name == result.config.first else "",
        contexts=highlighted(sample.contexts),
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


def _made(result: DemoResult) -> dict[str, str]:
    """What the numbers were made with, beside the settings."""
    store, scope = result.store, result.scope
    left = " and ".join(f"{count:,} {kind}" for kind, count in scope.passed_through.items())
    versions = ", ".join(f"{package} {version(package)}" for package in ("torch", "transformers", "numpy"))
    return {
        "revision": (result.language_model.revision or "not known")[:12],
        "activations": f"{store.tokens:,} tokens of {store.documents:,} documents, width {store.width}",
        "training": (
            f"all dictionaries on the same batches; {store.norms.massive:,} massive tokens of the store left out"
        ),
        "evaluation": (
            f"{scope.tokens:,} tokens of {scope.documents:,} documents, one in twenty of the text, none trained on; "
            f"passed through unchanged: {left}"
        ),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}",
        "versions": f"Python {platform.python_version()}, {versions}",
    }


def _commands(config: DemoConfig) -> list[str]:
    """The demo again, and the same by single commands."""
    rest, usual = [str(degree) for degree in config.degrees[1:]], settings_of(DemoConfig())
    acts, dictionaries = str(config.out / ACTIVATIONS), str(config.out / DICTIONARIES)
    changed = [
        word
        for name, value in settings_of(config).items()
        if value != usual[name]
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
    few, many, kept = first.learned_values, dense.learned_values, first.record["retention"]
    return (
        f"With {first.config.d} learned values per column the dictionary of {result.config.hookpoint} is "
        f"{many / few:.0f} times smaller than the dense one ({few:,} learned values against {many:,}). "
        f"It explains {_explained(first)} of the variance of held-out activations, the dense one {_explained(dense)}; "
        f"put into the model, it retains {_percent(kept)} of the loss that the dense one recovers. "
        f"A dense dictionary cut down to {matched.config.n} columns, {_size(matched, first)}, retains "
        f"{_percent(matched.record['retention'])}{_verdict(kept, matched.record['retention'])}."
    )


def notes(result: DemoResult) -> list[str]:
    """How to read the table."""
    scope, dense = result.scope, result.dense.record
    losses = {name: f"{dense[name].value:.3f}" for name in ("clean", "zero", "mean")}
    sections = ["Loss"] * was_asked([dense], "clean")
    counts = {"tokens": f"{scope.tokens:,}", "documents": f"{scope.documents:,}", "measured": MEASURED}
    return notes_of(__package__, *sections, **counts, **losses)


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
        "Each dictionary is coded as it was trained: in the expander ones one product says which features may fire and "
        "least squares how strongly, in the dense ones one product says both. expander train --objective fidelity "
        f"explains more and tells a reader less; expander eval --coder omp:{config.k} measures all under a pursuit.",
        "Fewer learned values are not as many times less memory or time in use; expander bench measures those.",
        "Contexts and scores of features are of the text they were trained on; expander quality measures on held-out "
        "text. What contexts have in common is a guess at what the feature means, not a proof.",
    ]


def _explained(compared: Compared) -> str:
    """The share of the variance that is explained, 1 - FVU."""
    fvu = compared.record["fvu"]
    return _percent(Interval(1 - fvu.value, 1 - fvu.high, 1 - fvu.low, fvu.kind))


def _percent(share: Interval) -> str:
    if math.isnan(share.value):
        return "an unknown share"
    ends = "" if math.isnan(share.low) else f" ({100 * share.low:.0f} to {100 * share.high:.0f})"
    return f"{100 * share.value:.0f} %{ends}"


def _size(compared: Compared, first: Compared) -> str:
    """How its size compares with the first one's; rounding to whole columns may leave it larger or smaller."""
    ratio = compared.learned_values / first.learned_values
    if 0.75 <= ratio <= 1.25:
        return "about as few values"
    return f"{ratio:.1f} times as many values as the expander one"


def _verdict(first: Interval, matched: Interval) -> str:
    """Whether the support, or only the size, made the difference."""
    if math.isnan(first.low) or math.isnan(matched.low):
        return ""
    if first.low > matched.high:
        return ": at this size, sparse columns keep more"
    if matched.low > first.high:
        return ": at this size and after this little training, few dense columns keep more"
    return ": no clear difference at this size"


def loss_curves(series: Sequence[Series]) -> Picture:
    """FVU over tokens, from nothing explained (1) to everything (0); what is worse than the mean is cut off."""
    highest = max((value for line in series for value in line.y), default=1.0)
    limits = (0.0, min(1.0, 1.05 * highest))
    return line_chart(series, TOKENS, Axis("share of the variance left unexplained (FVU)", limits=limits))


def dead_features(series: Sequence[Series]) -> Picture:
    """The share of dead features over tokens."""
    highest = max((value for line in series for value in line.y), default=0.0)
    return line_chart(
        series, TOKENS, Axis("share of features that are dead", percent=True, limits=(0.0, _above(highest)))
    )


def storage_fidelity(points: Sequence[Point], measure: str, *, percent: bool = False) -> Picture:
    """What a dictionary achieves, by any measure, over how many values it had to learn."""
    return point_chart(points, Axis("learned values", log=True), Axis(measure, percent=percent))


def _above(highest: float) -> float:
    """An upper limit that leaves room, also where there is nothing to see."""
    return max(0.01, 1.08 * highest)
