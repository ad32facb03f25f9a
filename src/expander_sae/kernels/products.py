"""Sparse codes times columns: one sum over codes, columns and tokens, and what is left of it without one of the three.

With w[t, e] the e-th code of token t, c(t, e) its feature, v the values and r the rows of the columns, the sum is

    sum over t, e, s of  w[t, e] * v[c(t, e), s] * x[t, r[c(t, e), s]]

`combine` is its derivative by x (synthesis), `correlate` by w (the encoder at chosen features), and `accumulate` by v
(the gradient of the values). So each is differentiated with the help of the other two.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from expander_sae.errors import ExpanderError
from expander_sae.kernels import reference
from expander_sae.kernels.inputs import Implementation, choose, extremes, result_dtype, working_dtype


@torch.library.custom_op("expander_sae::combine", mutates_args=())
def _combine(
    weights: Tensor, indices: Tensor, values: Tensor, rows: Tensor, onto: Tensor | None, m: int, implementation: str
) -> Tensor:
    dtype = working_dtype(weights, values) if onto is None else onto.dtype
    weights, values = whole(weights, dtype), whole(values, dtype)
    version = choose(implementation, weights.device)
    indices, rows = indices.contiguous(), rows.contiguous()
    # Imported where they are used: Numba takes a while, Triton is not everywhere.
    if version == "cpu":
        from expander_sae.kernels.cpu.products import combine as combine_on_cpu

        return combine_on_cpu(weights, indices, values, rows, None if onto is None else onto.detach(), m)
    base = weights.new_zeros(len(weights), m) if onto is None else onto.detach()
    if version == "reference":
        return reference.combine(weights, indices, values, rows, base)
    from expander_sae.kernels.gpu.products import add_columns

    total = base if onto is None else base.clone(memory_format=torch.contiguous_format)
    add_columns(weights, indices, values, rows, total)
    return total


@_combine.register_fake
def _(
    weights: Tensor, indices: Tensor, values: Tensor, rows: Tensor, onto: Tensor | None, m: int, implementation: str
) -> Tensor:
    dtype = working_dtype(weights, values) if onto is None else onto.dtype
    return weights.new_empty(len(weights), m, dtype=dtype)


@torch.library.custom_op("expander_sae::correlate_at", mutates_args=())
def _correlate(x: Tensor, indices: Tensor, values: Tensor, rows: Tensor, implementation: str) -> Tensor:
    dtype, version = working_dtype(x, values), choose(implementation, x.device)
    x, indices, values, rows = whole(x, dtype), indices.contiguous(), whole(values, dtype), rows.contiguous()
    if version == "reference":
        return reference.correlate_at(x, indices, values, rows)
    if version == "cpu":
        from expander_sae.kernels.cpu.products import correlate_at
    else:
        from expander_sae.kernels.gpu.products import correlate_at
    return correlate_at(x, indices, values, rows)


@_correlate.register_fake
def _(x: Tensor, indices: Tensor, values: Tensor, rows: Tensor, implementation: str) -> Tensor:
    return x.new_empty(indices.shape, dtype=working_dtype(x, values))


@torch.library.custom_op("expander_sae::accumulate", mutates_args=())
def _accumulate(weights: Tensor, indices: Tensor, x: Tensor, rows: Tensor, implementation: str) -> Tensor:
    dtype, version = working_dtype(weights, x), choose(implementation, x.device)
    weights, x, indices, rows = whole(weights, dtype), whole(x, dtype), indices.contiguous(), rows.contiguous()
    if version == "gpu":
        from expander_sae.kernels.gpu.products import Firings, accumulate

        return accumulate(weights, Firings.of(indices, len(rows)), x, rows)
    if version == "cpu":
        from expander_sae.kernels.cpu.products import accumulate as accumulate_on_cpu

        return accumulate_on_cpu(weights, indices, x, rows)
    return reference.accumulate(weights, indices, x, rows)


@_accumulate.register_fake
def _(weights: Tensor, indices: Tensor, x: Tensor, rows: Tensor, implementation: str) -> Tensor:
    return x.new_empty(rows.shape, dtype=working_dtype(weights, x))


def whole(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.detach().to(dtype).contiguous()


def _keep_for_combine(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    weights, indices, values, rows, _, _, ctx.implementation = inputs
    ctx.save_for_backward(weights, indices, values, rows)


def _gradient_of_combine(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    weights, indices, values, rows = ctx.saved_tensors
    wanted, how = ctx.needs_input_grad, ctx.implementation
    grad_weights = _correlate(grad, indices, values, rows, how).to(weights.dtype) if wanted[0] else None
    grad_values = _accumulate(weights, indices, grad, rows, how).to(values.dtype) if wanted[2] else None
    return grad_weights, None, grad_values, None, grad if wanted[4] else None, None, None


def _keep_for_correlate(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, indices, values, rows, ctx.implementation = inputs
    ctx.save_for_backward(x, indices, values, rows)


def _gradient_of_correlate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, indices, values, rows = ctx.saved_tensors
    wanted, how = ctx.needs_input_grad, ctx.implementation
    grad_x, grad_values = select_gradients(grad, x, indices, values, rows, wanted[0], wanted[2], how)
    return grad_x, None, grad_values, None, None


_combine.register_autograd(_gradient_of_combine, setup_context=_keep_for_combine)
_correlate.register_autograd(_gradient_of_correlate, setup_context=_keep_for_correlate)


def select_gradients(
    grad: Float[Tensor, "batch k"],
    x: Float[Tensor, "batch m"],
    indices: Int[Tensor, "batch k"],
    values: Float[Tensor, "n d"],
    rows: Int[Tensor, "n d"],
    of_x: bool,
    of_values: bool,
    implementation: str = "auto",
) -> tuple[Float[Tensor, "batch m"] | None, Float[Tensor, "n d"] | None]:
    """What the gradient of correlations at chosen features says of the tokens, and of the values."""
    grad_x = grad_values = None
    if of_x:
        grad_x = _combine(grad, indices, values, rows, None, x.shape[1], implementation).to(x.dtype)
    if of_values:
        grad_values = _accumulate(grad, indices, x, rows, implementation).to(values.dtype)
    return grad_x, grad_values


def bias_gradient(
    grad: Float[Tensor, "batch k"], indices: Int[Tensor, "batch k"], shape: torch.Size, dtype: torch.dtype
) -> Tensor:
    """What the gradient of correlations at chosen features says of a bias of this shape and dtype."""
    return grad.new_zeros(shape).index_add_(0, indices.reshape(-1), grad.reshape(-1)).to(dtype)


def combine(
    weights: Float[Tensor, "batch k"],
    indices: Int[Tensor, "batch k"],
    values: Float[Tensor, "n d"],
    rows: Int[Tensor, "n d"],
    onto: Float[Tensor, "batch m"],
    implementation: Implementation = "auto",
) -> Float[Tensor, "batch m"]:
    """`onto` plus every token's weighted sum of its columns; gradients flow to all but the indices and rows."""
    check_indices(indices, len(rows))
    base = onto.to(working_dtype(weights, values, onto))
    total = _combine(weights, indices, values, rows, base, base.shape[1], implementation)
    return total.to(result_dtype(weights, values, onto))


def correlate_at(
    x: Float[Tensor, "batch m"],
    indices: Int[Tensor, "batch k"],
    values: Float[Tensor, "n d"],
    rows: Int[Tensor, "n d"],
    implementation: Implementation = "auto",
) -> Float[Tensor, "batch k"]:
    """`W^T x` at some features of each token; gradients flow to x and the values."""
    check_indices(indices, len(rows))
    return _correlate(x, indices, values, rows, implementation).to(result_dtype(x, values))


def check_indices(indices: Int[Tensor, "batch k"], features: int) -> None:
    """Refuse what compiled code would read past the end for; rows come from a support, which vouches for them."""
    if indices.numel() and not torch.compiler.is_compiling():
        lowest, highest = extremes(indices)
        if lowest < 0 or highest >= features:
            raise ExpanderError(f"Features must lie between 0 and {features - 1}, not {lowest} to {highest}.")
