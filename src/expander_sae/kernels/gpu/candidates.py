"""Orthogonal matching pursuit among a few candidates of every token on GPUs: all steps of a token in one program.

What a pursuit needs to know of candidates is their inner products, with each other and with the token. Both stay in the
registers of the program that takes the steps, so a batch costs one launch; `orthogonal` tells how a step is taken.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from expander_sae.kernels import greedy
from expander_sae.kernels.gpu.correlate import UNFUSED, check_device, device_of
from expander_sae.kernels.gpu.refit import KEPT_PER_WARP, length_of, order_of, solved, without_dropped


@triton.jit(do_not_specialize=["count"])
def _inner_products(
    values: tl.tensor, rows: tl.tensor, lengths: tl.tensor, indices: tl.tensor, gram: tl.tensor, count: tl.tensor,
    DEGREE: tl.constexpr, UNEVEN: tl.constexpr, ENTRIES: tl.constexpr, C: tl.constexpr,
) -> None:  # fmt: skip
    """gram[token, count, count] of the columns indices[token, count]: where two of them share a row, by comparison."""
    token = tl.program_id(0).to(tl.int64)
    indices += token * count
    gram += token * count * count
    place, entry = tl.arange(0, C), tl.arange(0, ENTRIES)
    index = tl.load(indices + place, mask=place < count, other=0)
    there = entry[None, :] < tl.where(place < count, length_of(lengths, index, DEGREE, UNEVEN), 0)[:, None]
    at = index.to(tl.int64)[:, None] * DEGREE + entry[None, :]
    its_rows = tl.load(rows + at, mask=there, other=-1)
    its_values = tl.load(values + at, mask=there, other=0.0)
    for one in range(count):
        feature = tl.load(indices + one).to(tl.int64)
        shared = tl.zeros((C, ENTRIES), dtype=gram.dtype.element_ty)
        for number in range(length_of(lengths, feature, DEGREE, UNEVEN)):
            row = tl.load(rows + feature * DEGREE + number)
            value = tl.load(values + feature * DEGREE + number)
            shared += tl.where(its_rows == row, its_values * value, 0.0)
        tl.store(gram + one * count + place, tl.sum(shared, axis=1), mask=place < count)


@triton.jit(do_not_specialize=["count", "k", "picks"])
def _pursue_among(
    gram: tl.tensor, target: tl.tensor, norms: tl.tensor, out_codes: tl.tensor, out_taken: tl.tensor,
    count: tl.tensor, k: tl.tensor, picks: tl.tensor, tolerance: tl.tensor, rounding: tl.tensor, dependent: tl.tensor,
    SIGNED: tl.constexpr, C: tl.constexpr,
) -> None:  # fmt: skip
    """The codes of a token's candidates, and the step at which each was taken, -1 where it was not."""
    token = tl.program_id(0).to(tl.int64)
    place = tl.arange(0, C)
    real = place < count
    square = token * count * count + place[:, None] * count + place[None, :]
    products = tl.load(gram + square, mask=real[:, None] & real[None, :], other=0.0)
    aims = tl.load(target + token * count + place, mask=real, other=0.0)
    norm = tl.load(norms + token)
    codes = tl.zeros((C,), dtype=gram.dtype.element_ty)
    inverse = tl.zeros((C, C), dtype=gram.dtype.element_ty)
    taken = tl.full((C,), -1, tl.int32)
    refused = place >= count
    left_square = norm * norm
    step = 0
    going = 1
    while going > 0:
        used = taken >= 0
        seen = aims - tl.sum(products * codes[None, :], axis=1)
        score = tl.abs(seen) if SIGNED else seen
        score = tl.where(used | refused, float("-inf"), score)
        best = tl.max(score, axis=0)
        going = ((best > rounding * norm) & (tl.sum(used.to(tl.int32), axis=0) < k) & (step < picks)).to(tl.int32)
        going = going & (left_square > tolerance * tolerance * norm * norm).to(tl.int32)
        if going > 0:
            it = place == tl.min(tl.where(score == best, place, C), axis=0)
            shared = tl.where(used, tl.sum(tl.where(it[None, :], products, 0.0), axis=1), 0.0)
            solution = tl.sum(inverse * shared[None, :], axis=1)
            apart = 1.0 - tl.sum(shared * solution, axis=0)
            if apart >= dependent:
                border = tl.where(it, -1.0, solution)
                turned = inverse + border[:, None] * border[None, :] / apart
                use = used | it
                new = solved(turned, products, aims, use)
                if not SIGNED:
                    use, turned, new = without_dropped(codes, turned, products, aims, use, new, place)
                again = aims - tl.sum(products * new[None, :], axis=1)
                new_square = norm * norm - tl.sum(new * (aims + again), axis=0)
                # In rounded arithmetic, several columns that nearly depend on others can be fitted to anything.
                if new_square > left_square + rounding * norm * norm:
                    refused = refused | it
                else:
                    codes = tl.where(use, new, 0.0)
                    inverse = turned
                    taken = tl.where(use, tl.where(it, step, taken), -1)
                    left_square = tl.minimum(new_square, left_square)
            else:
                refused = refused | it
            step += 1
    tl.store(out_codes + token * count + place, codes, mask=real)
    tl.store(out_taken + token * count + place, taken, mask=real)


def gram_of(
    values: Float[Tensor, "n d"],
    rows: Int[Tensor, "n d"],
    lengths: Int[Tensor, " n"] | None,
    indices: Int[Tensor, "batch c"],
) -> Float[Tensor, "batch c c"]:
    """Inner products of every token's columns with each other."""
    check_device(values, rows, indices)
    (batch, count), degree = indices.shape, values.shape[1]
    gram = values.new_empty(batch, count, count)
    places, entries = max(16, triton.next_power_of_2(count)), triton.next_power_of_2(degree)
    with device_of(values):
        _inner_products[(batch,)](
            values, rows, lengths, indices.contiguous(), gram, count, degree, lengths is not None, entries, places,
            num_warps=min(16, max(1, places * entries // KEPT_PER_WARP)), **UNFUSED,
        )  # fmt: skip
    return gram


def pursue(
    gram: Float[Tensor, "batch c c"], target: Float[Tensor, "batch c"], x: Float[Tensor, "batch m"], rules: greedy.Rules
) -> tuple[Float[Tensor, "batch k"], Int[Tensor, "batch k"]]:
    """Values and places among the candidates like `greedy.orthogonal_matching_pursuit`, in the order of the steps."""
    check_device(gram, target, x)
    codes, taken = torch.empty_like(target), torch.empty_like(target, dtype=torch.int32)
    places = max(16, triton.next_power_of_2(target.shape[1]))
    limits = rules.tolerance, greedy.ROUNDING * torch.finfo(x.dtype).eps, greedy.DEPENDENT[x.element_size()]
    with device_of(x):
        _pursue_among[(len(x),)](
            gram.contiguous(), target.contiguous(), torch.linalg.vector_norm(x, dim=1), codes, taken, target.shape[1],
            rules.k, greedy.PICKS_PER_FEATURE * rules.k, *limits, rules.signed, places,
            num_warps=min(16, max(1, places * places // KEPT_PER_WARP)), **UNFUSED,
        )  # fmt: skip
    order = order_of(taken, taken >= 0)[:, : rules.k]
    return codes.gather(1, order), order
