"""What a frontier says: every dictionary, pictures of what it keeps over what it takes, and who wins where."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rich.filesize import decimal

from expander_sae.evaluation import Interval
from expander_sae.reporting.charts import Axis, Family, Picture, Point, family_chart, short
from expander_sae.reporting.report import Report
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
from expander_sae.studies.frontier.config import FrontierConfig
from expander_sae.studies.frontier.contestants import CODERS, EXPANDERS, FAMILIES, PRODUCTS, REFERENCE, ROUNDED
from expander_sae.studies.study import notes_of

ROUNDING = 1.05
"""How much larger than the expander dictionary a rival may be: sizes come in whole columns and whole ranks."""
BUDGETS = {"learned values": "learned_values", "bytes": "bytes_on_disk"}
"""What is held equal, and the count that says it."""
EXPANDER_WINS, RIVAL_WINS, UNCLEAR, ALONE = "expander", "rival", "unclear", "no rival as small"
"""What a comparison can come to."""


class Measure(NamedTuple):
    """A measure that pictures and verdicts are made of."""

    name: str
    column: str
    """What records call it."""
    short: str
    """What a table calls it."""
    label: str
    lower_is_better: bool
    percent: bool

    def of(self, row: Record) -> Interval:
        """The number of a dictionary."""
        return row[self.column]

    def better(self, one: Interval, other: Interval) -> bool:
        """Whether one number is better than another."""
        return one.value < other.value if self.lower_is_better else one.value > other.value

    def clearly_better(self, one: Interval, other: Interval) -> bool:
        """Whether it is better and the intervals lie apart; without intervals whether it is better."""
        if any(math.isnan(each.low) for each in (one, other)):
            return self.better(one, other)
        return one.high < other.low if self.lower_is_better else one.low > other.high


FVU = Measure("fvu", "fvu", "FVU", "share of the variance left unexplained (FVU)", True, False)
RECOVERED = Measure(
    "recovered", "recovered_mean", "CE recovered", "cross-entropy recovered, against the mean", False, True
)
RETENTION = Measure(
    "retention", "retention", "retention", "retention: CE recovered, as a share of the dense one's", False, True
)
NEVER_FIRED = Measure("never_fired", "never_fired", "never fired", "features that never fired", True, True)
TOKEN_R2 = Measure("token_r2", "token_r2", "token R2", "token R2 of features", False, False)
COHERENCE = Measure(
    "coherence", "coherence_strongest", "coherence", "coherence of activations, strongest contexts", False, False
)
MEASURES = (FVU, RECOVERED, RETENTION, NEVER_FIRED, TOKEN_R2, COHERENCE)
DECISIVE = (FVU, RECOVERED, TOKEN_R2, COHERENCE)
"""Measures by which somebody wins."""
READABLE = (TOKEN_R2, COHERENCE)
"""Measures of readability, each drawn over FVU."""


def report_of(comparison: Comparison[FrontierConfig]) -> Report:
    """The report; dictionaries over all seeds."""
    rows = over_seeds(comparison.records, ("family", "name", "coder"))
    words = {**comparison.words, "reference": REFERENCE, "rounding": ROUNDING - 1}
    sections = [*(["Planted"] * comparison.config.synthetic), *(["Readability"] * comparison.config.readability)]
    return Report(
        name="frontier",
        title="Frontier: what dictionaries keep over what they take",
        findings=findings(rows),
        tables={"Every dictionary": table_of(rows), "Who wins where": verdict_table(rows)},
        notes=notes_of(__package__, *sections, **words),
        pictures=pictures_of(rows),
        facts=comparison.facts,
        rows=[row.row("fvu", "never_fired", *OPTIONAL.values(), *READABILITY.values()) for row in rows],
    )


def measures_of(rows: Sequence[Record]) -> list[Measure]:
    """Those that there are numbers for."""
    return [each for each in MEASURES if was_asked(rows, each.column)]


def _name(row: Record) -> str:
    return str(row.labels["name"])


def table_of(rows: Sequence[Record]) -> Table:
    """The comparison, a row for every dictionary and coder."""
    return Table.of(rows, {
        "dictionary": _name,
        "coder": lambda row: row.labels["coder"],
        "learned values": lambda row: row.counts["learned_values"],
        "on disk": lambda row: decimal(row.counts["bytes_on_disk"]),
        "multiply-adds": lambda row: short(row.counts["multiply_adds"]),
        "FVU": lambda row: row["fvu"],
        "never fired": lambda row: Percent(row["never_fired"]),
        **optional_columns(rows),
    })  # fmt: skip


def pictures_of(rows: Sequence[Record]) -> dict[str, Picture]:
    """Every measure over either budget, and what features tell a reader over what is explained."""
    measures = measures_of(rows)
    over_budgets = {
        f"{budget.split()[-1]}_{measure.name}": picture_of(rows, budget, measure)
        for budget in BUDGETS
        for measure in measures
    }
    return {**over_budgets, **{f"fvu_{each.name}": map_of(rows, each) for each in READABLE if each in measures}}


def map_of(rows: Sequence[Record], measure: Measure) -> Picture:
    """A measure of readability over FVU; a line for all of one family under one coder."""
    families = []
    for family in FAMILIES:
        for coder in CODERS:
            members = [row for row in rows if row.is_called(family=family, coder=coder)]
            known = [row for row in members if not math.isnan(measure.of(row).value)]
            points = [_point(row, row["fvu"].value, measure) for row in known]
            families.append(Family(f"{family}, {coder}", sorted(points, key=lambda point: point.x)))
    drawn = [family for family in families if family.points]
    return family_chart(drawn, Axis(FVU.label), Axis(measure.label)).titled(
        "Fidelity against readability", "Further left explains more, further up tells a reader more."
    )


def picture_of(rows: Sequence[Record], budget: str, measure: Measure) -> Picture:
    """A measure over what is held equal; each dictionary under whichever coder is better for it."""
    families = []
    for family in FAMILIES:
        under = grouped([row for row in rows if row.labels["family"] == family], ("name",))
        members = [best for each in under.values() if (best := _best(each, measure)) is not None]
        points = [_point(row, row.counts[BUDGETS[budget]], measure) for row in members]
        # Rounded and product-quantised ones are no line that one walks along: each is a choice of its own.
        label = "" if family in (ROUNDED, PRODUCTS) else family
        families.append(Family(label, sorted(points, key=lambda point: point.x)))
    label = "bytes on disk" if budget == "bytes" else budget
    return family_chart(
        [family for family in families if family.points], Axis(label, log=True),
        Axis(measure.label, percent=measure.percent),
    )  # fmt: skip


def _point(row: Record, x: float, measure: Measure) -> Point:
    number = measure.of(row)
    name = _name(row).removeprefix("expander ").removeprefix("dense ")
    return Point(name, x, number.value, number.low, number.high)


@dataclass(frozen=True)
class Verdict:
    """An expander dictionary beside the best rival of at most its size."""

    expander: Record
    budget: str
    measure: Measure
    rival: Record | None

    @property
    def outcome(self) -> str:
        """Who wins; unclear where the intervals meet."""
        if self.rival is None:
            return ALONE
        ours, theirs = self.measure.of(self.expander), self.measure.of(self.rival)
        if self.measure.clearly_better(ours, theirs):
            return EXPANDER_WINS
        return RIVAL_WINS if self.measure.clearly_better(theirs, ours) else UNCLEAR


def verdicts(rows: Sequence[Record]) -> list[Verdict]:
    """One for every expander dictionary, budget and measure, all under whichever coder is better by the measure."""
    measures = [measure for measure in measures_of(rows) if measure in DECISIVE]
    ours = [row for row in rows if row.labels["family"] in EXPANDERS]
    rivals = [row for row in rows if row.labels["family"] not in EXPANDERS]
    found = []
    for budget, size in BUDGETS.items():
        for name in dict.fromkeys(_name(row) for row in ours):
            for measure in measures:
                expander = _best([row for row in ours if _name(row) == name], measure)
                if expander is not None:
                    small = [row for row in rivals if row.counts[size] <= ROUNDING * expander.counts[size]]
                    found.append(Verdict(expander, budget, measure, _best(small, measure)))
    return found


def _best(rows: Sequence[Record], measure: Measure) -> Record | None:
    known = [row for row in rows if not math.isnan(measure.of(row).value)]
    return min(known, key=lambda row: measure.of(row).value * (1 if measure.lower_is_better else -1), default=None)


def verdict_table(rows: Sequence[Record]) -> Table:
    """Every comparison, a line each."""

    def size(verdict: Verdict) -> str:
        count = verdict.expander.counts[BUDGETS[verdict.budget]]
        return decimal(count) if verdict.budget == "bytes" else f"{count:,}"

    def number(verdict: Verdict, row: Record | None) -> Interval | Percent | str:
        if row is None:
            return "–"
        return Percent(verdict.measure.of(row)) if verdict.measure.percent else verdict.measure.of(row)

    return Table.of(verdicts(rows), {
        "expander": lambda each: _name(each.expander),
        "at equal": lambda each: each.budget,
        "size": size,
        "coder": lambda each: each.expander.labels["coder"],
        "measure": lambda each: each.measure.short,
        "its number": lambda each: number(each, each.expander),
        "best rival": lambda each: "–" if each.rival is None else f"{_name(each.rival)}, {each.rival.labels['coder']}",
        "the rival's number": lambda each: number(each, each.rival),
        "who wins": lambda each: each.outcome,
    })  # fmt: skip


def findings(rows: Sequence[Record]) -> list[str]:
    """Who wins at which budget, in one sentence for each measure."""
    found = verdicts(rows)
    lines = []
    for measure in dict.fromkeys(verdict.measure for verdict in found):
        for budget in BUDGETS:
            of_both = [each for each in found if (each.measure, each.budget) == (measure, budget)]
            lines.append(f"At equal {budget}, by {measure.label}: {_outcomes(of_both)}.")
    if was_asked(rows, TOKEN_R2.column):
        best = ", ".join(f"{_name(row)} under {row.labels['coder']}" for row in unbeaten(rows))
        lines.append(f"Nothing of as few bytes is better both by FVU and by token R2 than {best}.")
    return lines


def unbeaten(rows: Sequence[Record]) -> list[Record]:
    """Those that no other one of at most as many bytes beats in both what is explained and what features tell."""
    known = [row for row in rows if not math.isnan(row[TOKEN_R2.column].value)]

    def beats(one: Record, other: Record) -> bool:
        no_larger = one.counts["bytes_on_disk"] <= other.counts["bytes_on_disk"]
        return no_larger and all(each.better(each.of(one), each.of(other)) for each in (FVU, TOKEN_R2))

    return [row for row in known if not any(beats(other, row) for other in known)]


def _outcomes(found: Sequence[Verdict]) -> str:
    """Where who wins, by the names of the expander dictionaries."""

    def where(outcome: str) -> str:
        return ", ".join(_name(each.expander).removeprefix("expander ") for each in found if each.outcome == outcome)

    parts = {
        EXPANDER_WINS: "the expander dictionary wins at {}",
        UNCLEAR: "no clear winner at {}",
        RIVAL_WINS: "another wins at {}",
        ALONE: "nothing else is as small at {}",
    }
    said = [words.format(where(outcome)) for outcome, words in parts.items() if where(outcome)]
    rivals = [str(each.rival.labels["family"]) for each in found if each.outcome == RIVAL_WINS and each.rival]
    return "; ".join(said) + (f" ({', '.join(dict.fromkeys(rivals))})" if rivals else "")
