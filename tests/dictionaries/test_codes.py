"""Codes between their sparse and dense forms."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from expander_sae import Codes


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 20), shape=st.sampled_from([(), (3,), (2, 4), (0,)]))
def test_dense_and_back(seed, n, shape):
    torch.manual_seed(seed)
    dense = torch.randn(*shape, n) * (torch.rand(*shape, n) < 0.4)
    codes = Codes.from_dense(dense)
    assert torch.equal(codes.to_dense(), dense)
    assert torch.equal(codes.l0, (dense != 0).sum(-1))
    assert torch.equal(Codes.from_dense(dense, k=n).to_dense(), dense)


def test_unused_entries_count_for_nothing():
    codes = Codes(torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([[0, 0, 0]]), 4)
    assert codes.to_dense().tolist() == [[2.0, 0.0, 0.0, 0.0]]
    assert codes.l0.tolist() == [1]


def test_concatenate_pads_to_the_widest():
    one = Codes(torch.ones(2, 3), torch.arange(3).expand(2, 3), 9)
    two = Codes(torch.ones(1, 5), torch.arange(5).expand(1, 5), 9)
    both = Codes.concatenate([one, two])
    assert torch.equal(both.to_dense(), torch.cat([one.to_dense(), two.to_dense()]))


def test_indexing_moving_and_reshaping():
    codes = Codes(torch.randn(6, 3), torch.arange(3).expand(6, 3), 9)
    assert torch.equal(codes[2:4].to_dense(), codes.to_dense()[2:4])
    assert torch.equal(codes.reshape(2, 3).to_dense(), codes.to_dense().reshape(2, 3, 9))
    assert codes.to(torch.float64).values.dtype == torch.float64
