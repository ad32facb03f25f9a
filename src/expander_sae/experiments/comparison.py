"""What all comparisons of dictionaries do: train them in one pass, and measure each of them once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expander_sae.autoencoder import SparseAutoencoder, is_autoencoder
from expander_sae.evaluation import Evaluation
from expander_sae.experiments.comparison_config import ActivationsConfig
from expander_sae.experiments.frontier_data import Data
from expander_sae.experiments.records import read_evaluations, write_evaluations
from expander_sae.experiments.stages import Stage, Stages
from expander_sae.training import StoppedError, TrainConfig, train
from expander_sae.training.checkpoints import has_checkpoint

MEASURED_TOGETHER = 8
"""Subjects that share the passes of the language model; a stopped evaluation loses as many at most."""


@dataclass(frozen=True)
class Subject:
    """An autoencoder to be measured."""

    name: str
    """What the file of its evaluation is called."""
    load: Callable[[], SparseAutoencoder]
    reference: str
    """The subject whose recovered cross-entropy it retains a share of."""


def train_in_one_pass(configs: Sequence[TrainConfig], folder: Path, data: Data, stages: Stages, progress: bool) -> None:
    """Train what an earlier run did not finish; each dictionary gets a folder of its name."""
    found = all(is_autoencoder(folder / each.name) for each in configs)
    out = folder if len(configs) > 1 else folder / configs[0].name  # as training names them only if there are several
    begun = has_checkpoint(out)
    what = f"{len(configs)} dictionaries in one pass over {configs[0].tokens:,} tokens"
    with stages.stage("train", what, found=found) as stage:
        if not found:
            try:
                train(data.source, configs, out=out, resume=begun, progress=progress)
            except StoppedError as error:
                raise StoppedError("Stopped in the middle of training; the same command goes on from there.") from error
        stage.outcome = f"in {folder}"


def measure(
    subjects: Sequence[Subject], folder: Path, data: Data, stages: Stages, tokens: int
) -> dict[str, Evaluation]:
    """Measure, some together, what is not on disk yet; all that was measured, by name."""
    folder.mkdir(exist_ok=True)
    groups = _groups([each for each in subjects if not _file(folder, each).exists()])
    by_name = {each.name: each for each in subjects}
    what = f"{len(subjects)} dictionaries under their coders, on held-out tokens"
    with stages.stage("evaluate", what, total=tokens * len(groups) or None, found=not groups) as stage:
        for number, group in enumerate(groups):
            together = {each.name: each.load() for each in (by_name[group[0].reference], *group)}
            evaluations = data.measure(together, group[0].reference, _Counter(stage, number * tokens))
            for each in group:
                write_evaluations(_file(folder, each), {each.name: evaluations[each.name]})
            stage.proceeds((number + 1) * tokens)
        found = {each.name: _read(_file(folder, each)) for each in subjects}
        one = next(iter(found.values()))
        stage.outcome = f"{one.tokens:,} tokens of {one.documents:,} documents"
    return found


def facts_of(
    config: ActivationsConfig, data: Data, base: TrainConfig, one: Evaluation, seconds: Mapping[str, float]
) -> dict[str, Any]:
    """What made the numbers, for the JSON of a report: without the paths of this machine."""
    origin = {name: data.origin.get(name) for name in ("planted", "model", "revision", "hookpoint", "context")}
    settings = {name: value for name, value in config.to_json().items() if name not in ("store", "held_out")}
    return {
        "activations": {name: value for name, value in origin.items() if value is not None},
        "settings": {**settings, "n": base.n, "tokens": base.tokens, "width": data.width},
        "evaluated": {"tokens": one.tokens, "documents": one.documents, "passed_through": one.passed_through},
        "seconds": {stage: round(taken) for stage, taken in seconds.items()},
    }


def _file(folder: Path, subject: Subject) -> Path:
    return folder / f"{subject.name}.json"


def _read(path: Path) -> Evaluation:
    (evaluation,) = read_evaluations(path).values()
    return evaluation


@dataclass(frozen=True)
class _Counter:
    """Counts on from what earlier groups did."""

    stage: Stage
    before: int

    def __call__(self, tokens: int) -> None:
        self.stage.proceeds(self.before + tokens)


def _groups(missing: Sequence[Subject]) -> list[list[Subject]]:
    """Subjects that are measured together; those of one group have one reference."""
    references = dict.fromkeys(each.reference for each in missing)
    alike = [[each for each in missing if each.reference == reference] for reference in references]
    return [each[start : start + MEASURED_TOGETHER] for each in alike
            for start in range(0, len(each), MEASURED_TOGETHER)]  # fmt: skip
