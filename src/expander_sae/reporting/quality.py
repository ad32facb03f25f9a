"""The report of a measurement of readability: tables, pictures, and features drawn at random."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from expander_sae.evaluation.quality.results import (
    MEASURES,
    BandResult,
    ProbeResult,
    Quality,
    ShownContext,
    ShownFeature,
)
from expander_sae.evaluation.results import NOTHING, Interval
from expander_sae.reporting.charts import Axis, Picture, Series, line_chart
from expander_sae.reporting.dot_charts import Dot, DotGroup, dot_chart
from expander_sae.reporting.highlights import VISIBLE, FeatureCard, Piece
from expander_sae.reporting.report import Features, Report
from expander_sae.reporting.tables import Cell, Percent, Table

NAME = "quality"
"""What the files of the report are called."""
HEADINGS = {
    "token_r2": Cell("R2", "of the token", "token"),
    "purity": Cell("purity"),
    "coherence_of_predictions": Cell("pred.", "coherence of predictions", "coh."),
    "coherence_strongest": Cell("act.", "coherence of activations, strongest", "coh."),
    "coherence_any": Cell("any", "coherence of activations, any", "coh."),
    "probe_1": Cell("probe 1"),
    "probe_8": Cell("probe 8"),
}
"""The main measures, as the first table calls them."""
FURTHER = {
    "pattern_precision": Cell("precision", "of patterns", "patterns"),
    "pattern_recall": Cell("recall", "of patterns", "patterns"),
    "pattern_f1": Cell("F1", "of patterns", "patterns"),
    "probe_loss": Cell("loss", "of probes", "probes"),
    "effect_spread": Cell("spread", "of effects", "effects"),
    "effect_size": Cell("size", "of effects", "effects"),
    "text_probe_1": Cell("texts 1"),
    "text_probe_8": Cell("texts 8"),
    "text_probe_auc": Cell("texts AUC"),
    "text_probe_loss": Cell("texts loss"),
    "columns_found_again": Cell("columns", "found again", "again"),
    "firings_found_again": Cell("firings", "found again", "again"),
}
"""Measures of the second table, those of which there are any."""
PICTURED = ("token_r2", "purity", "coherence_of_predictions", "coherence_strongest", "probe_8")
"""Measures that have a panel of the picture."""
JUDGED = {"judge_coherence": "coherence, 1 to 5", "judge_detection": "detection", "judge_fuzzing": "fuzzing"}
NOTES = (
    "Features are drawn at random among those that fire on 30 or more tokens in 10 or more documents; each measure is "
    "a mean over them. Massive and special tokens are left out.",
    "Token R2: the share of the variance of a feature's activation that the identity of the current token explains; "
    "means per token from one half of the documents, shrunk by one pseudo-count, tried on the other half.",
    "Purity: the share of the commonest token, letter case apart, among the 10 strongest contexts, each of another "
    "document.",
    "Coherence: over those 10 contexts, the mean over pairs of the affinity sum sqrt(p q) of the model's predictions, "
    "and of the cosine of the centred activations; any: the latter for 10 firings drawn at random.",
    "Probes: for each kind of token a single feature with a threshold, and a logistic probe on 8 features; chosen on "
    "one half of the documents, F1 on the other. Probe loss: of a logistic probe on the best single feature, in nats.",
    "Patterns: which of the last four tokens foretell the feature, learned on one half of the documents; precision is "
    "the share of fitting tokens of the other half on which it fires, recall the share of its activation that is on "
    "such tokens.",
    "Spread of effects: a firing is taken away inside the model, and (L1 / L2)^2 of the change of the logits, over "
    "the vocabulary and the next 16 tokens, is divided by their number: small where few predictions change. Size: the "
    "norm of that change as a multiple of the norm of what was taken away.",
    "Found again: the share of those features that another seed has too, paired by the best assignment, with a cosine "
    "of 0.7 or more of their columns, or of their firings.",
    "Random contexts are tokens drawn at random, what a feature without any meaning would show; raw coordinates are "
    "the activations themselves, each coordinate above its mean and below it.",
)
CAUTIONS = (
    "These measures are of features that fire, so a dictionary most of whose features never fire can score well: look "
    "at how many fire.",
    "A dictionary may explain activations well and read badly, or the other way round; neither number stands for the "
    "other.",
)


def report_of(
    qualities: Sequence[Quality],
    *,
    setting: Mapping[str, Any],
    settings: Mapping[str, Any],
    commands: Sequence[str],
    drawn: bool = True,
) -> Report:
    """All that was found of several dictionaries and of what is beside them; without pictures unless `drawn`."""
    tables = {"Readability": _main_table(qualities), **_further_tables(qualities)}
    return Report(
        name=NAME,
        title="How readable the features are",
        findings=_findings(qualities),
        tables=tables,
        notes=NOTES,
        pictures=_pictures(qualities) if drawn else {},
        facts={
            "activations": dict(setting),
            "settings": dict(settings),
            "qualities": [each.to_json() for each in qualities],
        },
        rows=[_row(each) for each in qualities],
        further=_probe_tables(qualities),
        features=_features(qualities),
        cautions=CAUTIONS,
        commands=commands,
    )


def _main_table(qualities: Sequence[Quality]) -> Table:
    columns: dict[str | Cell, Callable[[Quality], Any]] = {
        "dictionary": lambda each: Cell(each.name, each.coder, each.coder),
    }
    columns |= {heading: _measure(name) for name, heading in HEADINGS.items() if _any_has(qualities, name)}
    columns[Cell("features", "that fire often", "fire")] = _features_cell
    return Table.of(qualities, columns)


def _measure(name: str) -> Callable[[Quality], Interval]:
    return lambda each: each.measures.get(name, NOTHING)


def _features_cell(each: Quality) -> Cell:
    """How many features can be measured, and the share that fires at all."""
    if not each.eligible:
        return Cell("–")
    return Cell(
        f"{each.eligible:,}", f"{each.firing / each.n:.0%} of {each.n:,} fire", f"{each.firing / each.n:.0%} fire"
    )


def _any_has(qualities: Sequence[Quality], name: str) -> bool:
    return any(name in each.measures for each in qualities)


def _further_tables(qualities: Sequence[Quality]) -> dict[str, Table]:
    """What the first table has no room for, where it was measured."""
    tables = {}
    shares = ("effect_spread", "columns_found_again", "firings_found_again")

    def column(name: str) -> Callable[[Quality], Any]:
        if name in shares:
            return lambda each: Percent(each.measures.get(name, NOTHING))
        return _measure(name)

    measured: dict[str | Cell, Callable[[Quality], Any]] = {
        heading: column(name) for name, heading in FURTHER.items() if _any_has(qualities, name)
    }
    if measured:
        tables["Patterns, losses, effects and stability"] = Table.of(qualities, {"dictionary": _name, **measured})
    bands = [(each.name, band) for each in qualities for band in each.bands]
    if bands:
        tables["By rank of pick"] = _bands_table(bands)
    judged = [each for each in qualities if each.judged]
    if judged:
        tables["What the judge says"] = Table.of(
            judged, {"dictionary": _name, **{heading: _judgement(name) for name, heading in JUDGED.items()}}
        )
    return tables


def _name(each: Quality) -> str:
    return each.name


def _judgement(name: str) -> Callable[[Quality], Interval]:
    return lambda each: each.judged.get(name, NOTHING)


def _bands_table(bands: Sequence[tuple[str, BandResult]]) -> Table:
    columns: dict[str | Cell, Callable[[tuple[str, BandResult]], Any]] = {
        "dictionary, ranks": lambda each: f"{each[0]}, {each[1].ranks}",
        "firings": lambda each: Percent(Interval.bare(each[1].firings)),
        "features": lambda each: each[1].eligible,
        "home": lambda each: each[1].at_home,
    }

    def column(name: str) -> Callable[[tuple[str, BandResult]], Interval]:
        return lambda each: each[1].measures.get(name, NOTHING)

    names = [name for name in HEADINGS if any(name in band.measures for _, band in bands)]
    return Table.of(bands, {**columns, **{HEADINGS[name]: column(name) for name in names}})


def _probe_tables(qualities: Sequence[Quality]) -> dict[str, Table]:
    """A table for every suite of labels: each label, and the F1 of one and of eight features of every dictionary."""
    tables = {}
    for suite in dict.fromkeys(probe.suite for each in qualities for probe in each.probes):
        found = {each.name: {probe.label: probe for probe in each.probes if probe.suite == suite} for each in qualities}
        found = {name: probes for name, probes in found.items() if probes}
        labels = list(dict.fromkeys(label for probes in found.values() for label in probes))
        share = {label: probes[label].share for probes in found.values() for label in probes}
        columns: dict[str | Cell, Callable[[str], Any]] = {
            "label": lambda label: label,
            "share": lambda label, share=share: Percent(Interval.bare(share[label])),  # type: ignore[misc]
        }
        columns |= {Cell(name, terse="1 / 8 features"): _probe_cell(probes) for name, probes in found.items()}
        tables[f"Probes: {suite}"] = Table.of(labels, columns)
    return tables


def _probe_cell(probes: Mapping[str, ProbeResult]) -> Callable[[str], Cell]:
    def cell(label: str) -> Cell:
        probe = probes.get(label)
        return Cell("–") if probe is None else Cell(f"{probe.f1.value:.2f} / {probe.f1_together.value:.2f}")

    return cell


def _pictures(qualities: Sequence[Quality]) -> dict[str, Picture]:
    found = {"measures": _measures_picture(qualities), "ranks": _ranks_picture(qualities)}
    return {shown: picture for shown, picture in found.items() if picture is not None}


def _measures_picture(qualities: Sequence[Quality]) -> Picture:
    names = [name for name in PICTURED if _any_has(qualities, name)]
    groups = [
        DotGroup("dictionaries", [_dot(each, names) for each in qualities if each.coder]),
        DotGroup("beside them", [_dot(each, names) for each in qualities if not each.coder]),
    ]
    chart = dot_chart(
        [group for group in groups if group.dots], [MEASURES[name] for name in names], Axis("", limits=(0, 1))
    )
    return chart.titled("What features tell a reader", "Every measure with its 95 % interval; further right is better.")


def _dot(quality: Quality, names: Sequence[str]) -> Dot:
    return Dot(quality.name, [quality.measures.get(name, NOTHING) for name in names])


def _ranks_picture(qualities: Sequence[Quality]) -> Picture | None:
    """Coherence by rank of pick; None where ranks were not measured."""
    series = []
    for each in qualities:
        bands = [(float(band.ranks.split()[-1]), band.measures["coherence_strongest"].value) for band in each.bands]
        points = [(rank, value) for rank, value in bands if not math.isnan(value)]
        if len(points) > 1:
            series.append(Series(each.name, [rank for rank, _ in points], [value for _, value in points]))
    if not series:
        return None
    chart = line_chart(
        series,
        Axis("rank of pick", log=True, ticks=sorted({rank for line in series for rank in line.x})),
        Axis("coherence of the strongest contexts"),
    )
    return chart.titled(
        "Early picks mean more than late ones, if they do",
        "Contexts of a feature are taken from those of its firings that have these ranks.",
    )


def _findings(qualities: Sequence[Quality]) -> list[str]:
    """A sentence for every dictionary."""
    sentences = []
    for each in (each for each in qualities if each.coder):
        if not each.eligible:
            sentences.append(f"No feature of {each.name} fires on 30 or more tokens in 10 or more documents.")
            continue
        values = {
            name: each.measures.get(name, NOTHING).value for name in ("token_r2", "purity", "coherence_strongest")
        }
        sentences.append(
            f"{each.name}: token R2 {values['token_r2']:.3f}, purity {values['purity']:.3f}, coherence of activations "
            f"{values['coherence_strongest']:.3f}; {each.eligible:,} of {each.n:,} features fire often enough."
        )
    return sentences


def _row(quality: Quality) -> dict[str, Any]:
    """A line of the CSV."""
    return {
        "dictionary": quality.name,
        "coder": quality.coder,
        "n": quality.n,
        "firing": quality.firing,
        "features": quality.eligible,
        "measured": quality.measured,
        **{name: quality.measures.get(name, NOTHING) for name in MEASURES},
        **{name: quality.judged.get(name, NOTHING) for name in JUDGED},
    }


def _features(qualities: Sequence[Quality]) -> Features | None:
    """Features of every dictionary, drawn at random."""
    cards = [card_of(each.name, shown) for each in qualities if each.coder for shown in each.shown]
    about = (
        "Drawn at random among those that were measured, not chosen: what a reader meets. Each with its strongest "
        "contexts, one of a document, its scores, and the patterns that foretell it."
    )
    return Features(about, cards) if cards else None


def card_of(name: str, shown: ShownFeature) -> FeatureCard:
    """A feature of the dictionary of this name, with its scores and its contexts."""
    scores = ", ".join(f"{MEASURES[key]} {value:.2f}" for key, value in shown.scores.items() if not math.isnan(value))
    said = f"The judge: {shown.explanation} " if shown.explanation else ""
    patterns = (
        f"Patterns: {'; '.join(f'“{each.translate(VISIBLE)}”' for each in shown.patterns)}." if shown.patterns else ""
    )
    return FeatureCard(
        feature=shown.feature,
        frequency=f"of {name}, fires on {shown.firings:,} tokens. {scores}.",
        touches=f"{said}{patterns}",
        contexts=[_pieces(context, shown.contexts) for context in shown.contexts],
    )


def _pieces(context: ShownContext, among: Sequence[ShownContext]) -> list[Piece]:
    strongest = max(abs(value) for each in among for value in each.activations) or 1.0
    return [
        Piece(token.translate(VISIBLE), abs(value) / strongest, value, place == context.peak)
        for place, (token, value) in enumerate(zip(context.tokens, context.activations, strict=True))
    ]
