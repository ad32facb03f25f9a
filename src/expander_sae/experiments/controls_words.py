"""What a study of supports says in words: never better than the numbers are."""

from __future__ import annotations

from collections.abc import Sequence

from expander_sae.experiments.controls import ControlsResult
from expander_sae.experiments.controls_config import CLUSTERED, CODERS, SPREAD
from expander_sae.experiments.controls_rows import Row

MOST = 0.5
"""Supports that differ by less than this share of what degrees do leave most of the trade-off to the degree; by
more than its inverse, they take it."""


def sentences(rows: Sequence[Row], d: int) -> list[str]:
    """For each coder: is it the degree that decides, do clusters kill features, and which controls are worse."""
    lines = []
    for coder in CODERS:
        here = [row for row in rows if row.coder == coder]
        at_d = [row for row in here if row.d == d]
        spread = [row for row in at_d if row.construction in SPREAD]
        lines.append(_degrees(coder, spread, [row for row in here if row.construction == "uniform"]))
        lines.append(_deaths(coder, spread, [row for row in at_d if row.construction.startswith(CLUSTERED)]))
        lines.append(_worse(coder, spread, [row for row in at_d if row.construction not in SPREAD]))
    return lines


def _degrees(coder: str, spread: Sequence[Row], line: Sequence[Row]) -> str:
    """Constructions that spread their rows beside degrees."""
    best, worst = _ends(spread)
    low, high = _ends(line)
    between, over = worst.fvu.value - best.fvu.value, high.fvu.value - low.fvu.value
    said = (
        f"Under {coder}, {len(spread)} constructions that spread their rows lie between FVU {best.fvu.value:.3f} "
        f"({best.construction}) and {worst.fvu.value:.3f} ({worst.construction}), uniform supports of d={low.d} and "
        f"d={high.d} at {low.fvu.value:.3f} and {high.fvu.value:.3f}"
    )
    if over <= 0:
        return f"{said}: there is no spread over degrees to compare with."
    share = between / over
    verdict = "how many values a column has" if share < MOST else "where they are, as much as how many,"
    verdict = verdict if share < 1 / MOST else "where they are, more than how many,"
    return f"{said}: {share:.1%} of that spread, so {verdict} decides here."


def _ends(rows: Sequence[Row]) -> tuple[Row, Row]:
    """The best and the worst by FVU."""
    return min(rows, key=lambda row: row.fvu.value), max(rows, key=lambda row: row.fvu.value)


def _deaths(coder: str, spread: Sequence[Row], clustered: Sequence[Row]) -> str:
    """Clustered supports beside all that spread their rows, by features that never fired."""
    if not clustered:
        return f"Under {coder} there is no clustered support at this size."
    means = [row.dead.value for row in spread]
    sizes = {row.construction.partition(":")[2]: row for row in clustered}
    listed = ", ".join(f"{row.dead.value:.1%} in clusters of {size}" for size, row in sizes.items())
    more = [size for size, row in sizes.items() if row.dead.low > max(row.dead.high for row in spread)]
    found = f"more with every seed in clusters of {', '.join(more)}" if more else "not clearly more in any of them"
    return (
        f"Features that never fired under {coder}: {min(means):.1%} to {max(means):.1%} where rows are spread, "
        f"{listed}: {found}."
    )


def _worse(coder: str, spread: Sequence[Row], controls: Sequence[Row]) -> str:
    """Controls that reconstruct worse than all that spread their rows, with every seed, and those that do not."""

    def listed(rows: Sequence[Row]) -> str:
        return ", ".join(f"{row.construction} {row.fvu.value:.3f}" for row in rows) or "none of them"

    highest = max(row.fvu.high for row in spread)
    worse = [row for row in controls if row.fvu.low > highest]
    rest = [row for row in controls if row not in worse]
    return (
        f"Worse by FVU with every seed than any of those with any seed (up to {highest:.3f}), under {coder}: "
        f"{listed(worse)}; not clearly worse: {listed(rest)}."
    )


def notes(result: ControlsResult) -> list[str]:
    """How to read the table, and what must not be concluded."""
    config, evaluation = result.config, result.cells[0].evaluation
    planted = (
        "Planted activations: columns of random coordinates whose entries fall off by a power law. No coordinate is "
        "nearer to another there, so this says how supports compare without structure, and nothing about any model."
    )
    return [
        *([planted] if config.synthetic else []),
        f"{result.base.n:,} features of d={config.d}, k={config.k}, {result.base.tokens:,} tokens to train on, "
        f"{len(config.seeds)} seed{'s' * (len(config.seeds) > 1)}; measured on {evaluation.tokens:,} held-out tokens "
        f"of {evaluation.documents:,} documents. All dictionaries see the same batches; rows stay where they are.",
        "Numbers are means over seeds, their intervals from the lowest to the highest. Each dictionary is measured "
        "with the coder that it was trained with.",
        *(["With one seed there are no intervals, so small differences may be chance."] * (len(config.seeds) == 1)),
        "clustered:16 has clusters of 16 coordinates (a few more where m is no multiple). Never fired: on no held-out "
        "token. Distinct: different sets of coordinates, as a share of the columns. Overlaps are of pairs of "
        "columns. Uncovered: coordinates that no column touches.",
        *(f"No {name}: {why}" for name, why in result.absent.items()),
    ]
