"""The frontier: what a dictionary keeps of the activations over how many values it learns and how many bytes it takes,
for expander dictionaries of every degree and for everything that an engineer would do to a dense one instead."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.evaluation import Evaluation
from expander_sae.experiments.frontier_config import FrontierConfig, SeedConfigs
from expander_sae.experiments.frontier_contestants import (
    CODERS,
    REFERENCE,
    CoderName,
    Contestant,
    cell_name,
    contestants,
    cost_of,
)
from expander_sae.experiments.frontier_data import Data, Report, open_data
from expander_sae.experiments.records import check_same_settings, read_evaluations, write_evaluations
from expander_sae.experiments.stages import Listener, Stage, Stages
from expander_sae.reporting.charts import check_matplotlib
from expander_sae.storage.folder import CONFIG as AUTOENCODER
from expander_sae.storage.folder import replace_file
from expander_sae.training import StoppedError, train
from expander_sae.training.checkpoints import FILE as CHECKPOINT_FILE
from expander_sae.training.loop import CHECKPOINT

CONFIG, TRAINED, CONTESTANTS, EVALUATIONS = "config.json", "trained", "contestants", "evaluations"
"""What the folder of a frontier holds, besides the report."""
MEASURED_TOGETHER = 8
"""Cells that share the passes of the language model; a stopped evaluation loses as many at most."""


@dataclass(frozen=True)
class Cell:
    """A dictionary under a coder, measured."""

    family: str
    name: str
    coder: str
    seed: int
    learned_values: int
    bytes_on_disk: int
    evaluation: Evaluation


@dataclass(frozen=True)
class FrontierResult:
    """Everything that the report is made of."""

    config: FrontierConfig
    data: Data
    train_tokens: int
    features: int
    cells: list[Cell]
    seconds: dict[str, float]
    """Of every stage."""


def run_frontier(config: FrontierConfig, listener: Listener, *, progress: bool = True) -> FrontierResult:
    """Do what an earlier run in the same folder has not done yet; `progress` lets training draw its live lines."""
    check_matplotlib()
    config.out.mkdir(parents=True, exist_ok=True)
    check_same_settings(config.out / CONFIG, config.to_json(), "a frontier")
    stages, data = Stages(config.out, listener), open_data(config)
    plans = config.trained(data.width, data.tokens)
    replace_file(config.out / CONFIG, (json.dumps(config.to_json(), indent=2) + "\n").encode())
    _train(config, plans, data, stages, progress)
    found = contestants(
        config, plans, lambda each: SparseAutoencoder.load(config.out / TRAINED / each.name), data.source
    )
    _make(config, found, stages)
    cells = _measure(config, found, data, stages)
    dense = next(iter(plans.values())).dense
    return FrontierResult(config, data, dense.tokens, dense.n, cells, stages.seconds)


def _train(config: FrontierConfig, plans: dict[int, SeedConfigs], data: Data, stages: Stages, progress: bool) -> None:
    configs, folder = [each for plan in plans.values() for each in plan.all], config.out / TRAINED
    found = all((folder / each.name / AUTOENCODER).exists() for each in configs)
    begun = (folder / CHECKPOINT / CHECKPOINT_FILE).exists()
    what = f"{len(configs)} dictionaries in one pass over {configs[0].tokens:,} tokens"
    with stages.stage("train", what, found=found) as stage:
        if not found:
            try:
                train(data.source, configs, out=folder, resume=begun, progress=progress)
            except StoppedError as error:
                raise StoppedError("Stopped in the middle of training; the same command goes on from there.") from error
        stage.outcome = f"in {folder}"


def _make(config: FrontierConfig, found: Sequence[Contestant], stages: Stages) -> None:
    """Cut, round and train once more what is not on disk yet."""
    folder = config.out / CONTESTANTS
    missing = [each for each in found if not each.is_in(folder)]
    what = "dense dictionaries cut and rounded, some of them trained once more"
    with stages.stage("compress", what, found=not missing) as stage:
        for each in missing:
            each.write_to(folder)
        stage.outcome = f"{len(found)} dictionaries to compare"


def _measure(config: FrontierConfig, found: Sequence[Contestant], data: Data, stages: Stages) -> list[Cell]:
    """Measure, some together, what is not on disk yet; all that was measured."""
    folder = config.out / EVALUATIONS
    folder.mkdir(exist_ok=True)
    cells = [(each, coder) for each in found for coder in each.coders]
    groups = _groups([(each, coder) for each, coder in cells if not _file(folder, each, coder).exists()])
    what = f"{len(cells)} dictionaries under their coders, on held-out tokens"
    total = config.evaluation_tokens * len(groups)
    with stages.stage("evaluate", what, total=total or None, found=not groups) as stage:
        for number, group in enumerate(groups):
            before = number * config.evaluation_tokens
            reference = next(each for each in found if (each.name, each.seed) == (REFERENCE, group[0][0].seed))
            _measure_together(config, group, reference, data, _Counter(stage, before))
            stage.proceeds(before + config.evaluation_tokens)
        results = [_cell(config, each, coder) for each, coder in cells]
        stage.outcome = f"{results[0].evaluation.tokens:,} tokens of {results[0].evaluation.documents:,} documents"
    return results


@dataclass(frozen=True)
class _Counter:
    """Counts on from what earlier groups did."""

    stage: Stage
    before: int

    def __call__(self, tokens: int) -> None:
        self.stage.proceeds(self.before + tokens)


def _groups(missing: Sequence[tuple[Contestant, CoderName]]) -> list[list[tuple[Contestant, CoderName]]]:
    """Cells that are measured together; those of one seed have one reference."""
    seeds = dict.fromkeys(each.seed for each, _ in missing)
    of_seeds = [[cell for cell in missing if cell[0].seed == seed] for seed in seeds]
    return [cells[start : start + MEASURED_TOGETHER] for cells in of_seeds
            for start in range(0, len(cells), MEASURED_TOGETHER)]  # fmt: skip


def _measure_together(
    config: FrontierConfig,
    group: Sequence[tuple[Contestant, CoderName]],
    reference: Contestant,
    data: Data,
    report: Report,
) -> None:
    """Measure dictionaries as their files have them, and write down each of them."""
    compared = (reference, reference.coders[0])
    saes = {cell_name(*cell): _load(config, *cell) for cell in (compared, *group)}
    evaluations = data.measure(saes, cell_name(*compared), report)
    for cell in group:
        name = cell_name(*cell)
        write_evaluations(_file(config.out / EVALUATIONS, *cell), {name: evaluations[name]})


def _load(config: FrontierConfig, contestant: Contestant, coder: CoderName) -> SparseAutoencoder:
    sae = SparseAutoencoder.load(contestant.path_in(config.out / CONTESTANTS))
    return sae.with_coder(CODERS[coder](k=config.k))  # type: ignore[call-arg]  # each of them takes it


def _file(folder: Path, contestant: Contestant, coder: CoderName) -> Path:
    return folder / f"{cell_name(contestant, coder)}.json"


def _cell(config: FrontierConfig, contestant: Contestant, coder: CoderName) -> Cell:
    """What was measured, from the disk."""
    learned_values, size = cost_of(contestant.path_in(config.out / CONTESTANTS))
    (evaluation,) = read_evaluations(_file(config.out / EVALUATIONS, contestant, coder)).values()
    return Cell(contestant.family, contestant.name, coder, contestant.seed, learned_values, size, evaluation)
