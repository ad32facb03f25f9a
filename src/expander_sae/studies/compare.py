"""How dictionaries are compared: trained in one pass, measured once each, and one flat record of every measurement."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Generic, TypeVar

from scipy.stats import t as student

from expander_sae.autoencoder import SparseAutoencoder, is_autoencoder
from expander_sae.certificates.statements import count
from expander_sae.errors import StoppedError
from expander_sae.evaluation import Evaluation
from expander_sae.evaluation.results import NOTHING, Interval, Kind, Scope
from expander_sae.files import write_checked
from expander_sae.reporting.tables import Cell, Percent, Shown
from expander_sae.studies.data import ActivationsConfig, Data
from expander_sae.studies.study import Stage, Stages, damaged, read_cell, settings_of
from expander_sae.training import TrainConfig, has_checkpoint, train

TRAINED, EVALUATIONS = "trained", "evaluations"
"""The folders of autoencoders and of what was measured of them, in that of a comparison."""
MEASURED_TOGETHER = 8
"""Contenders that share the passes of the language model; a stopped evaluation loses as many at most."""


@dataclass(frozen=True)
class Contender:
    """A dictionary under a coder, to be measured."""

    name: str
    """What the file of its evaluation is called."""
    labels: Mapping[str, str | int]
    """What tells it from the others, its seed included."""
    load: Callable[[], SparseAutoencoder]
    reference: str
    """The contender whose recovered cross-entropy it retains a share of."""


@dataclass(frozen=True)
class Record:
    """What was measured of one thing: labels that tell it from the others, counts, and numbers with their intervals."""

    labels: Mapping[str, str | int]
    measures: Mapping[str, Interval]
    counts: Mapping[str, int] = field(default_factory=dict)

    def __getitem__(self, measure: str) -> Interval:
        return self.measures[measure]

    def is_called(self, **labels: str | int) -> bool:
        """Whether it has all of these labels."""
        return all(self.labels[name] == label for name, label in labels.items())

    def with_counts(self, **counts: int) -> Record:
        """The same with these counts as well."""
        return Record(self.labels, self.measures, {**self.counts, **counts})

    def with_measures(self, measures: Mapping[str, Interval]) -> Record:
        """The same with these measures as well."""
        return Record(self.labels, {**self.measures, **measures}, self.counts)

    def row(self, *measures: str) -> dict[str, Any]:
        """Labels, counts and these measures, as a report takes them; nothing where one was not measured."""
        return {**self.labels, **self.counts, **{name: self.measures.get(name, NOTHING) for name in measures}}


Settings = TypeVar("Settings", bound=ActivationsConfig)


@dataclass(frozen=True)
class Comparison(Generic[Settings]):
    """Everything that was measured, and on what."""

    config: Settings
    data: Data
    base: TrainConfig
    """The dictionary that the others differ from."""
    records: list[Record]
    """One for every contender."""
    scope: Scope
    seconds: dict[str, int]
    """Of every stage."""

    @property
    def facts(self) -> dict[str, Any]:
        """What made the numbers, for a report: without the paths of this machine."""
        origin = {name: self.data.origin.get(name) for name in ("planted", "model", "revision", "hookpoint", "context")}
        paths = ("store", "held_out", "labels")
        settings = {name: each for name, each in settings_of(self.config).items() if name not in paths}
        scope = {"tokens": self.scope.tokens, "documents": self.scope.documents}
        return {
            "activations": {name: value for name, value in origin.items() if value is not None},
            "settings": {**settings, "n": self.base.n, "tokens": self.base.tokens, "width": self.data.width},
            "evaluated": {**scope, "passed_through": self.scope.passed_through},
            "seconds": self.seconds,
        }

    @property
    def words(self) -> dict[str, object]:
        """Values that the notes of every comparison may name: settings, and what was read."""
        scope = self.scope
        return {
            **settings_of(self.config),
            "n": f"{self.base.n:,}",
            "tokens": f"{self.base.tokens:,}",
            "seeds": count(len(self.config.seeds), "seed"),
            "held_out": f"{scope.tokens:,} held-out tokens of {scope.documents:,} documents",
        }

    @property
    def sections(self) -> list[str]:
        """Parts of the notes that are not for every run."""
        return [*(["Planted"] * self.config.synthetic), *(["One seed"] * (len(self.config.seeds) == 1))]


def train_in_one_pass(configs: Sequence[TrainConfig], folder: Path, data: Data, stages: Stages) -> None:
    """Train what an earlier run did not finish; each dictionary gets a folder of its name."""
    found = all(is_autoencoder(folder / each.name) for each in configs)
    out = folder if len(configs) > 1 else folder / configs[0].name  # as training names them only if there are several
    begun = has_checkpoint(out)
    what = f"{len(configs)} dictionaries in one pass over {configs[0].tokens:,} tokens"
    with stages.stage("train", what, found=found) as stage:
        if not found:
            try:
                train(data.source, configs, out=out, resume=begun, progress=stages.listener.live)
            except StoppedError as error:
                raise StoppedError(
                    "Stopped in the middle of training; the same command goes on from there.", error.signal
                ) from error
        stage.outcome = f"in {folder}"


def measure(
    contenders: Sequence[Contender], folder: Path, data: Data, stages: Stages, tokens: int
) -> tuple[list[Record], Scope]:
    """Measure, some together, what is not on disk yet; a record for every contender, and what they were measured on."""
    folder.mkdir(exist_ok=True)
    groups = _groups([each for each in contenders if not _file(folder, each).exists()])
    by_name = {each.name: each for each in contenders}
    what = f"{len(contenders)} dictionaries under their coders, on held-out tokens"
    with stages.stage("evaluate", what, total=tokens * len(groups) or None, found=not groups) as stage:
        for number, group in enumerate(groups):
            together = {each.name: each.load() for each in (by_name[group[0].reference], *group)}
            evaluations = data.measure(together, group[0].reference, _Counter(stage, number * tokens))
            for each in group:
                write_evaluations(_file(folder, each), {each.name: evaluations[each.name]})
            stage.proceeds((number + 1) * tokens)
        found = [next(iter(read_evaluations(_file(folder, each)).values())) for each in contenders]
        one = found[0]
        stage.outcome = f"{one.tokens:,} tokens of {one.documents:,} documents"
    records = [
        Record(each.labels, measures_of(evaluation), {"learned_values": evaluation.learned_values})
        for each, evaluation in zip(contenders, found, strict=True)
    ]
    return records, Scope(one.tokens, one.documents, one.passed_through, one.setting)


def measures_of(evaluation: Evaluation) -> dict[str, Interval]:
    """What a record holds of an evaluation; without a language model its losses are NOTHING."""
    losses = ("clean", "patched", "zero", "mean", "kl", "recovered_zero", "recovered_mean", "retention_zero")
    loss = evaluation.language_model
    asked = {name: NOTHING if loss is None else getattr(loss, name) or NOTHING for name in losses}
    return {
        "fvu": evaluation.fvu,
        "cosine": evaluation.cosine,
        "l0": evaluation.l0,
        "never_fired": Interval.bare(evaluation.never_fired),
        **asked,
        "retention": (None if loss is None else loss.retention_mean) or NOTHING,
    }


OPTIONAL = {
    "CE recovered (zeros)": "recovered_zero",
    "CE recovered (mean)": "recovered_mean",
    "retention": "retention",
    "fire often": "fire_often",
    "fire at all": "fire_at_all",
}
"""Shares that some runs measure and others do not, by their headings in a table."""
READABILITY = {
    "token R2": "token_r2",
    "purity": "purity",
    "coh. pred.": "coherence_of_predictions",
    "coh. act.": "coherence_strongest",
    "any": "coherence_any",
    "probe 1": "probe_1",
    "probe 8": "probe_8",
}
"""What features tell a reader, where that was asked, by the headings in a table."""


def optional_columns(records: Sequence[Record]) -> dict[str | Cell, Callable[[Record], Shown]]:
    """The columns of a table for what was measured of these."""

    def share(measure: str) -> Callable[[Record], Shown]:
        return lambda record: Percent(record[measure])

    def number(measure: str) -> Callable[[Record], Shown]:
        return lambda record: record[measure]

    found = {heading: share(measure) for heading, measure in OPTIONAL.items()}
    found |= {heading: number(measure) for heading, measure in READABILITY.items()}
    asked = {**OPTIONAL, **READABILITY}
    return {heading: column for heading, column in found.items() if was_asked(records, asked[heading])}


def was_asked(records: Sequence[Record], measure: str = "recovered_mean") -> bool:
    """Whether there is any number for a measure; for the loss there is none where no language model was asked."""
    return any(not math.isnan(record.measures.get(measure, NOTHING).value) for record in records)


def write_evaluations(path: Path, evaluations: Mapping[str, Evaluation]) -> None:
    """Put evaluations into a JSON file, by name, in one step."""
    write_checked(path, {name: evaluation.to_json() for name, evaluation in evaluations.items()})


def read_evaluations(path: Path) -> dict[str, Evaluation]:
    """The evaluations of such a file."""
    try:
        return {name: Evaluation.from_json(content) for name, content in read_cell(path).items()}
    except (TypeError, KeyError, AttributeError) as error:
        raise damaged(path) from error


def _file(folder: Path, contender: Contender) -> Path:
    return folder / f"{contender.name}.json"


@dataclass(frozen=True)
class _Counter:
    """Counts on from what earlier groups did."""

    stage: Stage
    before: int

    def __call__(self, tokens: int) -> None:
        self.stage.proceeds(self.before + tokens)


def _groups(missing: Sequence[Contender]) -> list[list[Contender]]:
    """Contenders that are measured together; those of one group have one reference."""
    references = dict.fromkeys(each.reference for each in missing)
    alike = [[each for each in missing if each.reference == reference] for reference in references]
    return [each[start : start + MEASURED_TOGETHER] for each in alike
            for start in range(0, len(each), MEASURED_TOGETHER)]  # fmt: skip


def grouped(records: Sequence[Record], by: Sequence[str]) -> dict[tuple[str | int, ...], list[Record]]:
    """The records by these labels, in their order."""
    groups = dict[tuple[str | int, ...], list[Record]]()
    for record in records:
        groups.setdefault(tuple(record.labels[name] for name in by), []).append(record)
    return groups


def hull(numbers: Sequence[Interval]) -> Interval:
    """The mean, from the lowest end of all 95 % intervals to the highest; nan if any of them is.

    Numbers that have no interval of their own, such as counted shares, range from the least to the most.
    """
    if all(number.kind == Kind.NONE for number in numbers):
        return least_and_most(numbers)
    ends = [end for number in numbers for end in (number.low, number.high)]
    known = not any(map(math.isnan, ends))
    low, high = (min(ends), max(ends)) if known else (math.nan, math.nan)
    of_features = any(number.kind in (Kind.FEATURES, Kind.FEATURES_AND_DOCUMENTS) for number in numbers)
    kind = Kind.HULL_OF_FEATURES if of_features else Kind.HULL
    return Interval(fmean(number.value for number in numbers), low, high, kind)


def least_and_most(numbers: Sequence[Interval]) -> Interval:
    """The mean, from the lowest number to the highest."""
    values = [number.value for number in numbers]
    return Interval(fmean(values), min(values), max(values), Kind.LEAST_AND_MOST)


def over_many_seeds(numbers: Sequence[Interval]) -> Interval:
    """The mean, and where that of many seeds lies with 95 % confidence by Student; one seed alone does not say."""
    values = [number.value for number in numbers]
    mean = fmean(values)
    if len(values) < 2 or math.isnan(mean):
        return Interval(mean, math.nan, math.nan, Kind.SEEDS)
    half = float(student.ppf(0.975, len(values) - 1)) * stdev(values) / math.sqrt(len(values))
    return Interval(mean, mean - half, mean + half, Kind.SEEDS)


def over_seeds(
    records: Sequence[Record], by: Sequence[str], interval: Callable[[Sequence[Interval]], Interval] = hull
) -> list[Record]:
    """One record for all that have these labels in common: mean counts, and measures with this kind of interval."""
    return [
        Record(
            dict(zip(by, labels, strict=True)),
            {name: interval([each[name] for each in group]) for name in group[0].measures},
            {name: round(fmean(each.counts[name] for each in group)) for name in group[0].counts},
        )
        for labels, group in grouped(records, by).items()
    ]
