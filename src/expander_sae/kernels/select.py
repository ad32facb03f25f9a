"""`select`: the largest correlations of every token, exactly, without holding all of them.

It is registered with torch as an operator, so that `torch.compile` keeps it whole and gradients reach what it selected.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from expander_sae.kernels.inputs import (
    Implementation,
    check_inputs,
    choose,
    padded_with_zeros,
    result_dtype,
    with_lengths,
    working_dtype,
)
from expander_sae.kernels.products import bias_gradient, select_gradients


@torch.library.custom_op("expander_sae::select", mutates_args=())
def _select(
    x: Tensor, values: Tensor, rows: Tensor, k: int, bias: Tensor | None, signed: bool, implementation: str
) -> tuple[Tensor, Tensor]:
    version = choose(implementation, x.device)
    uneven = check_inputs(x, values, rows, k, bias, tokens_too=version != "cpu")
    dtype = working_dtype(x, values, bias)
    result = result_dtype(x, values, bias)
    bias = torch.zeros(values.shape[0], dtype=dtype, device=x.device) if bias is None else bias.to(dtype).contiguous()
    x, values, rows = x.contiguous(), values.contiguous(), rows.contiguous()
    # Imported where they are used: Numba and Triton take a while. Sums have the precision of the bias in all of them.
    if version == "gpu":
        from expander_sae.kernels.gpu.select import select as select_on_gpu

        scores, indices = select_on_gpu(x, *with_lengths(values, rows, uneven), k, bias, signed)
        return scores.to(result), indices
    if version == "cpu":  # which reads every column as long as it is
        from expander_sae.kernels.cpu.select import select
    else:
        from expander_sae.kernels.reference import select

        values, rows = padded_with_zeros(values, rows) if uneven else (values, rows)
    scores, indices = select(x, values, rows, k, bias, signed)
    return scores.to(result), indices


@_select.register_fake
def _(x: Tensor, values: Tensor, rows: Tensor, k: int, bias: Tensor | None, *_: Any) -> tuple[Tensor, Tensor]:
    shape = (x.shape[0], k)
    return x.new_empty(shape, dtype=result_dtype(x, values, bias)), x.new_empty(shape, dtype=torch.int64)


def _keep_for_gradient(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, values, rows, _, bias, _, _ = inputs
    ctx.save_for_backward(x, values, rows, output[1])
    ctx.bias = None if bias is None else (bias.shape, bias.dtype)
    ctx.mark_non_differentiable(output[1])


def _gradient(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    """Gradients through the selected entries only: each is one gathered product, whichever kernel chose it."""
    x, values, rows, indices = ctx.saved_tensors
    wanted = ctx.needs_input_grad
    grad_x, grad_values = select_gradients(grad, x, indices, values, rows, wanted[0], wanted[1])
    grad_bias = None
    if ctx.bias is not None and wanted[4]:
        grad_bias = bias_gradient(grad, indices, *ctx.bias)
    return grad_x, grad_values, None, None, grad_bias, None, None


_select.register_autograd(_gradient, setup_context=_keep_for_gradient)


def select(
    x: Float[Tensor, "batch m"],
    values: Float[Tensor, "n d"],
    rows: Int[Tensor, "n d"],
    k: int,
    bias: Float[Tensor, " n"] | None = None,
    signed: bool = False,
    implementation: Implementation = "auto",
) -> tuple[Float[Tensor, "batch k"], Int[Tensor, "batch k"]]:
    """The k largest entries of `W^T x + bias` for every token, and their features, without ever holding [batch, n].

    Largest by magnitude when `signed`; in descending order, equal ones by lowest feature; exact, and the same to the
    last bit in every implementation. Sums are in float32 (float64 if an input is). Gradients flow to x, values and
    bias through the selected entries. Columns shorter than d end with rows of -1, whose values do not count.
    """
    scores, indices = _select(x, values, rows, k, bias, signed, implementation)
    return scores, indices
