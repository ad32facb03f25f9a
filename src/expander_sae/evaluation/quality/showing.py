"""Features as readers see them: where they fire, with the text around, and what is measured of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array

from expander_sae.evaluation.quality.held_out import HeldOut
from expander_sae.evaluation.quality.intervals import Reading
from expander_sae.evaluation.quality.patterns import Explained, written
from expander_sae.evaluation.quality.reading import strongest_first
from expander_sae.evaluation.quality.results import ShownContext, ShownFeature

AROUND = 12
"""Tokens on either side of a context that is shown."""
SHOWN_CONTEXTS, SHOWN_PATTERNS = 5, 3
"""Of a feature."""


def shown_features(
    held_out: HeldOut,
    firings: csc_array,
    features: NDArray[np.int64],
    readings: Mapping[str, Reading],
    explained: Sequence[Explained],
    wanted: int,
    seed: int,
) -> list[ShownFeature]:
    """Some of the measured features, drawn whatever they look like."""
    count = len(features)
    chosen = np.sort(np.random.default_rng(seed).permutation(count)[:wanted])
    per_feature = {name: each.each for name, each in readings.items() if len(each.each) == count}
    found = []
    for place in chosen.tolist():
        feature = int(features[place])
        tokens = strongest_first(firings, held_out.document, feature)[:SHOWN_CONTEXTS]
        patterns = explained[place].patterns[:SHOWN_PATTERNS]
        found.append(
            ShownFeature(
                feature,
                int(firings.indptr[feature + 1] - firings.indptr[feature]),
                {name: float(values[place]) for name, values in per_feature.items()},
                [written(pattern, held_out) for pattern in patterns],
                [context_of(held_out, firings, feature, int(token)) for token in tokens],
            )
        )
    return found


def context_of(held_out: HeldOut, firings: csc_array, feature: int, token: int) -> ShownContext:
    """A measured token with those around it in its piece, and how strongly the feature fires on each."""
    text, place = held_out.text, int(held_out.place[token])
    around = np.arange(max(0, place - AROUND), min(len(text.ids), place + AROUND + 1))
    around = around[text.piece[around] == text.piece[place]]
    column = slice(firings.indptr[feature], firings.indptr[feature + 1])
    strength = dict(zip(held_out.place[firings.indices[column]].tolist(), firings.data[column].tolist(), strict=True))
    document = text.documents[int(text.document[place])]
    return ShownContext(
        [document[text.spans[each, 0] : text.spans[each, 1]] for each in around],
        [strength.get(int(each), 0.0) for each in around],
        int(np.flatnonzero(around == place)[0]),
    )
