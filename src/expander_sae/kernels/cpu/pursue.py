"""`pursue` on CPUs: greedy steps with local updates, or in lockstep, whichever is cheaper for the sizes at hand."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from expander_sae.kernels.cpu.columns import Integers, columns_of
from expander_sae.kernels.cpu.greedy import limits_of
from expander_sae.kernels.cpu.local import Lists, pursue_locally
from expander_sae.kernels.cpu.lockstep import pursue_in_lockstep
from expander_sae.kernels.greedy import Rules
from expander_sae.supports import RowLists

_LOOK = 0.234
"""What lockstep takes for a step, by entries of a column; the unit is what the local form takes to search a feature."""
_UPDATE, _CHAIN = 7.5, 12.5
"""What the local form takes to change a feature's correlation, and how much more of that every column of a chain makes.

A step changes the residual on the coordinates of its column and of those that hang together with it, and with it all
columns there. Time of the local form over that of lockstep, one thread of an AMD EPYC, uniform rows:
m=576, n=4608, k=16: d=2 1.4, d=4 1.4, d=7 1.6, d=8 2.0; n=65536: d=2 1.9, d=4 1.7, d=7 2.0;
m=2048, n=16384, k=32: d=5 0.86, d=7 0.89, d=9 0.97, d=10 1.07, d=12 1.7; n=65536: d=7 0.93, d=10 1.24;
m=4096, n=16384, k=64: d=7 0.63, d=10 0.74; m=2304, n=16384, k=16: d=8 0.98; n=65536: d=4 1.3.
"""


def lockstep_is_cheaper(starts: Integers, n: int, k: int) -> bool:
    """Whether orthogonal steps should go in lockstep, judged by the dictionary and k alone.

    A token's codes must not depend on the tokens that happen to be in its batch, not even by rounding.
    """
    shares = np.diff(starts) / n
    degree, touched = shares.sum(), shares @ shares
    return bool(_LOOK * degree < 1 + touched * (_UPDATE + _CHAIN * k * touched))


def pursue(
    x: Tensor, unit: Tensor, rows: Tensor, row_lists: RowLists, rules: Rules, orthogonal: bool
) -> tuple[Tensor, Tensor]:
    """Greedy codes for unit columns like `reference.pursue`; shorter columns end with rows of -1."""
    tokens, values = x.numpy(), unit.numpy()
    columns, limits = columns_of(values, rows.numpy()), limits_of(rules, tokens.dtype)
    out = np.zeros((len(tokens), rules.k), tokens.dtype), np.zeros((len(tokens), rules.k), np.int64)
    starts, features, slots = (array.numpy() for array in (row_lists.starts, row_lists.features, row_lists.slots))
    if orthogonal and lockstep_is_cheaper(starts, len(values), rules.k):
        pursue_in_lockstep(tokens, columns, limits, out)
    else:
        list_values = values.reshape(-1).take(features * np.int64(values.shape[1]) + slots)
        by_row = Lists(starts, features.view(np.uint32), list_values)
        pursue_locally(tokens, columns, by_row, limits, out, orthogonal)
    return torch.from_numpy(out[0]), torch.from_numpy(out[1])
