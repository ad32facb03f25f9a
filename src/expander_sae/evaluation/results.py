"""What an evaluation finds: numbers with intervals, in records that JSON and tables are made of."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

DENSITY_EDGES = tuple(quarter / 4 for quarter in range(-24, 1))
"""Edges of the density histogram: log10 of the share of tokens that a feature fires on; rarer ones are in the first."""


@dataclass(frozen=True)
class Estimate:
    """A number, and its 95 % interval over documents: what other documents of the same kind would give."""

    value: float
    low: float
    high: float
    """Both nan where there is no interval: fewer than two documents, or a ratio that some documents leave undefined."""

    @property
    def half_width(self) -> float:
        """Half the length of the interval."""
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class LanguageModelLoss:
    """What the language model loses when activations are replaced, in nats per predicted token."""

    clean: Estimate
    """Cross-entropy of the model as it is."""
    patched: Estimate
    """With reconstructions in place of the activations."""
    zero: Estimate
    """With zeros in their place."""
    mean: Estimate
    """With their mean in their place."""
    kl: Estimate
    """KL(clean || patched)."""
    recovered_zero: Estimate
    """(zero - patched) / (zero - clean), a ratio of means; nan where zeros do not raise the cross-entropy."""
    recovered_mean: Estimate
    """(mean - patched) / (mean - clean), a ratio of means; nan where the mean does not raise the cross-entropy."""
    retention_zero: Estimate | None
    """recovered_zero as a share of the reference's, over the same documents; None without a reference."""
    retention_mean: Estimate | None
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
    """With its k or penalty, such as topk:16."""
    tokens: int
    """Tokens that were read, those passed through included."""
    documents: int
    """Documents that these tokens are from."""
    passed_through: dict[str, int]
    """Tokens left as they are and not counted in the metrics of reconstruction, by kind: "special", "massive"."""
    fvu: Estimate
    """Fraction of variance unexplained: sum |x - x_hat|^2 / sum |x - mean|^2."""
    explained_variance: Estimate
    """1 - FVU."""
    cosine: Estimate
    """Between activation and reconstruction, averaged over tokens."""
    l0: Estimate
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
        """The same as a dictionary that JSON can hold; what is not a number is None."""
        return _plain(self)


def _plain(value: Any) -> Any:
    """Records and mappings to dictionaries, nan to None."""
    if isinstance(value, Estimate | LanguageModelLoss | Evaluation):
        return {name: _plain(entry) for name, entry in vars(value).items()}
    if isinstance(value, Mapping):
        return {name: _plain(entry) for name, entry in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
