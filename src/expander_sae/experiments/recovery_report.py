"""The report of a study of recovery: where every coder stops, all cells, and one picture of small multiples."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from expander_sae.experiments.report_files import Report

from expander_sae.evaluation.results import Estimate
from expander_sae.experiments.recovery import RecoveryResult, Strip
from expander_sae.experiments.recovery_config import VOTING
from expander_sae.experiments.recovery_rows import Transition, clopper_pearson, half_of, rows_of, transition_of
from expander_sae.experiments.recovery_theory import l1_threshold, voting_threshold
from expander_sae.experiments.recovery_words import notes, sentences
from expander_sae.reporting.charts import Picture
from expander_sae.reporting.heat_maps import Curve, Grid, HeatMap, heat_maps
from expander_sae.reporting.tables import Cell, Table

NAME = "recovery"
"""What the files of the report are called, the ending aside."""
MEASURED = "measured: half of the tokens"
PROVED = "proved: every support, by this dictionary's coherence sums (TopK: with these coefficients)"
CONDITION = "measured: half of random sets, every code on them proved (exact recovery condition)"
LIMIT = "no dictionary of this size has a coherence certificate beyond (Welch)"
EVOLUTION = "predicted for large m: rounds of votes (density evolution)"
POLYTOPE = "predicted for large m: l1 with Gaussian columns (Donoho and Tanner)"


def write_report(result: RecoveryResult) -> Path:
    """Write recovery.json, .csv and .md and the picture into the folder; the path of the Markdown."""
    transitions = [transition_of(result, strip) for strip in result.strips]
    return Report(
        name=NAME,
        title="Recovery: how many active features can be found exactly",
        findings=sentences(result, transitions),
        tables={
            "Where half of the tokens are recovered, as k / m": transition_table(result, transitions),
            "What is known beforehand, as k / m": theory_table(result),
        },
        notes=notes(result),
        pictures={"phases": picture_of(result, transitions)},
        facts=_facts(result, transitions),
        rows=rows_of(result),
        further={"Every cell: tokens recovered, and 95 % intervals": cell_table(result)},
    ).write(result.config.out)


def transition_table(result: RecoveryResult, transitions: Sequence[Transition]) -> Table:
    """A line for every dictionary of every size, a column for every coder."""
    found = {(each.dictionary, each.n_over_m, each.coder): each for each in transitions}
    coders, config = result.config.coders, result.config
    lines = []
    for name, n in result.certificates:
        there = [found.get((name, n / config.m, coder)) for coder in coders]
        cells = [None if each is None else each.k_over_m for each in there]
        lines.append([Cell(name), Cell(f"{n / config.m:g}"), *(_place(result, cell) for cell in cells)])
    return Table([Cell(heading) for heading in ("dictionary", "n / m", *coders)], lines)


def _place(result: RecoveryResult, where: Estimate | None) -> Cell:
    if where is None:
        return Cell("–")
    first, last = result.config.active[0] / result.config.m, result.config.active[-1] / result.config.m

    def shown(place: float) -> str:
        return f"<{first:.3f}" if place == 0 else f">{last:.3f}" if math.isinf(place) else f"{place:.3f}"

    return Cell(shown(where.value), terse=f"({shown(where.low)}–{shown(where.high)})")


def theory_table(result: RecoveryResult) -> Table:
    """What is proved of every dictionary, and what is predicted."""
    config, lines = result.config, []
    for (name, n), known in result.certificates.items():
        votes = "–" if known.agree is None else f"{voting_threshold(config.d, known.agree):.3f} ({known.agree})"
        shares = [known.omp_k, known.topk_k, known.welch_k]
        cells = [name, f"{n / config.m:g}", f"{known.coherence:.3f}", *(f"{k / config.m:.3f} ({k})" for k in shares)]
        half = _place(result, half_of(config, known.condition, config.sets))
        cells += [votes, f"{l1_threshold(config.m / n, signed=config.signed):.3f}"]
        lines.append([*(Cell(cell) for cell in cells[:3]), half, *(Cell(cell) for cell in cells[3:])])
    headings = ["dictionary", "n / m", "coherence", "half of random sets: OMP, l1", "proved: OMP, l1 (k)"]
    headings += ["proved: TopK (k)", "Welch (k)", "votes (needed)", "l1, Gaussian columns"]
    return Table([Cell(each) for each in headings], lines)


def cell_table(result: RecoveryResult) -> Table:
    """A line for every strip."""
    config = result.config
    headings = ["dictionary", "coder", "n / m", *(f"k / m = {k / config.m:.3f}" for k in config.active)]
    lines = []
    for strip in result.strips:
        shares = [clopper_pearson(recovered, config.tokens) for recovered in strip.recovered]
        cells = [f"{share.value:.0%} ({100 * share.low:.0f} to {100 * share.high:.0f})" for share in shares]
        cells += ["–"] * (len(config.active) - len(cells))
        lines.append([Cell(each) for each in (strip.dictionary, strip.coder, f"{strip.n / config.m:g}", *cells)])
    return Table([Cell(heading) for heading in headings], lines)


def picture_of(result: RecoveryResult, transitions: Sequence[Transition]) -> Picture:
    """A heat map for every dictionary and coder, with what was measured and what theory says."""
    config, maps = result.config, dict[tuple[str, str], HeatMap]()
    strips = {(strip.dictionary, strip.coder, strip.n): strip for strip in result.strips}
    for name in config.dictionaries:
        for coder in config.coders:
            lines = [_shares(result, strips.get((name, coder, n))) for n in config.features]
            if any((name, coder, n) in strips for n in config.features):
                maps[name, coder] = HeatMap(lines, list(curves_of(result, transitions, name, coder)))
    grid = Grid(
        [k / config.m for k in config.active], [n / config.m for n in config.features], "k / m: active features",
        "n / m", "tokens recovered exactly",
    )  # fmt: skip
    return heat_maps(maps, config.dictionaries, config.coders, grid)


def _shares(result: RecoveryResult, strip: Strip | None) -> list[float]:
    config = result.config
    if strip is None:
        return [math.nan] * len(config.active)
    beyond = [0] * (len(config.active) - len(strip.recovered))
    return [count / config.tokens for count in (*strip.recovered, *beyond)]


def curves_of(result: RecoveryResult, transitions: Sequence[Transition], name: str, coder: str) -> Iterator[Curve]:
    """What was measured, and the theory that speaks of this coder."""
    m, signed, d = result.config.m, result.config.signed, result.config.d
    known = {n: each for (dictionary, n), each in result.certificates.items() if dictionary == name}
    found = [each for each in transitions if (each.dictionary, each.coder) == (name, coder)]
    inside = [each for each in found if 0 < each.k_over_m.value < math.inf]
    yield Curve(MEASURED, [each.k_over_m.value for each in inside], [each.n_over_m for each in inside])
    heights = [n / m for n in known]
    if coder == VOTING:
        yield Curve(EVOLUTION, [voting_threshold(d, each.agree or 2) for each in known.values()], heights)
        return
    if coder in ("topk", "omp", "lasso"):
        proved = [(each.topk_k if coder == "topk" else each.omp_k) / m for each in known.values()]
        yield Curve(PROVED, [place or math.nan for place in proved], heights)
    if coder in ("omp", "lasso"):
        yield Curve(LIMIT, [each.welch_k / m for each in known.values()], heights)
    if coder == "lasso" or (coder == "omp" and signed):  # without signs OMP asks for more than this condition
        halves = [half_of(result.config, each.condition, result.config.sets).value for each in known.values()]
        yield Curve(CONDITION, [half if 0 < half < math.inf else math.nan for half in halves], heights)
    if coder == "lasso":
        yield Curve(POLYTOPE, [l1_threshold(m / n, signed=signed) for n in known], heights)


def _facts(result: RecoveryResult, transitions: Sequence[Transition]) -> dict[str, Any]:
    """What made the numbers, what is known beforehand, and where half of the tokens are recovered."""
    config = result.config
    return {
        "settings": config.to_json(),
        "seconds": {stage: round(seconds) for stage, seconds in result.seconds.items()},
        "absent": [{"dictionary": name, "n": n, "why": why} for (name, n), why in result.absent.items()],
        "certificates": [
            {
                "dictionary": name,
                "n": n,
                **vars(each),
                "condition_half": _ends(half_of(config, each.condition, config.sets)),
            }
            for (name, n), each in result.certificates.items()
        ],
        "half": [_half(each) for each in transitions],
    }


def _half(transition: Transition) -> dict[str, Any]:
    """A transition for JSON."""
    names = {"dictionary": transition.dictionary, "coder": transition.coder, "n_over_m": transition.n_over_m}
    return {**names, **_ends(transition.k_over_m)}


def _ends(place: Estimate) -> dict[str, float | None]:
    """Where something falls through one half, for JSON; None outside what was tried."""
    ends = {"k_over_m": place.value, "low": place.low, "high": place.high}
    return {name: None if end in (0, math.inf) else end for name, end in ends.items()}
