"""The report of recovery: where every coder stops, every cell, and one picture of small multiples."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from expander_sae.certificates.samples import Rate
from expander_sae.evaluation.results import Interval, Kind
from expander_sae.reporting.charts import Picture, Series
from expander_sae.reporting.heat_maps import Grid, HeatMap, heat_maps
from expander_sae.reporting.report import Report
from expander_sae.reporting.tables import Cell, Table
from expander_sae.studies.recovery.config import ITERATIONS, STEPS_OF_MP, VOTING, RecoveryConfig
from expander_sae.studies.recovery.theory import Certificates, l1_threshold, voting_threshold
from expander_sae.studies.study import notes_of, settings_of

MEASURED = "measured: half of the tokens"
PROVED = "proved: every support, by this dictionary's coherence sums (TopK: with these coefficients)"
CONDITION = "measured: half of random sets, every code on them proved (exact recovery condition)"
LIMIT = "no dictionary of this size has a coherence certificate beyond (Welch)"
EVOLUTION = "predicted for large m: rounds of votes (density evolution)"
POLYTOPE = "predicted for large m: l1 with Gaussian columns (Donoho and Tanner)"
HALF = 0.5
"""The share of tokens that says where recovery ends."""


@dataclass(frozen=True)
class Strip:
    """A dictionary of one size under one coder: a row of cells in its picture."""

    dictionary: str
    n: int
    coder: str
    recovered: list[int]
    """Tokens whose features were found exactly, for every k up to the first at which there are none."""


@dataclass(frozen=True)
class RecoveryResult:
    """Everything that the report is made of."""

    config: RecoveryConfig
    strips: list[Strip]
    certificates: dict[tuple[str, int], Certificates]
    """By dictionary and n."""
    absent: dict[tuple[str, int], str]
    """Dictionaries that do not exist at a size, and why."""
    seconds: Mapping[str, float]
    """Of every stage."""


@dataclass(frozen=True)
class Transition:
    """Where a coder no longer recovers half of the tokens."""

    dictionary: str
    coder: str
    n_over_m: float
    k_over_m: Interval
    """0 where the fewest features are too many already, inf where the most are not."""


def report_of(result: RecoveryResult) -> Report:
    """The report of all strips."""
    transitions = [transition_of(result, strip) for strip in result.strips]
    return Report(
        name="recovery",
        title="Recovery: how many active features can be found exactly",
        findings=findings(result, transitions),
        tables={
            "Where half of the tokens are recovered exactly, as k / m": transition_table(result, transitions),
            "What is known beforehand, as k / m": theory_table(result),
        },
        notes=notes(result),
        pictures={"phases": picture_of(result, transitions)},
        facts=_facts(result, transitions),
        rows=rows_of(result),
        further={"Every cell: tokens recovered": cell_table(result)},
    )


def rows_of(result: RecoveryResult) -> list[dict[str, Any]]:
    """Every cell that was tried, strip after strip."""
    config = result.config
    return [
        {
            "dictionary": strip.dictionary,
            "coder": strip.coder,
            "n_over_m": strip.n / config.m,
            "k_over_m": k / config.m,
            "n": strip.n,
            "k": k,
            "tokens": config.tokens,
            "recovered": recovered,
            "exact": clopper_pearson(recovered, config.tokens),
        }
        for strip in result.strips
        for k, recovered in zip(config.active, strip.recovered, strict=False)
    ]


def clopper_pearson(successes: int, trials: int) -> Interval:
    """The share, and the 95 % interval that holds whatever the true one is."""
    rate = Rate.counted(successes, trials)
    return Interval(rate.share, rate.low, rate.high, Kind.BINOMIAL)


def transition_of(result: RecoveryResult, strip: Strip) -> Transition:
    """Where a strip falls through one half, and where the ends of its intervals do."""
    config = result.config
    found = half_of(config, strip.recovered, config.tokens)
    return Transition(strip.dictionary, strip.coder, strip.n / config.m, found)


def half_of(config: RecoveryConfig, counts: Sequence[int], trials: int) -> Interval:
    """The k / m where counts out of so many trials, at growing k, fall through one half."""
    shares = [clopper_pearson(count, trials) for count in counts]
    places = [k / config.m for k, _ in zip(config.active, shares, strict=False)]
    return Interval(
        falls_through(HALF, places, [each.value for each in shares]),
        falls_through(HALF, places, [each.low for each in shares]),
        falls_through(HALF, places, [each.high for each in shares]),
        Kind.CROSSING,
    )


def falls_through(level: float, places: Sequence[float], shares: Sequence[float]) -> float:
    """The first place where the shares fall below a level, between two places by logarithms; 0 or inf if outside."""
    number = next((number for number, share in enumerate(shares) if share < level), None)
    if number is None:
        return math.inf
    if number == 0:
        return 0.0
    before, after = shares[number - 1], shares[number]
    way = (before - level) / (before - after)
    return math.exp((1 - way) * math.log(places[number - 1]) + way * math.log(places[number]))


def transition_table(result: RecoveryResult, transitions: Sequence[Transition]) -> Table:
    """Where every coder stops: a line for every dictionary of every size, a column for every coder."""
    found = {(each.dictionary, each.n_over_m, each.coder): each for each in transitions}
    coders, config = result.config.coders, result.config
    lines = []
    for name, n in result.certificates:
        there = [found.get((name, n / config.m, coder)) for coder in coders]
        cells = [None if each is None else each.k_over_m for each in there]
        lines.append([Cell(name), Cell(f"{n / config.m:g}"), *(_place(result, cell) for cell in cells)])
    caption = f"Intervals: {Kind.CROSSING}."
    return Table([Cell(heading) for heading in ("dictionary", "n / m", *coders)], lines, caption)


def _place(result: RecoveryResult, where: Interval | None) -> Cell:
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
    """A line for every dictionary of every size under every coder."""
    config = result.config
    headings = ["dictionary", "coder", "n / m", *(f"k / m = {k / config.m:.3f}" for k in config.active)]
    lines = []
    for strip in result.strips:
        shares = [clopper_pearson(recovered, config.tokens) for recovered in strip.recovered]
        cells = [f"{share.value:.0%} ({100 * share.low:.0f} to {100 * share.high:.0f})" for share in shares]
        cells += ["–"] * (len(config.active) - len(cells))
        lines.append([Cell(each) for each in (strip.dictionary, strip.coder, f"{strip.n / config.m:g}", *cells)])
    return Table([Cell(heading) for heading in headings], lines, f"Intervals: {Kind.BINOMIAL}.")


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


def curves_of(result: RecoveryResult, transitions: Sequence[Transition], name: str, coder: str) -> Iterator[Series]:
    """The curves over a heat map: where half of the tokens are recovered, and the theory of this coder."""
    m, signed, d = result.config.m, result.config.signed, result.config.d
    known = {n: each for (dictionary, n), each in result.certificates.items() if dictionary == name}
    found = [each for each in transitions if (each.dictionary, each.coder) == (name, coder)]
    inside = [each for each in found if 0 < each.k_over_m.value < math.inf]
    yield Series(MEASURED, [each.k_over_m.value for each in inside], [each.n_over_m for each in inside])
    heights = [n / m for n in known]
    if coder == VOTING:
        yield Series(EVOLUTION, [voting_threshold(d, each.agree or 2) for each in known.values()], heights)
        return
    if coder in ("topk", "omp", "lasso"):
        proved = [(each.topk_k if coder == "topk" else each.omp_k) / m for each in known.values()]
        yield Series(PROVED, [place or math.nan for place in proved], heights)
    if coder in ("omp", "lasso"):
        yield Series(LIMIT, [each.welch_k / m for each in known.values()], heights)
    if coder == "lasso" or (coder == "omp" and signed):  # without signs OMP asks for more than this condition
        halves = [half_of(result.config, each.condition, result.config.sets).value for each in known.values()]
        yield Series(CONDITION, [half if 0 < half < math.inf else math.nan for half in halves], heights)
    if coder == "lasso":
        yield Series(POLYTOPE, [l1_threshold(m / n, signed=signed) for n in known], heights)


def _facts(result: RecoveryResult, transitions: Sequence[Transition]) -> dict[str, Any]:
    """What made the numbers, what is known beforehand, and where half of the tokens are recovered."""
    config = result.config
    return {
        "settings": settings_of(config),
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


def _ends(place: Interval) -> dict[str, float | None]:
    """Where something falls through one half, for JSON; None outside what was tried."""
    ends = {"k_over_m": place.value, "low": place.low, "high": place.high}
    return {name: None if end in (0, math.inf) else end for name, end in ends.items()}


def findings(result: RecoveryResult, transitions: Sequence[Transition]) -> list[str]:
    """How far every coder gets, at the middle one of the sizes that all dictionaries have."""
    m = result.config.m
    common = [n for n in result.config.features if all((name, n) not in result.absent for name in _present(result))]
    if not common:
        return ["No size is there for all dictionaries; see the table."]
    n = common[len(common) // 2]
    lines = []
    for coder in result.config.coders:
        places = [each for each in transitions if (each.coder, each.n_over_m) == (coder, n / m)]
        said = ", ".join(f"{each.dictionary} {_words(result, each.k_over_m.value)}" for each in places)
        if said:
            lines.append(f"n = {n / m:g} m, {coder}: half of the tokens are recovered up to k / m of {said}.")
    return [*lines, _condition(result, n)]


def _condition(result: RecoveryResult, n: int) -> str:
    """How far recovery is proved for half of the random sets of features."""
    config, found = result.config, {name: known for (name, size), known in result.certificates.items() if size == n}
    halves = {name: half_of(config, known.condition, config.sets).value for name, known in found.items()}
    said = ", ".join(f"{name} {_words(result, half)}" for name, half in halves.items())
    return (
        f"n = {n / config.m:g} m, exact recovery condition: on half of the random sets of features OMP and l1 "
        f"minimisation are proved to find every code, whatever its coefficients, up to k / m of {said}."
    )


def _present(result: RecoveryResult) -> list[str]:
    """Dictionaries that exist at some size."""
    return list(dict.fromkeys(name for name, _ in result.certificates))


def _words(result: RecoveryResult, place: float) -> str:
    shares = [k / result.config.m for k in result.config.active]
    if place == 0:
        return f"below {shares[0]:.3f}"
    return f"above {shares[-1]:.3f}" if math.isinf(place) else f"{place:.3f}"


def notes(result: RecoveryResult) -> list[str]:
    """How to read the tables and the picture, and which dictionaries do not exist."""
    config = result.config
    sizes = {"flat": "all 1", "uniform": "uniform between 0.5 and 1.5", "gaussian": "normally distributed"}
    words = {
        "sizes": sizes[config.coefficients],
        "signs": "of either sign" if config.signed else "all positive",
        "steps_of_mp": STEPS_OF_MP,
        "iterations": ITERATIONS,
    }
    return [
        *notes_of(__package__, **settings_of(config), **words),
        *(f"{name} has no n = {n / config.m:g} m: {why}" for (name, n), why in result.absent.items()),
    ]
