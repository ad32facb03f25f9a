"""Other rows for columns on CPUs: codes sorted by features, columns ranked by counting and put in order by bits."""

from __future__ import annotations

import numpy as np
import torch
from numba import uint64
from torch import Tensor

from expander_sae.kernels.cpu.columns import Flags, Floats, Integers, compiled
from expander_sae.kernels.cpu.numbers import lowest_bit
from expander_sae.kernels.cpu.ranking import WIDTH, keep_best, list_length, sort_best
from expander_sae.kernels.inputs import extremes
from expander_sae.kernels.threads import over_tiles
from expander_sae.supports import NO_ROW

TILE = 64
"""Columns that a thread takes at a time."""


@compiled
def _sort_by_features(
    codes: Floats, indices: Integers, starts: Integers, ends: Integers, tokens: Integers, weights: Floats
) -> None:
    """Fill the first of tokens and weights, and `starts` [n + 1], which are zero; `ends` [n] is room."""
    for token in range(codes.shape[0]):
        for rank in range(codes.shape[1]):
            starts[indices[token, rank] + 1] += codes[token, rank] != 0
    for feature in range(ends.size):
        starts[feature + 1] += starts[feature]
        ends[feature] = starts[feature]
    for token in range(codes.shape[0]):
        for rank in range(codes.shape[1]):
            if codes[token, rank] != 0:
                feature = indices[token, rank]
                tokens[ends[feature]], weights[ends[feature]] = token, codes[token, rank]
                ends[feature] += 1


@compiled
def _largest_of_columns(
    change: Floats,
    values: Floats,
    rows: Integers,
    start: int,
    stop: int,
    sizes: Floats,
    places: Integers,
    found: Integers,
    largest: Floats,
) -> None:
    """`sizes` and `places` are room for a list of a column's magnitudes."""
    m, d = change.shape[1], rows.shape[1]
    for column in range(start, stop):
        for slot in range(d):
            if rows[column, slot] >= 0:
                change[column, rows[column, slot]] = values[column, slot]
        for coordinate in range(m):
            sizes[coordinate], places[coordinate] = abs(change[column, coordinate]), coordinate
        keep_best(sizes, places, m, d, 0)
        at = sort_best(sizes, places, d)
        for slot in range(d):
            found[column, slot] = places[at + slot]
            largest[column, slot] = change[column, places[at + slot]]


@compiled
def _order_columns(
    wanted: Integers,
    values: Floats,
    kept: Flags,
    rows: Integers,
    start: int,
    stop: int,
    present: Integers,
    slots: Integers,
    placed: Integers,
    ordered: Floats,
    source: Integers,
) -> None:
    """`present` has a bit for each row, which are zero before and after, and `slots` room for where its entry is."""
    d = rows.shape[1]
    for column in range(start, stop):
        for slot in range(d):
            if kept[column, slot]:
                row = wanted[column, slot]
                present[row // WIDTH] |= uint64(1) << uint64(row % WIDTH)
                slots[row] = slot
        to, before = 0, 0
        for word in range(present.size):
            while present[word] != 0:
                row = word * WIDTH + lowest_bit(present[word])
                present[word] &= present[word] - uint64(1)
                while before < d and 0 <= rows[column, before] < row:
                    before += 1
                stays = before < d and rows[column, before] == row
                placed[column, to], source[column, to] = row, before if stays else -1
                ordered[column, to] = values[column, slots[row]]
                to += 1
        for slot in range(to, d):
            placed[column, slot], source[column, slot], ordered[column, slot] = NO_ROW, -1, 0


@compiled
def _relocate_columns(
    entries: Floats,
    features: Integers,
    rows: Integers,
    source: Integers,
    new: Floats,
    start: int,
    stop: int,
    before: Floats,
) -> None:
    """`before` [d] is room for a column."""
    for place in range(start, stop):
        column = entries[features[place]]
        for slot in range(column.size):
            before[slot] = column[slot]
        for slot in range(column.size):
            if rows[place, slot] < 0:
                column[slot] = 0
            elif source[place, slot] < 0:
                column[slot] = new[place, min(slot, new.shape[1] - 1)]
            else:
                column[slot] = before[source[place, slot]]


def relocate(entries: Tensor, features: Tensor, rows: Tensor, source: Tensor, new: Tensor) -> None:
    """Put entries where they moved to, like `changes.relocate`."""
    arrays = entries.detach().numpy(), features.numpy(), rows.numpy(), source.numpy(), new.numpy()

    def work(start: int, stop: int) -> None:
        _relocate_columns(*arrays, start, stop, np.empty(entries.shape[1], arrays[0].dtype))

    over_tiles(work, len(features), TILE)
    torch.autograd.graph.increment_version(entries)


def codes_by_feature(codes: Tensor, indices: Tensor, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Codes sorted by features, like `changes.codes_by_feature`."""
    starts, tokens = np.zeros(n + 1, np.int64), np.empty(codes.numel(), np.int64)
    weights = np.empty(codes.numel(), codes.numpy().dtype)
    _sort_by_features(codes.numpy(), indices.numpy(), starts, np.empty(n, np.int64), tokens, weights)
    return torch.from_numpy(starts), torch.from_numpy(tokens[: starts[n]]), torch.from_numpy(weights[: starts[n]])


def largest_entries(change: Tensor, values: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and values of every column's largest entries, like `changes.largest_entries`."""
    (n, m), d = change.shape, rows.shape[1]
    found, largest = rows.new_empty(n, d, dtype=torch.int64), torch.empty_like(values)
    arrays = change.numpy(), values.numpy(), rows.numpy()
    out = found.numpy(), largest.numpy()
    length = list_length(m, d)

    def work(start: int, stop: int) -> None:
        sizes, places = np.empty(length, arrays[0].dtype), np.empty(length, np.uint32)
        _largest_of_columns(*arrays, start, stop, sizes, places, *out)

    over_tiles(work, n, TILE)
    return found, largest


def in_order(wanted: Tensor, values: Tensor, kept: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The entries that columns get in the order of their rows, like `changes.in_order`."""
    placed, ordered, source = torch.empty_like(rows), torch.empty_like(values), torch.empty_like(wanted)
    arrays = wanted.numpy(), values.numpy(), kept.numpy(), rows.numpy()
    out = placed.numpy(), ordered.numpy(), source.numpy()
    highest = extremes(wanted)[1] if wanted.numel() else 0

    def work(start: int, stop: int) -> None:
        present, slots = np.zeros(highest // WIDTH + 1, np.uint64), np.empty(highest + 1, np.uint32)
        _order_columns(*arrays, start, stop, present, slots, *out)

    over_tiles(work, len(rows), TILE)
    return placed, ordered, source
