"""Orthogonal matching pursuit among the candidates of one token (CPU): c by c inner products, no activation."""

from __future__ import annotations

import numpy as np
import torch
from numba import int64
from torch import Tensor

from expander_sae.kernels.cpu.columns import Columns, Floats, Integers, columns_of, compiled, inlined
from expander_sae.kernels.cpu.greedy import (
    Codes,
    Limits,
    Scratch,
    append_to_factor,
    finish,
    limits_of,
    make_scratch,
    refit,
    write_codes,
)
from expander_sae.kernels.greedy import Rules
from expander_sae.kernels.threads import over_tiles

TILE = 32
"""Tokens that a thread takes at a time."""


@inlined
def _best_open(correlations: Floats, size: int, floor: float, signed: bool, scratch: Scratch) -> int:
    """The candidate with the largest correlation above the floor that is neither in use nor refused, or -1."""
    best, found = floor, int64(-1)
    for candidate in range(size):
        score = abs(correlations[candidate]) if signed else correlations[candidate]
        if score > best and not scratch.closed[candidate]:
            best, found = score, candidate
    return found


@inlined
def _take(candidate: int, gram: Floats, target: Floats, limits: Limits, scratch: Scratch, count: int) -> int:
    """Put a candidate to those in use and refit them all; returns how many are in use then."""
    for position in range(count):
        scratch.gram[count, position] = gram[candidate, scratch.chosen[position]]
    scratch.gram[count, count] = gram[candidate, candidate]
    scratch.chosen[count], scratch.codes[count], scratch.fitted[count] = candidate, 0, 0
    scratch.target[count] = target[candidate]
    pivot = append_to_factor(scratch.factor, scratch.gram, count, int64(0))
    if pivot < limits.dependent:
        return count
    return refit(scratch.residual[candidate], pivot, limits, scratch, count, int64(0))


@compiled
def _pursue(gram: Floats, target: Floats, norms: Floats, limits: Limits, scratch: Scratch, out: Codes) -> None:
    """Fill the values and places [batch, k] of `out`; `scratch.residual` holds the correlations with what is left."""
    size = target.shape[1]
    for token in range(target.shape[0]):
        count, picks = int64(0), int64(0)
        for candidate in range(size):
            scratch.residual[candidate] = target[token, candidate]
        while count < scratch.codes.size and picks < scratch.picked.size:
            floor = limits.rounding * norms[token]
            candidate = _best_open(scratch.residual, size, floor, limits.signed, scratch)
            if candidate < 0:
                break
            scratch.picked[picks] = candidate
            scratch.closed[candidate] = True
            picks += 1
            count = _take(candidate, gram[token], target[token], limits, scratch, count)
            for other in range(size):
                total = target[token, other]
                for position in range(count):
                    total -= gram[token, scratch.chosen[position], other] * scratch.codes[position]
                scratch.residual[other] = total
        finish(picks, limits, scratch, count)
        write_codes(scratch, count, out[0][token], out[1][token])


@compiled
def _gram(columns: Columns, indices: Integers, spread: Floats, out: Floats) -> None:
    """Fill the inner products [batch, c, c]; `spread` [m, c], a token's columns side by side, is zero before and after.

    An entry of one column meets those of all others in its row at once, by vector instructions.
    """
    size = indices.shape[1]
    for token in range(indices.shape[0]):
        for one in range(size):
            for entry in range(columns.starts[indices[token, one]], columns.starts[indices[token, one] + 1]):
                spread[columns.rows[entry], one] = columns.values[entry]
        for other in range(size):
            products = out[token, other]
            for one in range(size):
                products[one] = 0
            for entry in range(columns.starts[indices[token, other]], columns.starts[indices[token, other] + 1]):
                value, row = columns.values[entry], spread[columns.rows[entry]]
                for one in range(size):
                    products[one] += value * row[one]
            for one in range(other):  # summed in the order of the same column, so that halves agree to the last bit
                products[one] = out[token, one, other]
        for one in range(size):
            for entry in range(columns.starts[indices[token, one]], columns.starts[indices[token, one] + 1]):
                spread[columns.rows[entry], one] = 0


def gram_of(values: Tensor, rows: Tensor, indices: Tensor, m: int) -> Tensor:
    """Inner products [batch, c, c] of every token's columns with each other."""
    columns, chosen = columns_of(values.contiguous(), rows.contiguous()), indices.contiguous().numpy()
    out = np.empty((*chosen.shape, chosen.shape[1]), columns.values.dtype)

    def work(start: int, stop: int) -> None:
        _gram(columns, chosen[start:stop], np.zeros((m, chosen.shape[1]), out.dtype), out[start:stop])

    over_tiles(work, len(chosen), TILE)
    return torch.from_numpy(out)


def pursue(gram: Tensor, target: Tensor, x: Tensor, rules: Rules) -> tuple[Tensor, Tensor]:
    """Values and places [batch, k] like `greedy.orthogonal_matching_pursuit` on the candidates."""
    products, aims = np.ascontiguousarray(gram.numpy()), np.ascontiguousarray(target.numpy())
    norms, limits = torch.linalg.vector_norm(x, dim=1).numpy(), limits_of(rules, aims.dtype)
    out = np.zeros((len(aims), rules.k), aims.dtype), np.zeros((len(aims), rules.k), np.int64)

    def work(start: int, stop: int) -> None:
        scratch = make_scratch(1, aims.shape[1], aims.shape[1], rules.k, aims.dtype)
        part = out[0][start:stop], out[1][start:stop]
        _pursue(products[start:stop], aims[start:stop], norms[start:stop], limits,
                Scratch(*(array[0] for array in scratch)), part)  # fmt: skip

    over_tiles(work, len(aims), TILE)
    return torch.from_numpy(out[0]), torch.from_numpy(out[1])
