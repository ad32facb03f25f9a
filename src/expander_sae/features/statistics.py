"""How often and how strongly features fire, counted over all of their firings."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from expander_sae.features.schema import BINS, RARE
from expander_sae.features.shards import Block, Text


def statuses(fired: NDArray[np.int64]) -> NDArray[np.str_]:
    """Of every feature: alive, rare or dead."""
    return np.where(fired == 0, "dead", np.where(fired < RARE, "rare", "alive"))


def statistics(block: Block, text: Text, tokens: int) -> dict[str, Any]:
    """The columns of the table of features that follow from their firings; `tokens` are those that are not massive."""
    fired = np.diff(block.starts)
    silent = fired == 0
    document = text.document[block.place]
    new = np.ones(len(document), dtype=bool)
    new[1:] = (document[1:] != document[:-1]) | (block.feature[1:] != block.feature[:-1])
    largest = _reduced(np.maximum, block.magnitude, block.starts)

    def mean(values: NDArray[Any]) -> NDArray[np.float64]:
        total = np.bincount(block.feature, weights=values, minlength=block.count)
        return np.ma.masked_array(total / np.maximum(fired, 1), silent)

    top = np.where(silent, 1, largest)[block.feature]
    bins = np.minimum((block.magnitude / top * BINS).astype(np.int64), BINS - 1)
    histogram = np.bincount(block.feature * np.int64(BINS) + bins, minlength=block.count * BINS)
    return {
        "feature": block.features,
        "status": statuses(fired),
        "fired": fired,
        "density": fired / tokens,
        "documents": np.bincount(block.feature[new], minlength=block.count),
        "mean": mean(block.value),
        "largest": np.ma.masked_array(largest, silent),
        "smallest": np.ma.masked_array(_reduced(np.minimum, block.magnitude, block.starts), silent),
        "rank_mean": mean(block.rank),
        "histogram": histogram.reshape(block.count, BINS),
    }


def _reduced(operation: np.ufunc, values: NDArray[np.float32], starts: NDArray[np.int64]) -> NDArray[np.float32]:
    """The operation over the values of each feature; 0 for features without any."""
    result = np.zeros(len(starts) - 1, np.float32)
    firing = np.flatnonzero(np.diff(starts))
    if len(firing):
        result[firing] = operation.reduceat(values, starts[firing])
    return result
