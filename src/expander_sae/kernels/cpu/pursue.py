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

MEETINGS = 2.0
"""Lockstep is cheaper when a chosen column shares coordinates with more than this many of the others.

Beyond about one, the chosen columns hang together, and nearly every step of a local update changes the residual on all
of them. Time of the local form over that of lockstep, one thread, uniform rows:
m=576, n=4608, k=16: d=2 0.7, d=4 0.7, d=7 0.9, d=8 1.1, d=10 1.7, d=16 3.8, d=32 7.8, d=64 13 (meetings at d=8: 1.8);
m=2048, n=16384, k=32: d=4 0.5, d=7 0.5, d=11 0.8, d=13 1.2, d=16 2.0, d=32 5.2 (meetings at d=12: 2.3).
Since lockstep looks in 16 bits: m=576 d=6 0.9, d=7 1.0, d=8 1.2; m=2048 d=7 0.5, d=9 0.6, d=10 0.7.
Before that equal at 2.6 for m=576, n=4608, k=64 and at 2.1 for m=768, n=24576, k=32; signed or not makes no difference.
"""


def lockstep_is_cheaper(starts: Integers, n: int, k: int) -> bool:
    """Whether orthogonal steps should go in lockstep, judged by the dictionary and k alone.

    A token's codes must not depend on the tokens that happen to be in its batch, not even by rounding.
    """
    shares = np.diff(starts) / n
    return bool(k * (shares @ shares) > MEETINGS)


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
