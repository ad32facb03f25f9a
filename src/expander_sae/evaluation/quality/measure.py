"""How readable the features of an autoencoder are: every measure on one held-out text."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array

from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.errors import ExpanderError
from expander_sae.evaluation.quality.firings import Measured, draw, firings_of, raw_coordinates
from expander_sae.evaluation.quality.held_out import HeldOut
from expander_sae.evaluation.quality.probes import Probe, word_probes
from expander_sae.evaluation.quality.reading import (
    Halves,
    coherence_of_activations,
    coherence_of_predictions,
    drawn_contexts,
    purity,
    random_contexts,
    strongest_contexts,
    token_r2,
)

FEATURES = 250
"""Features that are drawn and measured."""
Labels = Mapping[str, NDArray[np.bool_]]
"""Of every measured token, whether it is of a kind."""


@dataclass(frozen=True)
class Readings:
    """What is measured of each drawn feature, one number for each; nan where it is not defined."""

    token_r2: NDArray[np.float64]
    """Share of the variance of its activation that the identity of the token explains."""
    purity: NDArray[np.float64]
    """Share of the commonest token among its ten strongest contexts."""
    coherence_of_predictions: NDArray[np.float64]
    """Mean affinity of the model's next-token predictions at two of those contexts."""
    coherence_strongest: NDArray[np.float64]
    """Mean cosine of the centred activations at two of those contexts."""
    coherence_any: NDArray[np.float64]
    """The same for ten of its firings drawn at random."""


@dataclass(frozen=True)
class Quality:
    """What one dictionary's features tell a reader."""

    measured: Measured
    readings: Readings
    probes: Mapping[str, Probe | None]

    def means(self) -> dict[str, float]:
        """The mean of every measure over features, and of the probes over labels."""
        found = [probe for probe in self.probes.values() if probe is not None]
        return {
            "probe_1": _mean(np.array([probe.f1 for probe in found])),
            "probe_8": _mean(np.array([probe.f1_together for probe in found])),
            **{name: _mean(values) for name, values in vars(self.readings).items()},
            "features": self.measured.eligible,
            "firing": self.measured.firing / self.measured.n,
        }


def _mean(values: NDArray[np.float64]) -> float:
    """Of those that are defined; nan if none is."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else math.nan


def quality_of(
    sae: SparseAutoencoder,
    held_out: HeldOut,
    labels: Labels | None = None,
    *,
    features: int = FEATURES,
    seed: int = 0,
) -> Quality:
    """Every measure for the features of an autoencoder under its own coder."""
    if sae.m != held_out.x.shape[1]:
        raise ExpanderError(
            f"The autoencoder is for activations of width {sae.m}, but the held-out ones are {held_out.x.shape[1]} "
            "wide; give the model and the hookpoint that it was trained on."
        )
    return quality_of_firings(firings_of(sae, held_out.x), held_out, labels, features=features, seed=seed)


def quality_of_coordinates(
    held_out: HeldOut, labels: Labels | None = None, *, features: int = FEATURES, seed: int = 0
) -> Quality:
    """The same for the raw coordinates of the activations, above their means and below them."""
    return quality_of_firings(raw_coordinates(held_out.centred), held_out, labels, features=features, seed=seed)


def quality_of_firings(
    firings: csc_array,
    held_out: HeldOut,
    labels: Labels | None = None,
    *,
    features: int = FEATURES,
    seed: int = 0,
) -> Quality:
    """Every measure for features that fire in this way."""
    document, halves = held_out.document, Halves.of(held_out.document, seed)
    measured = draw(firings, document, features, seed)
    generator = np.random.default_rng(seed)
    strongest = [strongest_contexts(firings, document, int(each)) for each in measured.features]
    drawn = [drawn_contexts(firings, document, int(each), generator) for each in measured.features]
    readings = _readings(held_out, strongest, drawn, token_r2(firings[:, measured.features], held_out.token, halves))
    return Quality(measured, readings, word_probes(firings, labels or {}, halves))


def chance_of(held_out: HeldOut, *, features: int = FEATURES, seed: int = 0) -> Readings:
    """The same for features without any meaning, whose contexts are tokens drawn at random."""
    generator = np.random.default_rng(seed)
    strongest, drawn = (
        [random_contexts(held_out.document, generator) for _ in range(features)] for _ in range(2)
    )  # fmt: skip
    return _readings(held_out, strongest, drawn, np.full(features, np.nan))


def _readings(
    held_out: HeldOut,
    strongest: list[NDArray[np.int64]],
    drawn: list[NDArray[np.int64]],
    explained: NDArray[np.float64],
) -> Readings:
    centred = held_out.centred
    return Readings(
        token_r2=explained,
        purity=purity(held_out.folded, strongest),
        coherence_of_predictions=coherence_of_predictions(held_out.predictions, strongest),
        coherence_strongest=coherence_of_activations(centred, strongest),
        coherence_any=coherence_of_activations(centred, drawn),
    )
