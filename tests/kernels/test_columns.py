"""Columns as CPU kernels read them: what is kept of their rows is that of the rows as they are."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from expander_sae.kernels.cpu.blocks import SIDE, blocks_of
from expander_sae.kernels.cpu.columns import columns_of, entries_of
from expander_sae.kernels.inputs import _remembered
from expander_sae.supports import NO_ROW, Support
from tests.uneven import shortened


def test_what_is_remembered_of_rows_is_made_anew_when_they_change():
    rows = torch.tensor([[0, 1, 2], [3, NO_ROW, NO_ROW]], dtype=torch.int32)
    assert entries_of(rows)[0].tolist() == [0, 1, 2, 3]
    assert entries_of(rows)[0] is entries_of(rows)[0]
    rows[1, 1] = 5
    assert entries_of(rows)[0].tolist() == [0, 1, 2, 3, 5]
    assert entries_of(rows)[1].tolist() == [0, 3, 5]


@pytest.mark.parametrize("last", [4, NO_ROW])
def test_what_is_remembered_goes_with_the_rows(last: int):
    rows = torch.tensor([[0, 1], [3, last]], dtype=torch.int32)
    blocks = weakref.ref(blocks_of(rows, columns_of(torch.ones(2, 2), rows)).features)
    assert rows in _remembered
    assert blocks() is not None
    del rows
    gc.collect()
    assert blocks() is None


def test_rows_whose_changes_nobody_counts_are_not_remembered():
    with torch.inference_mode():
        rows = torch.tensor([[0, 1], [3, NO_ROW]], dtype=torch.int32)
        assert entries_of(rows)[0].tolist() == [0, 1, 3]
        rows[1, 1] = 7
        assert entries_of(rows)[0].tolist() == [0, 1, 3, 7]


@settings(deadline=None, max_examples=60)
@given(n=st.integers(1, 40), d=st.integers(1, 6), seed=st.integers(0, 10**6), uneven=st.booleans())
def test_every_column_is_in_one_place_of_a_block(n, d, seed, uneven):
    rows = Support.make("uniform", m=12, n=n, d=d, seed=seed).rows
    rows = shortened(rows, seed) if uneven else rows
    values = torch.arange(1.0, n * d + 1).reshape(n, d)
    columns = columns_of(values, rows)
    blocks = blocks_of(rows, columns)
    assert sorted(blocks.features[:n].tolist()) == list(range(n))
    assert (np.diff(np.diff(columns.starts)[blocks.features[:n]].astype(int)) >= 0).all()
    for place, feature in enumerate(blocks.features[:n].tolist()):
        block = slice(int(blocks.starts[place // SIDE]), int(blocks.starts[place // SIDE + 1]))
        found = np.zeros(12), np.zeros(12)
        np.add.at(found[0], blocks.rows[block, place % SIDE], blocks.values[block, place % SIDE])
        here = slice(columns.starts[feature], columns.starts[feature + 1])
        np.add.at(found[1], columns.rows[here], columns.values[here])
        assert (found[0] == found[1]).all()


def test_too_many_values_are_refused():
    rows = torch.zeros(1, 1, dtype=torch.int32).expand(1 << 17, 1 << 15)
    with pytest.raises(Exception, match=r"fewer than 2\*\*32 values"):
        entries_of(rows)
