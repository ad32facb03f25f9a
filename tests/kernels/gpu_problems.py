"""Small problems for the Triton kernels, and block sizes under which even those have many blocks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import torch
from hypothesis import strategies as st
from torch import Tensor

from expander_sae import Support
from expander_sae.kernels.gpu import correlate as gpu_correlate
from expander_sae.kernels.gpu import orthogonal as gpu_orthogonal
from expander_sae.kernels.gpu import pursue as gpu_pursue
from expander_sae.kernels.gpu import select as gpu_select

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
"""Where there is no GPU the kernels run in Triton's interpreter (tests/conftest.py), about 0.1 s a token."""


def columns(
    seed: int, batch: int, m: int, n: int, d: int, dtype: torch.dtype, *, ties: bool = False
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x, values, rows and bias; small integers if `ties`, so that equal scores, zeros of both signs too, are common."""
    generator = torch.Generator().manual_seed(seed)
    numbers = [torch.randn(*shape, generator=generator, dtype=dtype) for shape in ((batch, m), (n, d), (n,))]
    x, values, bias = [(number.round() if ties else number).to(DEVICE) for number in numbers]
    return x, values, Support.make("uniform", m=m, n=n, d=d, seed=seed).rows.to(DEVICE), bias


@st.composite
def problems(draw, *, batch, m, n, d, may_tie=False, dtypes=(torch.float32, torch.float64)):
    """`columns` of drawn sizes; no column is longer than a token is wide."""
    seed, width, dtype = draw(st.integers(0, 10**6)), draw(m), draw(st.sampled_from(dtypes))
    return columns(seed, draw(batch), width, draw(n), min(draw(d), width), dtype, ties=may_tie and draw(st.booleans()))


@contextmanager
def small_blocks() -> Iterator[None]:
    """Two tokens to a tile, a few of everything else, two programs and a workspace for about three tokens."""
    with (
        mock.patch.multiple(gpu_correlate, TILE=2, BLOCK_BYTES=64, COORDINATES_AT_ONCE=4, PROGRAMS=2),
        mock.patch.multiple(
            gpu_select, TILE=2, MEMBERS_AT_ONCE=4, KEYS_AT_ONCE=16, KEYS_PER_WARP=8, WORKSPACE_BYTES=1000
        ),
        mock.patch.multiple(gpu_pursue, TILE=2, ROWS_AT_ONCE=2, ENTRIES_AT_ONCE=4),
        mock.patch.multiple(gpu_orthogonal, TILE=2, GROUPS_AT_ONCE=4, COORDINATES_AT_ONCE=4, PROGRAMS=2),
    ):
        yield
