"""The report of sparse coding: a row for every coder in every world and setting, and scores over what they cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

from scipy.stats import t as student

from expander_sae.evaluation.results import Estimate
from expander_sae.experiments.report_files import Report
from expander_sae.reporting.charts import Axis, Picture, Point, point_chart, short
from expander_sae.reporting.tables import Cell, Table, estimate_cell
from expander_sae.studies.coding.config import CODERS, KNOWN_DICTIONARY, MLP, NEITHER, REFINED, RELU, TOPK, CodingConfig
from expander_sae.studies.coding.run import LEARNING_GAP, WIDTH, CodingResult, Outcome
from expander_sae.studies.coding.world import USED

NAME = "coding"
"""What the files of the report are called, the ending aside."""
PER_TOKEN, TO_LEARN = "multiply-adds for the codes of a token", "multiply-adds to learn, in all"
ENCODERS = (TOPK, RELU, MLP)
"""Coders that make codes in one go."""


@dataclass(frozen=True)
class Row:
    """A coder under a setting: means over seeds with Student's 95 % intervals, which one seed alone does not have."""

    truth: str
    setting: str
    coder: str
    features: Estimate
    """Nan where the dictionary was given."""
    codes: Estimate
    precision: Estimate
    recall: Estimate
    error: Estimate
    inference: float
    """Multiply-adds for the codes of a token."""
    training: float
    """Multiply-adds to learn, in all."""


def rows_of(result: CodingResult) -> list[Row]:
    """A row for every world, setting and coder, in the order of the config and of CODERS."""
    groups = dict[tuple[str, str, str], list[Outcome]]()
    for each in result.measured:
        groups.setdefault((each.truth, each.setting, each.coder), []).append(each.outcome)
    truths, settings = result.config.truths, result.config.settings
    return sorted(
        (_row(*labels, outcomes) for labels, outcomes in groups.items()),
        key=lambda row: (truths.index(row.truth), settings.index(row.setting), CODERS.index(row.coder)),
    )


def _row(truth: str, setting: str, coder: str, outcomes: Sequence[Outcome]) -> Row:
    def over(score: Callable[[Outcome], float]) -> Estimate:
        return over_seeds([score(outcome) for outcome in outcomes])

    given = setting == KNOWN_DICTIONARY
    return Row(
        truth=truth,
        setting=setting,
        coder=coder,
        features=Estimate(*[math.nan] * 3) if given else over(lambda each: each.scores.features),
        codes=over(lambda each: each.scores.codes),
        precision=over(lambda each: each.scores.precision),
        recall=over(lambda each: each.scores.recall),
        error=over(lambda each: each.scores.error),
        inference=fmean(each.inference for each in outcomes),
        training=fmean(each.training for each in outcomes),
    )


def over_seeds(numbers: Sequence[float]) -> Estimate:
    """The mean, and Student's 95 % interval for the mean over all seeds."""
    mean = fmean(numbers)
    if len(numbers) < 2:
        return Estimate(mean, math.nan, math.nan)
    half = float(student.ppf(0.975, len(numbers) - 1)) * stdev(numbers) / math.sqrt(len(numbers))
    return Estimate(mean, mean - half, mean + half)


def write_report(result: CodingResult) -> Path:
    """Write coding.json, .csv and .md and the pictures into the folder; the path of the Markdown."""
    rows = rows_of(result)
    return Report(
        name=NAME,
        title="Sparse coding: encoders and dictionaries apart",
        findings=sentences(rows),
        tables={"Every coder": table_of(rows)},
        notes=notes(result),
        pictures=pictures_of(result, rows),
        facts={
            "settings": result.config.to_json(),
            "seconds": {stage: round(seconds) for stage, seconds in result.seconds.items()},
        },
        rows=rows,
    ).write(result.config.out)


def sentences(rows: Sequence[Row]) -> list[str]:
    """In every world and setting, the best encoder beside the best coder that solves for each token."""
    lines = []
    for truth, setting in dict.fromkeys((row.truth, row.setting) for row in rows):
        here = [row for row in rows if (row.truth, row.setting) == (truth, setting)]
        best = [max((row for row in here if (row.coder in ENCODERS) == one_go), key=lambda row: row.codes.value)
                for one_go in (True, False)]  # fmt: skip
        said = [f"{row.coder} {row.codes.value:.3f} for {short(row.inference)} multiply-adds a token" for row in best]
        gap = best[1].codes.value - best[0].codes.value
        lines.append(
            f"{truth.capitalize()} truth, {setting}: the best encoder by its codes is {said[0]}, the best solver "
            f"{said[1]}: a gap of {gap:.3f}."
        )
    return lines


def table_of(rows: Sequence[Row]) -> Table:
    """A line for every coder in every world and setting."""
    headings = [Cell(each) for each in ("truth, known", "coder", "features", "codes", "precision", "recall", "error")]
    headings += [Cell("cost", terse="a token"), Cell("cost", terse="to learn")]
    return Table(headings, [_cells(row) for row in rows])


def _cells(row: Row) -> list[Cell]:
    estimates = (row.features, row.codes, row.precision, row.recall, row.error)
    costs = [Cell(short(row.inference)), Cell(short(row.training))]
    return [
        Cell(f"{row.truth}, {row.setting.removeprefix('known ')}"),
        Cell(row.coder),
        *(estimate_cell(each) for each in estimates),
        *costs,
    ]


def pictures_of(result: CodingResult, rows: Sequence[Row]) -> dict[str, Picture]:
    """By setting and truth: codes over their price; where columns are learned, columns over what learning cost."""
    pictures = dict[str, Picture]()
    for setting in result.config.settings:
        for truth in result.config.truths:
            here = [row for row in rows if (row.setting, row.truth) == (setting, truth)]
            name = f"{setting.replace(' ', '_')}_{truth}"
            where = f"{truth}, {setting}" + (" known" if setting == NEITHER else "")
            label = f"codes: correlation with the truth ({where})"
            pictures[f"{name}_codes"] = _picture(here, PER_TOKEN, label, lambda row: (row.inference, row.codes))
            if setting == NEITHER:
                learned = [row for row in here if row.coder != REFINED]  # which has the columns of topk
                label = f"columns: cosine with the truth ({where})"
                pictures[f"{name}_columns"] = _picture(
                    learned, TO_LEARN, label, lambda row: (row.training, row.features)
                )
    return pictures


def _picture(rows: Sequence[Row], cost: str, label: str, of: Callable[[Row], tuple[float, Estimate]]) -> Picture:
    points = []
    for row in rows:
        price, score = of(row)
        low, high = (score.low, min(1.0, score.high)) if math.isfinite(score.low) else (math.nan, math.nan)
        points.append(Point(row.coder, price, score.value, low, high))
    return point_chart(points, Axis(cost, log=True), Axis(label))


def notes(result: CodingResult) -> list[str]:
    """How to read the table and the pictures, and what must not be concluded."""
    return [*_about_data(result.config), *_about_coders(result.config), *_about_costs()]


def _about_data(config: CodingConfig) -> list[str]:
    return [
        f"m = {config.m}, n = {config.n}, k = {config.k}, coefficients uniform between 0.5 and 1.5, noise "
        f"{config.noise:.0%} of the norm; unit columns with normal values, dense or with d = {config.d} entries. "
        f"{len(config.seeds)} seed{'s' * (len(config.seeds) > 1)}, each with another world, learning and "
        f"{config.test_tokens:,} test tokens; intervals are Student's, 95 %, over seeds.",
        "Known codes: columns by least squares, encoders learn to give back the codes. Known dictionary: encoders "
        "learn to reconstruct over the true columns. Neither: columns are learned as well, dense ones if the truth is "
        "dense, expander ones that find their rows themselves if it is not.",
        "Features: mean cosine between true and learned columns under the best one-to-one matching. Codes: mean "
        "correlation over tokens under a matching of its own. Precision and recall are of the features used after "
        f"that matching, counted as used above {USED:g}. Error: squared norm left over, as a share of the "
        "activations'.",
    ]


def _about_coders(config: CodingConfig) -> list[str]:
    return [
        "topk, relu: linear encoders on the support of the dictionary, with a bias; relu under an l1 penalty, keeping "
        f"all that is positive. mlp: topk with {config.hidden} hidden units beside its linear encoder. topk under "
        f"'{NEITHER}' is the library's own autoencoder.",
        f"optimised: {config.steps} accelerated gradient steps on the lasso from zero; topk+optimised: "
        f"{config.refining_steps} from the codes of topk. lasso: coordinate descent to the end. All with a penalty of "
        f"{config.penalty:g} of the largest useful one, which shrinks codes and so costs error, and no limit on how "
        "many are used.",
        f"Dictionaries that learn with omp, optimised and lasso see {config.solver_tokens:,} tokens, the encoders "
        f"{config.tokens:,}; under l1 they learn from the {WIDTH} k largest codes, the lasso solved to a gap of "
        f"{LEARNING_GAP:g}.",
        "With an encoder in the loop, learned rows change only where a feature is dead, as in the library; with a "
        "solver they move. So on an expander truth with nothing known, part of an encoder's gap is that of its rows.",
    ]


def _about_costs() -> list[str]:
    return [
        "Costs are multiply-adds with values of a dictionary or network: m for a dense column, d for an expander one. "
        "Comparisons, the optimizer, restarts and moves of rows are not counted. All by formula, but the lasso's "
        "inference, which is counted while it runs, all tokens in lockstep; its learning is priced by it.",
        "Small planted worlds whose every token is exactly k-sparse up to noise: which coder wins on activations of a "
        "language model is another question.",
    ]
