"""`pursue`: greedy codes of every token by matching pursuit, plain or orthogonal."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from expander_sae.errors import ExpanderError
from expander_sae.kernels.greedy import Rules
from expander_sae.kernels.inputs import (
    Implementation,
    check_inputs,
    choose,
    with_lengths,
    working_dtype,
)
from expander_sae.supports import RowLists


@torch.library.custom_op("expander_sae::pursue", mutates_args=())
def _pursue(
    x: Tensor,
    values: Tensor,
    rows: Tensor,
    starts: Tensor,
    features: Tensor,
    slots: Tensor,
    k: int,
    signed: bool,
    tolerance: float,
    orthogonal: bool,
    implementation: str,
) -> tuple[Tensor, Tensor]:
    uneven = check_inputs(x, values, rows, k)
    result, dtype = x.dtype, working_dtype(x, values)
    x, values = x.to(dtype).contiguous(), values.to(dtype)
    version, rules = choose(implementation, x.device), Rules(k, signed, tolerance)
    lists = RowLists(starts, features, slots)
    if starts.numel() == 0 and reads_row_lists(version, orthogonal):
        raise ExpanderError("This pursuit follows the row lists of the support; give them.")
    if version == "cpu":  # which reads every column as long as it is
        from expander_sae.kernels.cpu.pursue import pursue as pursue_on_cpu

        codes, indices = pursue_on_cpu(x, values, rows.contiguous(), lists, rules, orthogonal)
        return codes.to(result), indices
    values, row_of_each, lengths = with_lengths(values, rows, uneven)
    norms = torch.linalg.vector_norm(values, dim=1)
    scale = torch.where(norms > 0, 1 / norms, 0.0)
    unit = (values * scale[:, None]).contiguous()
    if version == "gpu":
        from expander_sae.kernels.gpu.pursue import pursue as pursue_on_gpu

        codes, indices = pursue_on_gpu(x, unit, row_of_each, lengths, lists, rules, orthogonal)
    else:
        from expander_sae.kernels.reference import pursue

        codes, indices = pursue(x, unit, row_of_each, lists, rules, orthogonal)
    return (codes * scale[indices]).to(result), indices


@_pursue.register_fake
def _(x: Tensor, values: Tensor, rows: Tensor, starts: Tensor, features: Tensor, slots: Tensor, k: int, *_: Any) -> Any:
    shape = (x.shape[0], k)
    return x.new_empty(shape), x.new_empty(shape, dtype=torch.int64)


def reads_row_lists(version: str, orthogonal: bool) -> bool:
    """Whether a version of the kernel has a use for row lists, which take a while to make when columns have moved."""
    return version == "cpu" or (version == "gpu" and not orthogonal)


def pursue(
    x: Float[Tensor, "batch m"],
    values: Float[Tensor, "n d"],
    rows: Int[Tensor, "n d"],
    row_lists: RowLists | None,
    rules: Rules,
    *,
    orthogonal: bool,
    implementation: Implementation = "auto",
) -> tuple[Float[Tensor, "batch k"], Int[Tensor, "batch k"]]:
    """Greedy codes (values [batch, k], indices [batch, k]) of every token, in the order the features were taken.

    Each step takes the column that correlates best with what is left of the token, columns scaled to unit norm, then
    subtracts its share (matching pursuit) or refits all columns taken so far (orthogonal). Entries that a token did not
    need are zero. No gradient flows through the choice. The row lists of the support may be left out where
    `reads_row_lists` says so.
    """
    if row_lists is None:
        row_lists = RowLists(rows.new_empty(0), rows.new_empty(0), rows.new_empty(0))
    lists = row_lists.starts, row_lists.features, row_lists.slots
    codes, indices = _pursue(
        x.detach(), values.detach(), rows, *lists, rules.k, rules.signed, rules.tolerance, orthogonal, implementation
    )
    return codes, indices
