"""What a study of supports says: a table, pictures for both coders, and findings never better than the numbers are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from expander_sae.reporting.charts import Axis, Picture
from expander_sae.reporting.dot_charts import Dot, DotGroup, dot_chart
from expander_sae.reporting.report import Report
from expander_sae.reporting.tables import Cell, Percent, Table
from expander_sae.studies.compare import Comparison, Record
from expander_sae.studies.study import notes_of
from expander_sae.studies.supports.config import CLUSTERED, CODERS, DEGENERATE, SPREAD, SupportsConfig

Pairs = Mapping[tuple[str, int], Sequence[int]]
"""How many pairs of columns share 0, 1, ..., d coordinates, of all seeds together, by construction and d."""
FVU = Axis("share of the variance left unexplained (FVU)")
DEAD = Axis("features that never fired", percent=True)
MOST = 0.5
"""Supports that differ by less than this share of what degrees do leave most of the trade-off to the degree; by
more than its inverse, they take it."""


def report_of(
    comparison: Comparison[SupportsConfig], rows: Sequence[Record], pairs: Pairs, absent: Mapping[str, str]
) -> Report:
    """The report; `rows` are the records over seeds."""
    d = comparison.config.d
    return Report(
        name="supports",
        title="Supports: where the values of a column are, beside how many there are",
        findings=findings(rows, d),
        tables={"Every support": table_of(rows, pairs)},
        notes=[
            *notes_of(__package__, *comparison.sections, **comparison.words),
            *(f"No {name}: {why}" for name, why in absent.items()),
        ],
        pictures={"fvu": picture_of(rows, d, "fvu", FVU), "dead": picture_of(rows, d, "never_fired", DEAD)},
        facts={**comparison.facts, "absent": dict(absent)},
        rows=[
            {
                **row.row("fvu", "never_fired", "distinct", "uncovered"),
                "largest_overlap": _largest(_pairs(row, pairs)),
                "overlaps": _shares(_pairs(row, pairs)),
            }
            for row in rows
        ],
        further={"Pairs of columns by how many coordinates they share": overlap_table(pairs)},
    )


def _pairs(row: Record, pairs: Pairs) -> Sequence[int]:
    return pairs[str(row.labels["construction"]), int(row.labels["d"])]


def _shares(counts: Sequence[int]) -> list[float]:
    return [count / max(1, sum(counts)) for count in counts]


def _largest(counts: Sequence[int]) -> int:
    return max((overlap for overlap, count in enumerate(counts) if count), default=0)


def table_of(rows: Sequence[Record], pairs: Pairs) -> Table:
    """A line for every support under every coder."""
    return Table.of(rows, {
        "support": _construction,
        "d": lambda row: row.labels["d"],
        "coder": lambda row: row.labels["coder"],
        "FVU": lambda row: row["fvu"],
        "never fired": lambda row: Percent(row["never_fired"]),
        "distinct": lambda row: f"{row['distinct'].value:.1%}",
        "largest overlap": lambda row: _largest(_pairs(row, pairs)),
        "2 or more shared": lambda row: f"{sum(_shares(_pairs(row, pairs))[2:]):.2%}",
        "uncovered": lambda row: f"{row['uncovered'].value:.3g}",
    })  # fmt: skip


def _construction(row: Record) -> str:
    return str(row.labels["construction"])


def overlap_table(pairs: Pairs) -> Table:
    """The overlap histogram of every support."""
    most = max(len(counts) for counts in pairs.values())
    lines = []
    for (construction, d), counts in pairs.items():
        shares = [f"{share:.3%}" if share else "–" for share in _shares(counts)] + ["–"] * (most - len(counts))
        lines.append([Cell(each) for each in (construction, str(d), *shares)])
    return Table([Cell(each) for each in ("support", "d", *map(str, range(most)))], lines)


def picture_of(rows: Sequence[Record], d: int, measure: str, axis: Axis) -> Picture:
    """A measure of every support, under both coders: spread ones, then controls, then uniform ones of other degrees."""
    groups = {
        f"rows spread, d={d}": [row for row in rows if _construction(row) in SPREAD and row.labels["d"] == d],
        f"clustered, d={d}": [row for row in rows if _construction(row).startswith(CLUSTERED)],
        f"degenerate, d={d}": [row for row in rows if _construction(row) in DEGENERATE],
        "uniform": [row for row in rows if row.labels["d"] != d],
    }
    shown = [DotGroup(name, _dots(members, d, measure)) for name, members in groups.items() if members]
    return dot_chart(shown, CODERS, axis)


def _dots(rows: Sequence[Record], d: int, measure: str) -> list[Dot]:
    found = {(_construction(row), row.labels["d"], row.labels["coder"]): row[measure] for row in rows}
    return [
        Dot(name if degree == d else f"d={degree}", [found[name, degree, coder] for coder in CODERS])
        for name, degree in dict.fromkeys((_construction(row), row.labels["d"]) for row in rows)
    ]


def findings(rows: Sequence[Record], d: int) -> list[str]:
    """For each coder: is it the degree that decides, do clusters kill features, and which controls are worse."""
    found = []
    for coder in CODERS:
        here = [row for row in rows if row.labels["coder"] == coder]
        at_d = [row for row in here if row.labels["d"] == d]
        spread = [row for row in at_d if _construction(row) in SPREAD]
        found.append(_degrees(coder, spread, [row for row in here if _construction(row) == "uniform"]))
        found.append(_deaths(coder, spread, [row for row in at_d if _construction(row).startswith(CLUSTERED)]))
        found.append(_worse(coder, spread, [row for row in at_d if _construction(row) not in SPREAD]))
    return found


def _degrees(coder: str, spread: Sequence[Record], line: Sequence[Record]) -> str:
    """Constructions that spread their rows beside degrees."""
    best, worst = _ends(spread)
    low, high = _ends(line)
    between, over = worst["fvu"].value - best["fvu"].value, high["fvu"].value - low["fvu"].value
    said = (
        f"Under {coder}, {len(spread)} constructions that spread their rows lie between FVU {best['fvu'].value:.3f} "
        f"({_construction(best)}) and {worst['fvu'].value:.3f} ({_construction(worst)}), uniform supports of "
        f"d={low.labels['d']} and d={high.labels['d']} at {low['fvu'].value:.3f} and {high['fvu'].value:.3f}"
    )
    if over <= 0:
        return f"{said}: there is no spread over degrees to compare with."
    share = between / over
    verdict = "how many values a column has" if share < MOST else "where they are, as much as how many,"
    verdict = verdict if share < 1 / MOST else "where they are, more than how many,"
    return f"{said}: {share:.1%} of that spread, so {verdict} decides here."


def _ends(rows: Sequence[Record]) -> tuple[Record, Record]:
    """The best and the worst by FVU."""
    return min(rows, key=lambda row: row["fvu"].value), max(rows, key=lambda row: row["fvu"].value)


def _deaths(coder: str, spread: Sequence[Record], clustered: Sequence[Record]) -> str:
    """Clustered supports beside all that spread their rows, by features that never fired."""
    if not clustered:
        return f"Under {coder} there is no clustered support at this size."
    means = [row["never_fired"].value for row in spread]
    sizes = {_construction(row).partition(":")[2]: row["never_fired"] for row in clustered}
    listed = ", ".join(f"{dead.value:.1%} in clusters of {size}" for size, dead in sizes.items())
    more = [size for size, dead in sizes.items() if dead.low > max(row["never_fired"].high for row in spread)]
    found = f"more with every seed in clusters of {', '.join(more)}" if more else "not clearly more in any of them"
    return (
        f"Features that never fired under {coder}: {min(means):.1%} to {max(means):.1%} where rows are spread, "
        f"{listed}: {found}."
    )


def _worse(coder: str, spread: Sequence[Record], controls: Sequence[Record]) -> str:
    """Controls that reconstruct worse than all that spread their rows, with every seed, and those that do not."""

    def listed(rows: Sequence[Record]) -> str:
        return ", ".join(f"{_construction(row)} {row['fvu'].value:.3f}" for row in rows) or "none of them"

    highest = max(row["fvu"].high for row in spread)
    worse = [row for row in controls if row["fvu"].low > highest]
    rest = [row for row in controls if row not in worse]
    return (
        f"Worse by FVU with every seed than any of those with any seed (up to {highest:.3f}), under {coder}: "
        f"{listed(worse)}; not clearly worse: {listed(rest)}."
    )
