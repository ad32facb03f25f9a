"""`pursue` on CPUs: greedy steps with local updates, or in lockstep, whichever is cheaper for the sizes at hand."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from expander_sae.kernels.cpu.columns import Columns, Floats, Integers, columns_of, compiled
from expander_sae.kernels.cpu.greedy import limits_of
from expander_sae.kernels.cpu.local import Lists, pursue_locally
from expander_sae.kernels.cpu.lockstep import pursue_in_lockstep
from expander_sae.kernels.greedy import Rules
from expander_sae.supports import RowLists

_LOOK = 0.231
"""What lockstep takes for a step, by entries of a column; the unit is what the local form takes to search a feature."""
_UPDATE, _CHAIN = 6.0, 14.0
"""What the local form takes to change a feature's correlation, and how much more of that every column of a chain makes.

A step changes the residual on the coordinates of its column and of those that hang together with it, and with it all
columns there. Time of the local form over that of lockstep, one thread of an AMD EPYC, uniform rows:
m=576, n=4608, k=16: d=2 1.6, d=4 1.5, d=7 1.7, d=8 2.1; n=65536: d=2 2.0, d=4 1.7, d=7 2.2;
m=2048, n=16384, k=32: d=5 0.77, d=7 0.78, d=9 0.90, d=10 1.05, d=12 1.6; n=65536: d=7 0.88, d=10 1.17;
m=4096, n=16384, k=64: d=7 0.56, d=10 0.69; m=2304, n=16384, k=16: d=8 0.85; n=65536: d=4 1.3.
"""


def lockstep_is_cheaper(starts: Integers, n: int, k: int) -> bool:
    """Whether orthogonal steps should go in lockstep, judged by the dictionary and k alone.

    A token's codes must not depend on the tokens that happen to be in its batch, not even by rounding.
    """
    shares = np.diff(starts) / n
    degree, touched = shares.sum(), shares @ shares
    return bool(_LOOK * degree < 1 + touched * (_UPDATE + _CHAIN * k * touched))


@compiled
def _scale_to_unit(columns: Columns, scale: Floats, unit: Floats) -> None:
    """unit = the columns at unit norm, and scale [n] what that takes: zero where squares are zero or infinite."""
    for feature in range(scale.size):
        first = columns.starts[feature]
        square = columns.values[first] * columns.values[first]
        for entry in range(first + 1, columns.starts[feature + 1]):
            square += columns.values[entry] * columns.values[entry]
        scale[feature] = 1 / square**0.5 if square > 0 else 0
        for entry in range(columns.starts[feature], columns.starts[feature + 1]):
            unit[entry] = columns.values[entry] * scale[feature]


@compiled
def _multiply_at(indices: Integers, scale: Floats, codes: Floats) -> None:
    """codes [batch, k] *= scale [n] of their features."""
    for token in range(codes.shape[0]):
        for rank in range(codes.shape[1]):
            codes[token, rank] *= scale[indices[token, rank]]


def pursue(
    x: Tensor, values: Tensor, rows: Tensor, row_lists: RowLists, rules: Rules, orthogonal: bool
) -> tuple[Tensor, Tensor]:
    """Greedy codes like those of `kernels.pursue`; shorter columns end with rows of -1."""
    tokens, n = x.numpy(), len(values)
    columns, limits = columns_of(values, rows), limits_of(rules, tokens.dtype)
    scale, unit = np.empty(n, tokens.dtype), np.empty_like(columns.values)
    _scale_to_unit(columns, scale, unit)
    columns = columns._replace(values=unit)
    out = np.zeros((len(tokens), rules.k), tokens.dtype), np.zeros((len(tokens), rules.k), np.int64)
    starts, features, slots = (array.numpy() for array in (row_lists.starts, row_lists.features, row_lists.slots))
    if orthogonal and lockstep_is_cheaper(starts, n, rules.k):
        pursue_in_lockstep(tokens, rows, columns, limits, out)
    else:
        by_row = Lists(starts, features.view(np.uint32), unit.take(columns.starts[features] + slots))
        pursue_locally(tokens, columns, by_row, limits, out, orthogonal)
    _multiply_at(out[1], scale, out[0])
    codes, indices = map(torch.from_numpy, out)
    return codes, indices
