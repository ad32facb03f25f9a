"""What the features of the demo tell a reader: of many a mean, of a few drawn at random all that there is to see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from expander_sae.activations.store import Store
from expander_sae.evaluation.quality.intervals import mean_of_defined
from expander_sae.evaluation.quality.reading import CONTEXTS, Contexts, coherence_of_activations
from expander_sae.features import FeatureDatabase

MEASURED = 250
"""Features of a dictionary that means are over, at most."""
MEASURES = {"token_r2": "token R2", "purity": "purity", "coherence": "coherence of activations"}
"""What is measured of a feature, and what it is called."""
_POSITIONS = 1 << 32  # more than any document has


@dataclass(frozen=True)
class SampleFeature:
    """A feature, what is measured of it, and where it fires most strongly."""

    feature: int
    firings: int
    scores: Mapping[str, float]
    """nan where it fires too rarely to be measured."""
    contexts: list[dict[str, Any]]


@dataclass(frozen=True)
class Telling:
    """What the features of a dictionary tell a reader."""

    firing: int
    often: int
    """Features that fire on 30 or more tokens in 10 or more documents, of which those that are measured are drawn."""
    means: Mapping[str, float]
    samples: list[SampleFeature]
    """Drawn among all that fire."""

    @classmethod
    def of(cls, database: FeatureDatabase, store: Store, shown: int, contexts: int) -> Telling:
        """What the text of the database, which is that of the store, shows of its features."""
        table, generator = database.features(), np.random.default_rng(0)
        fired, often = table.column("fired").to_numpy(), np.flatnonzero(~np.isnan(_numbers(database, "purity")))
        measured = generator.permutation(often)[:MEASURED]
        samples = np.sort(generator.permutation(np.flatnonzero(fired))[:shown])
        scores = {name: _numbers(database, name) for name in ("token_r2", "purity")}
        scores["coherence"] = _coherence(database, store, np.union1d(measured, np.intersect1d(samples, often)))
        return cls(
            int((fired > 0).sum()),
            len(often),
            {name: mean_of_defined(values[measured]) for name, values in scores.items()},
            [
                SampleFeature(
                    feature, int(fired[feature]), {name: float(values[feature]) for name, values in scores.items()},
                    database.contexts(feature)[:contexts],
                )
                for feature in samples.tolist()
            ],
        )  # fmt: skip


def _numbers(database: FeatureDatabase, column: str) -> NDArray[np.float64]:
    """A column of the table of features; nan where there is nothing."""
    values: NDArray[np.float64] = database.features().column(column).cast("float64").fill_null(np.nan).to_numpy()
    return values


def _coherence(database: FeatureDatabase, store: Store, features: NDArray[np.int64]) -> NDArray[np.float64]:
    """Of these features how alike the activations in their ten strongest contexts are; nan of all others."""
    from pyarrow import compute

    found = np.full(database.info.n, np.nan)
    if not len(features):
        return found
    tokens = store[0 : database.info.tokens]
    x = tokens.activations.float()
    centred = x - x[~tokens.massive].mean(dim=0)
    place = _places(tokens.document) + tokens.position.numpy()
    order = np.argsort(place)
    table = database.contexts_of(0, database.info.n)
    strongest = compute.and_(compute.equal(table["group"], "strongest"), compute.less(table["rank"], CONTEXTS))
    rows = table.select(["feature", "document", "position"]).filter(strongest)
    feature, document, position = (rows.column(name).to_numpy() for name in rows.column_names)
    at = order[np.searchsorted(place, _places(torch.from_numpy(document.copy())) + position, sorter=order)]
    groups = [at[feature == each] for each in features]
    contexts = [Contexts(group, [np.arange(len(group))]) for group in groups]
    found[features] = coherence_of_activations(centred, contexts)[:, 0]
    return found


def _places(document: torch.Tensor) -> NDArray[np.int64]:
    """Where documents begin in an order of all their tokens."""
    return document.numpy().astype(np.int64) * _POSITIONS
