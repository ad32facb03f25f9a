"""What a study of readability says: a table, maps of fidelity and readability, features at random, and findings."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from expander_sae.evaluation.quality import Quality
from expander_sae.evaluation.results import Interval
from expander_sae.reporting.charts import Axis, Family, Picture, Point, family_chart
from expander_sae.reporting.dot_charts import Dot, DotGroup, dot_chart
from expander_sae.reporting.quality import card_of
from expander_sae.reporting.report import Features, Report
from expander_sae.reporting.tables import Percent, Table
from expander_sae.studies.compare import (
    OPTIONAL,
    READABILITY,
    Comparison,
    Record,
    grouped,
    optional_columns,
    over_seeds,
    was_asked,
)
from expander_sae.studies.readable.config import DENSE, LASSO_GAP, PURSUIT, QUICK, TOPK, ReadableConfig
from expander_sae.studies.readable.priced import ROOM
from expander_sae.studies.study import notes_of

BY = ("name", "rows", "trained_for", "coder", "own")
"""Labels that tell rows apart; seeds are brought together."""
MAIN = {"token R2": "token_r2", "purity": "purity", "coherence": "coherence_strongest"}
"""What the first table and the pictures show of readability."""
FVU = Axis("share of the variance left unexplained (FVU)")
FARTHEST = 1.0
"""FVU from which on a point is left out of a map: nothing is explained."""


def report_of(comparison: Comparison[ReadableConfig], qualities: Sequence[Quality]) -> Report:
    """The report; dictionaries over all seeds."""
    config, rows = comparison.config, over_seeds(comparison.records, BY)
    words = {**comparison.words, "gap": LASSO_GAP, "room": ROOM * config.k, "few": max(1, config.k // 4)}
    measures = ["fvu", "l0", "never_fired", *OPTIONAL.values(), *READABILITY.values()]
    return Report(
        name="readable",
        title="Readability: what makes features tell a reader something",
        findings=findings(rows),
        tables={"What features tell, and what is explained": main_table(rows)},
        further={"Every measure": full_table(rows)},
        notes=notes_of(__package__, *(["One seed"] * (len(config.seeds) == 1)), **words),
        pictures=pictures_of(rows),
        facts=comparison.facts,
        rows=[row.row(*measures) for row in rows],
        features=features_of(comparison, qualities),
    )


def called(row: Record) -> str:
    """The dictionary of a row."""
    rows = "" if row.labels["name"] == DENSE else f", {row.labels['rows']} rows"
    return f"{row.labels['name']}{rows}, {row.labels['trained_for']}"


def main_table(rows: Sequence[Record]) -> Table:
    """A line for every dictionary under every coder."""
    return Table.of(rows, {
        "dictionary": called,
        "read by": lambda row: f"{row.labels['coder']}{' (its own)' * int(row.labels['own'])}",
        "values": lambda row: row.counts["learned_values"],
        "FVU": lambda row: row["fvu"],
        **{heading: _number(measure) for heading, measure in MAIN.items()},
        "fire often": lambda row: Percent(row["fire_often"]),
    })  # fmt: skip


def full_table(rows: Sequence[Record]) -> Table:
    """The same with all that was measured."""
    return Table.of(rows, {
        "dictionary": called,
        "read by": lambda row: row.labels["coder"],
        "L0": lambda row: f"{row['l0'].value:.1f}",
        "FVU": lambda row: row["fvu"],
        **optional_columns(rows),
    })  # fmt: skip


def _number(measure: str) -> Callable[[Record], Interval]:
    return lambda row: row[measure]


def pictures_of(rows: Sequence[Record]) -> dict[str, Picture]:
    """A map for each measure, and every row with its intervals."""
    maps = {
        f"fvu_{measure}": map_of(rows, heading, measure).titled(
            f"Fidelity against {heading}",
            "A line for each dictionary, from coder to coder: further left explains more, further up tells more.",
        )
        for heading, measure in MAIN.items()
        if was_asked(rows, measure)
    }
    return {**maps, "measures": dots_of(rows)} if maps else {}


def map_of(rows: Sequence[Record], heading: str, measure: str) -> Picture:
    """A measure of readability over FVU, a line for every dictionary that meets all coders."""
    families = []
    for name, members in _dictionaries(rows).items():
        known = [row for row in members if not math.isnan(row[measure].value) and row["fvu"].value < FARTHEST]
        if _meets_all(members) and known:
            points = [
                Point(str(row.labels["coder"]), row["fvu"].value, row[measure].value, row[measure].low,
                      row[measure].high) for row in known
            ]  # fmt: skip
            families.append(Family(name, sorted(points, key=lambda point: point.x)))
    families.sort(key=lambda family: -len(family.points))  # points of the first one are named
    return family_chart(families, FVU, Axis(heading))


def dots_of(rows: Sequence[Record]) -> Picture:
    """Every dictionary under every coder, a panel for each measure."""
    panels = {heading: measure for heading, measure in MAIN.items() if was_asked(rows, measure)}

    def dot(row: Record) -> Dot:
        return Dot(str(row.labels["coder"]), [row[measure] for measure in panels.values()])

    groups = [DotGroup(name, [dot(row) for row in members]) for name, members in _dictionaries(rows).items()]
    return dot_chart(groups, list(panels), Axis("")).titled(
        "What features tell a reader", "Every dictionary under every coder; further right is better."
    )


def _dictionaries(rows: Sequence[Record]) -> dict[str, list[Record]]:
    """The rows of each dictionary, by what it is called."""
    return {called(members[0]): members for members in grouped(rows, ("name", "rows", "trained_for")).values()}


def _meets_all(members: Sequence[Record]) -> bool:
    """Whether a dictionary is read by every quick coder, and not only there for its rows."""
    return {row.labels["coder"] for row in members} >= set(QUICK)


def findings(rows: Sequence[Record]) -> list[str]:
    """What the coder does on the same columns, then what the columns do under the same coder."""
    own = [_said(row) for row in rows if row.labels["own"]]
    return [
        *_of_coders(rows),
        *_of_columns(rows),
        f"As they were trained (FVU, token R2, coherence): {'; '.join(own)}.",
    ]


def _said(row: Record) -> str:
    numbers = [row["fvu"], row["token_r2"], row["coherence_strongest"]]
    return f"{called(row)} {', '.join('–' if math.isnan(each.value) else f'{each.value:.3f}' for each in numbers)}"


def _of_coders(rows: Sequence[Record]) -> list[str]:
    """For every dictionary that meets all coders what each of them makes of its columns."""
    found = []
    for name, members in _dictionaries(rows).items():
        if _meets_all(members):
            said = ", ".join(
                f"{row['token_r2'].value:.3f} at {row['fvu'].value:.3f} under {row.labels['coder']}" for row in members
            )
            found.append(f"Token R2 at FVU of the same columns, {name}: {said}.")
    return found


def _of_columns(rows: Sequence[Record]) -> list[str]:
    """What rows and objectives are worth under coders that all dictionaries meet."""
    found = []
    for coder in (TOPK, PURSUIT):
        under = [row for row in rows if row.labels["coder"] == coder]
        best = sorted(
            (row for row in under if not math.isnan(row["token_r2"].value)), key=lambda row: -row["token_r2"].value
        )
        said = ", ".join(f"{called(row)} {row['token_r2'].value:.3f}" for row in best)
        found.append(f"Token R2 under {coder}, the best first: {said or 'of none'}.")
    return found


def features_of(comparison: Comparison[ReadableConfig], qualities: Sequence[Quality]) -> Features | None:
    """Features of every dictionary under its own coder, of the first seed, drawn at random."""
    seed = comparison.config.seeds[0]
    own = [
        (called(record), quality)
        for record, quality in zip(comparison.records, qualities, strict=True)
        if record.labels["own"] and record.labels["seed"] == seed
    ]
    cards = [card_of(name, shown) for name, quality in own for shown in quality.shown]
    about = (
        "Of every dictionary under the coder that it was trained for, drawn at random among the features that are "
        "measured, not chosen; the contexts are the strongest on held-out text, each of another document."
    )
    return Features(about, cards) if cards else None
