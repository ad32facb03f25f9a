"""Sparse coding, encoders and dictionaries apart: who finds planted codes, at what price, given what is known."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from expander_sae.coders import OMP as Pursuit
from expander_sae.coders import Coder, CoordinateDescent
from expander_sae.evaluation.results import NOTHING, Interval
from expander_sae.files import write_checked
from expander_sae.kernels.threads import one_thread
from expander_sae.reporting.report import Report
from expander_sae.studies.coding.config import (
    DENSE,
    KNOWN_CODES,
    KNOWN_DICTIONARY,
    LASSO,
    LEARNING_GAP,
    MLP,
    NEITHER,
    OMP,
    OPTIMISED,
    REFINED,
    RELU,
    TOPK,
    WIDTH,
    CodingConfig,
)
from expander_sae.studies.coding.costs import Sizes, counted_lasso
from expander_sae.studies.coding.learning import (
    GradientCodes,
    Learned,
    descended,
    first_dictionary,
    from_codes,
    new_encoder,
    train_encoder,
    trained,
    with_coder,
)
from expander_sae.studies.coding.report import report_of
from expander_sae.studies.coding.world import Scores, World, scores_of
from expander_sae.studies.compare import Record
from expander_sae.studies.encoders import keep_largest
from expander_sae.studies.study import Listener, Study, begun, damaged, read_cell
from expander_sae.training import TrainConfig

CELLS = "cells"
"""The folder of finished measurements in that of the study."""
LEARNERS = (TOPK, RELU, MLP, OPTIMISED, OMP, LASSO)
"""The coders that are trained, or train a dictionary, by themselves; the refined one starts from the codes of TopK."""


@dataclass(frozen=True)
class Outcome:
    """The scores and the price of one coder in one world."""

    scores: Scores
    inference: float
    """Multiply-adds per token for its codes."""
    training: float
    """Multiply-adds in all to learn what it uses."""

    def measures(self, setting: str) -> dict[str, Interval]:
        """All numbers by name; how near the columns are says nothing where the dictionary was given."""
        numbers = {**vars(self.scores), "inference": self.inference, "training": self.training}
        measures = {name: Interval.bare(number) for name, number in numbers.items()}
        return {**measures, "features": NOTHING} if setting == KNOWN_DICTIONARY else measures


@dataclass(frozen=True)
class Task:
    """One learner in the world of a seed, with what it is told: what is learned at once and kept in one file."""

    config: CodingConfig
    truth: str
    setting: str
    learner: str
    seed: int

    @property
    def path(self) -> Path:
        """The file of its outcomes."""
        words = f"{self.truth}-{self.setting}-{self.learner}-seed{self.seed}"
        return self.config.out / CELLS / f"{words.replace(' ', '-')}.json"

    @property
    def sizes(self) -> Sizes:
        """The sizes that its costs are computed from."""
        config = self.config
        return Sizes(config.m, config.n, config.entries(self.truth), config.k, config.hidden)

    def write(self, outcomes: dict[str, Outcome]) -> None:
        """Put the outcomes on disk, by coder."""
        write_checked(self.path, {coder: dataclasses.asdict(outcome) for coder, outcome in outcomes.items()})

    def read(self) -> list[Record]:
        """A record of every coder on disk."""
        try:
            outcomes = {
                coder: Outcome(Scores(**content["scores"]), content["inference"], content["training"])
                for coder, content in read_cell(self.path).items()
            }
        except (TypeError, KeyError) as error:
            raise damaged(self.path) from error
        labels: dict[str, str | int] = {"truth": self.truth, "setting": self.setting, "seed": self.seed}
        return [Record({**labels, "coder": coder}, each.measures(self.setting)) for coder, each in outcomes.items()]


def run(config: CodingConfig, listener: Listener) -> Report:
    """Learn and score what an earlier run in the same folder has not, and say what came of it."""
    return report_of(config, *measured(config, listener))


def measured(config: CodingConfig, listener: Listener) -> tuple[list[Record], dict[str, int]]:
    """A record for every coder, world, setting and seed, and the seconds of every stage."""
    with begun(config, listener, "a study of sparse coding") as stages:
        for truth in config.truths:  # refuses a support that cannot be
            World.draw(dataclasses.replace(config, samples=config.batch, test_tokens=1), truth, 0)
        (config.out / CELLS).mkdir(parents=True, exist_ok=True)
    tasks = [
        Task(config, truth, setting, learner, seed)
        for truth in config.truths
        for setting in config.settings
        for learner in LEARNERS
        for seed in config.seeds
    ]
    missing = [task for task in tasks if not task.path.exists()]
    total, what = len(missing) * config.test_tokens, f"{len(tasks)} times learn and code"
    with stages.stage("code", what, total=total or None, found=not missing) as stage, one_thread():
        for number, task in enumerate(missing):
            task.write(outcomes_of(task))
            stage.proceeds((number + 1) * config.test_tokens)
        records = [record for task in tasks for record in task.read()]
        stage.outcome = f"{len(records)} coders in their worlds, {config.test_tokens:,} tokens each"
    return records, stages.rounded


def outcomes_of(task: Task) -> dict[str, Outcome]:
    """Learn and score; the outcomes by coder, which are two where codes are refined."""
    world = World.draw(task.config, task.truth, task.seed)
    if task.learner == TOPK and task.setting == NEITHER:
        return _library_topk(task, world)
    if task.learner in (TOPK, RELU, MLP):
        return _encoded(task, world)
    return _solved(task, world)


def _encoded(task: Task, world: World) -> dict[str, Outcome]:
    """An encoder trained by the study, on the dictionary that is known or learned with it."""
    config, setting, learner = task.config, task.setting, task.learner
    learned, cost = _known(task, world)
    if setting == NEITHER:
        learned = Learned(first_dictionary(config, task.truth, task.seed, world.train), torch.zeros(config.m))
    encoder = new_encoder(config, learner, learned.dictionary, task.seed)
    train_encoder(config, setting, learner, encoder, learned.dictionary, world.train)
    cost += config.tokens * task.sizes.encoder_step(learner, setting)
    with torch.no_grad():
        codes = encoder(world.test.x)
    codes = codes if learner == RELU else keep_largest(codes, config.k)
    price = task.sizes.encoding(learner)
    found = {learner: Outcome(_scores(world, learned, codes), price, cost)}
    return found | _refined(task, world, learned, codes, cost) if learner == TOPK else found


def _library_topk(task: Task, world: World) -> dict[str, Outcome]:
    """The library's own TopK autoencoder, which learns an encoder beside its dictionary."""
    config, d = task.config, None if task.truth == DENSE else task.config.d
    settings = TrainConfig(
        n=config.n, d=d, k=config.k, coder="topk", tied=False, unit_norm=True, stretch=1, seed=task.seed,
        tokens=config.tokens, batch=config.batch,
    )  # fmt: skip
    sae = trained(settings, world.train)
    learned = Learned(sae.dictionary, (sae.pre_bias / sae.scale).detach())
    with torch.no_grad():
        codes = sae.encode(world.test.x).to_dense() / sae.scale
    price = task.sizes.encoding(TOPK)
    cost = config.tokens * task.sizes.library_step(TOPK, price)
    found = {TOPK: Outcome(_scores(world, learned, codes), price, cost)}
    return found | _refined(task, world, learned, codes, cost)


def _refined(
    task: Task, world: World, learned: Learned, codes: Float[Tensor, "tokens n"], cost: float
) -> dict[str, Outcome]:
    """Codes after gradient steps from those of an encoder."""
    config, sizes = task.config, task.sizes
    x = world.test.x - learned.offset
    better = descended(learned.dictionary, x, codes, config.refining_steps, config.penalty)
    price = sizes.encoding(TOPK) + sizes.descending(config.refining_steps)
    return {REFINED: Outcome(_scores(world, learned, better), price, cost)}


def _solved(task: Task, world: World) -> dict[str, Outcome]:
    """A coder that solves for the codes of each token; with nothing known, the dictionary learned from its codes."""
    config, sizes, width = task.config, task.sizes, min(task.config.n, WIDTH * task.config.k)
    learned, cost = _known(task, world)
    if task.setting == NEITHER:
        coders: dict[str, Coder] = {
            OMP: Pursuit(config.k),
            OPTIMISED: GradientCodes(width, config.steps, config.penalty),
            LASSO: CoordinateDescent(config.penalty, gap=LEARNING_GAP, k=width),
        }
        used = config.k if task.learner == OMP else width
        learned = with_coder(config, task.truth, task.seed, world.train, coders[task.learner], used)
    codes, price = _code(task, learned, world.test.x - learned.offset)
    if task.setting == NEITHER:
        cost = config.solver_tokens * sizes.library_step(task.learner, price)
    return {task.learner: Outcome(_scores(world, learned, codes), price, cost)}


def _code(task: Task, learned: Learned, x: Float[Tensor, "tokens m"]) -> tuple[Float[Tensor, "tokens n"], float]:
    """Codes over a dictionary, and the multiply-adds per token that they took."""
    config, sizes, dictionary = task.config, task.sizes, learned.dictionary
    with torch.no_grad():
        if task.learner == OMP:
            return Pursuit(config.k)(dictionary, x).to_dense(), sizes.pursuing()
        if task.learner == LASSO:
            codes, price = counted_lasso(dictionary, sizes.entries, x, config.penalty)
            return codes.to_dense(), price
        zeros = x.new_zeros(len(x), config.n)
        return descended(dictionary, x, zeros, config.steps, config.penalty), sizes.descending(config.steps)


def _known(task: Task, world: World) -> tuple[Learned, float]:
    """The dictionary that follows from what is known, and its cost: least squares from codes, or the true one, free."""
    config = task.config
    if task.setting == KNOWN_CODES:
        return from_codes(config, task.truth, world.train), task.sizes.least_squares(config.samples)
    return Learned(world.dictionary, torch.zeros(config.m)), 0.0


def _scores(world: World, learned: Learned, codes: Float[Tensor, "tokens n"]) -> Scores:
    return scores_of(world, learned.dictionary.to_dense().detach().T, learned.offset, codes)


STUDY = Study(CodingConfig, run)
