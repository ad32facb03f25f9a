"""Which feature of another dictionary is most like each of one: by what they fire on, or by what they write."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csc_array, csr_array

from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.errors import ExpanderError
from expander_sae.evaluation.quality.firings import cosines_of_firing
from expander_sae.features.database import FeatureDatabase
from expander_sae.features.shards import Block, Shard, Text, blocks, firing_counts

COLUMNS_AT_ONCE = 1024
"""Columns of one dictionary that are compared with all of the other's together."""


class Match(NamedTuple):
    """For every feature of one dictionary the feature of another that is most like it."""

    features: NDArray[np.int32]
    """-1 for none."""
    cosines: NDArray[np.float32]


def on_the_same_tokens(one: FeatureDatabase, other: FeatureDatabase) -> bool:
    """Whether both databases hold codes of the same tokens, as those have that one command made."""
    same = one.info.origin == other.info.origin and one.info.tokens == other.info.tokens
    return same and bool(one.codes) and bool(other.codes)


def matched_by_firing(
    one: FeatureDatabase, other: FeatureDatabase, report: Callable[[int], None] = lambda done: None
) -> Match:
    """The features whose activations on the same tokens have the largest cosine; none for one that fires with no other.

    Both hold codes of the same tokens. Some features of the one are compared with all of the other at a time, on the
    tokens on which they fire. `report` is told how many are done.
    """
    shards, others = one.shards(), other.shards()
    text = Text.of(shards)
    lengths = _lengths(others)
    token = np.argsort(text.place)
    features, cosines = [], []
    for block in blocks(shards, text, firing_counts(shards)):
        found = _cosines(block, token[block.place], others, lengths)
        best = found.max(axis=1).toarray().ravel()
        features.append(np.where(best > 0, found.argmax(axis=1), -1).astype(np.int32))
        cosines.append(np.where(best > 0, best, 0).astype(np.float32))
        report(block.first + block.count)
    return Match(np.concatenate(features), np.concatenate(cosines))


def _cosines(
    block: Block, token: NDArray[np.int64], others: Sequence[Shard], lengths: NDArray[np.float64]
) -> csr_array:
    """Of the features of a block with all others; `token` numbers the firings' tokens as they were encoded."""
    used, row = np.unique(token, return_inverse=True)
    own = csc_array((block.value, row, block.starts), shape=(len(used), block.count))
    rows = [shard.codes_of(used[(used >= shard.start) & (used < shard.start + shard.tokens)]) for shard in others]
    values, indices = (np.concatenate([part.reshape(-1) for part in parts]) for parts in zip(*rows, strict=True))
    counts = np.concatenate([(part != 0).sum(axis=1) for part, _ in rows])
    active = values != 0
    entries = (values[active], indices[active], np.concatenate([[0], np.cumsum(counts)]))
    return cosines_of_firing(own, csr_array(entries, shape=(len(used), len(lengths))), lengths)


def _lengths(shards: Sequence[Shard]) -> NDArray[np.float64]:
    """Of every feature's activations over the whole text."""
    squares = np.zeros(shards[0].features)
    for shard in shards:
        values, indices = shard.whole("values").reshape(-1), shard.whole("indices").reshape(-1)
        squares += np.bincount(indices, weights=values.astype(np.float64) ** 2, minlength=len(squares))
    return np.sqrt(squares)


@torch.no_grad()
def matched_by_columns(one: SparseAutoencoder, other: SparseAutoencoder) -> Match:
    """The features whose columns point the most nearly the same way."""
    if one.m != other.m:
        raise ExpanderError(f"The two dictionaries are of width {one.m} and {other.m}; they cannot be compared.")
    scale = other.dictionary.inverse_norms(torch.float32)
    lengths = one.dictionary.inverse_norms(torch.float32)
    found, cosines = [], []
    for start in range(0, one.n, COLUMNS_AT_ONCE):
        some = torch.arange(start, min(one.n, start + COLUMNS_AT_ONCE))
        columns = one.dictionary.columns(some).to_dense(one.m).float() * lengths[some, None]
        best = (other.dictionary.correlate(columns).float() * scale).max(dim=1)
        found.append(torch.where(best.values > 0, best.indices, -1).int())
        cosines.append(best.values)
    return Match(torch.cat(found).numpy(), torch.cat(cosines).numpy())
