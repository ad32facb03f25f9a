"""What is found about the readability of a dictionary's features, in records that tables and JSON are made of."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from expander_sae.evaluation.results import Interval, Kind

MEASURES = {
    "token_r2": "token R2",
    "purity": "purity",
    "coherence_of_predictions": "coherence of predictions",
    "coherence_strongest": "coherence of activations, strongest",
    "coherence_any": "coherence of activations, any",
    "pattern_precision": "precision of patterns",
    "pattern_recall": "recall of patterns",
    "pattern_f1": "F1 of patterns",
    "probe_1": "probe F1, 1 feature",
    "probe_8": "probe F1, 8 features",
    "probe_loss": "probe loss",
    "effect_spread": "spread of effects",
    "effect_size": "size of effects",
    "text_probe_1": "text probe F1, 1 feature",
    "text_probe_8": "text probe F1, 8 features",
    "text_probe_auc": "text probe AUC, 1 feature",
    "text_probe_loss": "text probe loss",
    "columns_found_again": "columns found again",
    "firings_found_again": "firings found again",
}
"""Measures of a dictionary, by the names they have in files, and what tables call them."""


@dataclass(frozen=True)
class ProbeResult:
    """How well features tell tokens, or texts, of one kind from others."""

    suite: str
    """Where the labels come from."""
    label: str
    share: float
    """Of the tokens that are of this kind."""
    feature: int
    """The one that tells them best by a threshold."""
    f1: Interval
    f1_together: Interval
    """Of a logistic probe on eight features."""
    loss: float
    """Of the best logistic probe on a single feature, in nats."""
    loss_without: float
    """Of a probe that knows only how frequent the kind is."""
    auc: float
    """Of the best single feature."""


@dataclass(frozen=True)
class BandResult:
    """What features tell a reader by those of their firings that have some ranks of pick."""

    ranks: str
    firings: float
    """Share of all firings that have them."""
    eligible: int
    """Features that fire often enough with them."""
    at_home: int
    """Features that fire there more often than with any other ranks."""
    measures: Mapping[str, Interval]


@dataclass(frozen=True)
class ShownContext:
    """A token on which a feature fires, in its text."""

    tokens: list[str]
    activations: list[float]
    """Of the feature, on every token."""
    peak: int
    """Which of the tokens the context was chosen for."""


@dataclass(frozen=True)
class ShownFeature:
    """One of the measured features, drawn at random, as a reader sees it."""

    feature: int
    firings: int
    scores: Mapping[str, float]
    """What is measured of it; nan where it is not defined."""
    patterns: list[str]
    """What foretells it, at most three."""
    contexts: list[ShownContext]
    explanation: str = ""
    """What a judge says it stands for; empty without a judge."""


@dataclass(frozen=True)
class Quality:
    """What the features of one dictionary tell a reader."""

    name: str
    coder: str
    n: int
    firing: int
    """Features that fire on at least one token."""
    eligible: int
    """Features that fire on 30 or more tokens in 10 or more documents, of which those that are measured are drawn."""
    measured: int
    measures: Mapping[str, Interval]
    """By the names of `MEASURES`; those that were not taken are not there."""
    probes: Sequence[ProbeResult] = ()
    bands: Sequence[BandResult] = ()
    shown: Sequence[ShownFeature] = ()
    judged: Mapping[str, Interval] = field(default_factory=dict)
    """What a language model says of the features, if one was asked."""

    def means(self) -> dict[str, float]:
        """The measures without their intervals, and how many features there are to measure."""
        values = {name: interval.value for name, interval in self.measures.items()}
        return {**values, "features": self.eligible, "firing": self.firing / self.n}

    def to_json(self) -> dict[str, Any]:
        """All of it, nan as null."""
        return dict(_without_nan(asdict(self)))

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Quality:
        """What `to_json` made of it; KeyError, TypeError or AttributeError if it is something else."""
        shown = [
            ShownFeature(
                **{
                    **each,
                    "scores": _numbers(each["scores"]),
                    "contexts": [ShownContext(**context) for context in each["contexts"]],
                }
            )
            for each in content["shown"]
        ]
        bands = [BandResult(**{**each, "measures": _intervals(each["measures"])}) for each in content["bands"]]
        probes = [
            ProbeResult(
                **{**_numbers(each), "f1": _interval(each["f1"]), "f1_together": _interval(each["f1_together"])}
            )
            for each in content["probes"]
        ]
        own = {"measures": _intervals(content["measures"]), "judged": _intervals(content["judged"])}
        return cls(**{**content, **own, "probes": probes, "bands": bands, "shown": shown})


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _without_nan(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(entry) for entry in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _numbers(content: Mapping[str, Any]) -> dict[str, Any]:
    return {name: math.nan if value is None else value for name, value in content.items()}


def _interval(content: Mapping[str, Any]) -> Interval:
    found = _numbers(content)
    return Interval(found["value"], found["low"], found["high"], Kind(found["kind"]))


def _intervals(content: Mapping[str, Any]) -> dict[str, Interval]:
    return {name: _interval(entry) for name, entry in content.items()}
