"""The report of sparse coding: every coder in every world and setting, and scores over what they cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from operator import itemgetter

from expander_sae.certificates.statements import count
from expander_sae.reporting.charts import Axis, Picture, Point, point_chart, short
from expander_sae.reporting.report import Report
from expander_sae.reporting.tables import Cell, Table
from expander_sae.studies.coding.config import (
    CODERS,
    LEARNING_GAP,
    MLP,
    NEITHER,
    REFINED,
    RELU,
    TOPK,
    WIDTH,
    CodingConfig,
)
from expander_sae.studies.coding.world import USED
from expander_sae.studies.compare import Record, grouped, over_many_seeds, over_seeds
from expander_sae.studies.study import notes_of, settings_of

SCORES = ("features", "codes", "precision", "recall", "error")
"""What is measured of a coder, besides its costs."""
PER_TOKEN, TO_LEARN = "multiply-adds for the codes of a token", "multiply-adds to learn, in all"
ENCODERS = (TOPK, RELU, MLP)
"""Coders that make codes in one go."""


def report_of(config: CodingConfig, records: Sequence[Record], seconds: Mapping[str, int]) -> Report:
    """The report of all records."""
    rows, settings = rows_of(config, records), settings_of(config)
    said = {"used": USED, "per_feature": WIDTH, "gap": LEARNING_GAP, "worlds": count(len(config.seeds), "seed")}
    return Report(
        name="coding",
        title="Sparse coding: encoders and dictionaries apart",
        findings=findings(rows),
        tables={"Every coder": table_of(rows)},
        notes=notes_of(__package__, **settings, **said),
        pictures=pictures_of(config, rows),
        facts={"settings": settings, "seconds": seconds},
        rows=[
            {**row.row(*SCORES), "inference": row["inference"].value, "training": row["training"].value} for row in rows
        ],
    )


def rows_of(config: CodingConfig, records: Sequence[Record]) -> list[Record]:
    """The records over seeds, in the order of the config and of CODERS."""
    order: list[list[str]] = [list(config.truths), config.settings, list(CODERS)]
    labels = ("truth", "setting", "coder")

    def place(row: Record) -> list[int]:
        return [known.index(str(row.labels[label])) for known, label in zip(order, labels, strict=True)]

    return sorted(over_seeds(records, labels, over_many_seeds), key=place)


def findings(rows: Sequence[Record]) -> list[str]:
    """In every world and setting, the best encoder beside the best coder that solves for each token."""

    def said(row: Record) -> str:
        price = short(row["inference"].value)
        return f"{row.labels['coder']} {row['codes'].value:.3f} for {price} multiply-adds a token"

    found = []
    for (truth, setting), here in grouped(rows, ("truth", "setting")).items():
        ranked = sorted(here, key=lambda row: -row["codes"].value)
        encoder = next(row for row in ranked if row.labels["coder"] in ENCODERS)
        solver = next(row for row in ranked if row.labels["coder"] not in ENCODERS)
        found.append(
            f"{str(truth).capitalize()} truth, {setting}: the best encoder by its codes is {said(encoder)}, the best "
            f"solver {said(solver)}: a gap of {solver['codes'].value - encoder['codes'].value:.3f}."
        )
    return found


def table_of(rows: Sequence[Record]) -> Table:
    """A line for every coder in every world and setting."""
    return Table.of(rows, {
        "truth, known": lambda row: f"{row.labels['truth']}, {str(row.labels['setting']).removeprefix('known ')}",
        "coder": lambda row: str(row.labels["coder"]),
        **{score: itemgetter(score) for score in SCORES},
        Cell("cost", terse="a token"): lambda row: short(row["inference"].value),
        Cell("cost", terse="to learn"): lambda row: short(row["training"].value),
    })  # fmt: skip


def pictures_of(config: CodingConfig, rows: Sequence[Record]) -> dict[str, Picture]:
    """By setting and truth: codes over their price; where columns are learned, columns over what learning cost."""
    pictures = dict[str, Picture]()
    for setting in config.settings:
        for truth in config.truths:
            here = [row for row in rows if row.is_called(setting=setting, truth=truth)]
            name = f"{setting.replace(' ', '_')}_{truth}"
            where = f"{truth}, {setting}" + (" known" if setting == NEITHER else "")
            label = f"codes: correlation with the truth ({where})"
            pictures[f"{name}_codes"] = _picture(here, "codes", label, "inference", PER_TOKEN)
            if setting == NEITHER:
                learned = [row for row in here if row.labels["coder"] != REFINED]  # which has the columns of topk
                label = f"columns: cosine with the truth ({where})"
                pictures[f"{name}_columns"] = _picture(learned, "features", label, "training", TO_LEARN)
    return pictures


def _picture(rows: Sequence[Record], score: str, label: str, cost: str, cost_label: str) -> Picture:
    points = []
    for row in rows:
        name, shown = str(row.labels["coder"]), row[score]
        points.append(Point(name, row[cost].value, shown.value, shown.low, _at_most_one(shown.high)))
    return point_chart(points, Axis(cost_label, log=True), Axis(label))


def _at_most_one(end: float) -> float:
    """The upper end of an interval for a score that no coder exceeds; nan where there is no interval."""
    return min(1.0, end) if math.isfinite(end) else math.nan
