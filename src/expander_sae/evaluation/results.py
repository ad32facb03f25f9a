"""What an evaluation finds: numbers with intervals, in records that JSON and tables are made of."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any

DENSITY_EDGES = tuple(quarter / 4 for quarter in range(-24, 1))
"""Edges of the density histogram: log10 of the share of tokens that a feature fires on; rarer ones are in the first."""


_ENDS = ("value", "low", "high")


class Kind(StrEnum):
    """Which statistic the ends of an interval are."""

    NONE = "no interval"
    DOCUMENTS = "95 % over documents"
    FEATURES = "95 % over features"
    FEATURES_AND_DOCUMENTS = "95 % over features and documents"
    SEEDS = "95 % over seeds (Student)"
    LEAST_AND_MOST = "least and most over seeds"
    HULL = "hull of the 95 % intervals over documents of all seeds"
    HULL_OF_FEATURES = "hull of the 95 % intervals over features and documents of all seeds"
    BINOMIAL = "95 % of a binomial share (Clopper-Pearson)"
    CROSSING = "where 95 % binomial intervals (Clopper-Pearson) fall through one half"
    FIT = "95 % of fits to redrawn cells"


@dataclass(frozen=True)
class Interval:
    """A number, the ends of an interval around it, and which statistic these are."""

    value: float
    low: float
    high: float
    """Both ends are nan where there is no interval: one document, one seed, a ratio that some draws leave undefined."""
    kind: Kind

    @classmethod
    def bare(cls, value: float) -> Interval:
        """A number that has no interval of its own."""
        return cls(value, math.nan, math.nan, Kind.NONE)

    @property
    def half_width(self) -> float:
        """Half the length of the interval."""
        return (self.high - self.low) / 2


NOTHING = Interval.bare(math.nan)
"""Where a number was not measured."""


@dataclass(frozen=True)
class LanguageModelLoss:
    """What the language model loses when activations are replaced, in nats per predicted token."""

    clean: Interval
    """Cross-entropy of the model as it is."""
    patched: Interval
    """Cross-entropy with reconstructions in place of the activations."""
    zero: Interval
    """Cross-entropy with zeros in their place."""
    mean: Interval
    """Cross-entropy with their mean in their place."""
    kl: Interval
    """KL(clean || patched)."""
    recovered_zero: Interval
    """(zero - patched) / (zero - clean), a ratio of means; nan where zeros do not raise the cross-entropy."""
    recovered_mean: Interval
    """(mean - patched) / (mean - clean), a ratio of means; nan where the mean does not raise the cross-entropy."""
    retention_zero: Interval | None
    """recovered_zero as a share of the reference's, over the same documents; None without a reference."""
    retention_mean: Interval | None
    """recovered_mean as a share of the reference's, over the same documents; None without a reference."""

    @property
    def harmless_ablations(self) -> tuple[str, ...]:
        """The ablations ("zero", "mean") that do not raise the cross-entropy, so that nothing can be recovered."""
        values = {"zero": self.recovered_zero.value, "mean": self.recovered_mean.value}
        return tuple(name for name, value in values.items() if math.isnan(value))


@dataclass(frozen=True)
class Scope:
    """What autoencoders are measured on."""

    tokens: int
    documents: int
    passed_through: dict[str, int]
    setting: Mapping[str, str | int | float | bool | None]
    """The entries of an `Evaluation` of these names."""


@dataclass(frozen=True)
class Evaluation:
    """How well one autoencoder does."""

    name: str
    coder: str
    """The coder with its k or penalty, such as topk:16."""
    tokens: int
    """Tokens that were read, those passed through included."""
    documents: int
    """Documents that these tokens are from."""
    passed_through: dict[str, int]
    """Tokens left as they are and not counted in the metrics of reconstruction, by kind: "special", "massive"."""
    fvu: Interval
    """Fraction of variance unexplained: sum |x - x_hat|^2 / sum |x - mean|^2."""
    explained_variance: Interval
    """1 - FVU."""
    cosine: Interval
    """Between activation and reconstruction, averaged over tokens."""
    l0: Interval
    """Active features per token."""
    never_fired: float
    """Share of features that fired on none of these tokens."""
    density: list[int]
    """Features by log10 of the share of tokens they fire on, between DENSITY_EDGES; without those that never fired."""
    learned_values: int
    """All learned numbers: dictionary, encoder and biases."""
    language_model: LanguageModelLoss | None
    """None where only activations were given."""
    setting: Mapping[str, str | int | float | bool | None] = field(default_factory=dict)
    """What it was measured on: model, revision, hookpoint, text and how it was cut, the norm of a massive token."""

    def to_json(self) -> dict[str, Any]:
        """The same as a dictionary that JSON can hold; what is not a number is None. Intervals are over documents."""
        return _plain(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Evaluation:
        """What `to_json` made of it; KeyError or TypeError if something is missing or of another kind."""
        loss = content["language_model"]
        numbers = {name: _over_documents(content[name]) for name in ("fvu", "explained_variance", "cosine", "l0")}
        losses = None if loss is None else LanguageModelLoss(**{
            each.name: _over_documents(loss[each.name]) for each in fields(LanguageModelLoss)
        })  # fmt: skip
        return cls(**{**content, **numbers, "language_model": losses})


def _over_documents(content: Mapping[str, float | None] | None) -> Any:
    """An interval over documents, or None where there is none."""
    if content is None:
        return None
    ends = {end: math.nan if content[end] is None else content[end] for end in _ENDS}
    return Interval(**ends, kind=Kind.DOCUMENTS)  # type: ignore[arg-type]  # none of them is None by now


def _plain(value: Any) -> Any:
    """Records and mappings to dictionaries, nan to None."""
    if isinstance(value, Interval):
        return {end: _plain(getattr(value, end)) for end in _ENDS}
    if isinstance(value, LanguageModelLoss | Evaluation):
        return {name: _plain(entry) for name, entry in vars(value).items()}
    if isinstance(value, Mapping):
        return {name: _plain(entry) for name, entry in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
