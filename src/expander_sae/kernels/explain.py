"""What codes leave of the tokens that they are of: one function, so that its gradients take two passes.

With x the tokens, E and W the columns that read and write, and c the codes at chosen features j, which are `<E_j, x>`
plus a bias or zero, the residual is `x - sum of c_j W_j`. For its gradient g, every code that is not zero passes on
`s_j = -<W_j, g>`, and then

    by x:  g + sum of s_j E_j        by W_j:  -c_j g        by E_j:  s_j x        by the bias:  s_j

Where the columns that read also write there is no W, and the gradient by E_j is the sum of both. What was subtracted
from all tokens before has minus the sum of their gradients, which is made of sums over tokens of g and s: nothing
of the size of the batch is written where only that is asked for, as in training. Nor is g where it is that of the
residual's sum of squares, a multiple of the residual.
Left to autograd these are three gathers, two scatters and a sum, most of which write a matrix [tokens, m] or read one,
and a step of training at m=2048, n=16384 takes a seventh longer.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from expander_sae.errors import ExpanderError
from expander_sae.kernels.inputs import Implementation, choose, result_dtype, working_dtype
from expander_sae.kernels.products import bias_gradient, check_indices, whole
from expander_sae.kernels.reference import accumulate, combine, correlate_at


class SparseMatrix(NamedTuple):
    """Columns of d values at d coordinates each."""

    values: Float[Tensor, "n d"]
    rows: Int[Tensor, "n d"]


@torch.library.custom_op("expander_sae::explain", mutates_args=())
def _explain(
    x: Tensor,
    codes: Tensor,
    indices: Tensor,
    encoder: Tensor | None,
    encoder_rows: Tensor | None,
    decoder: Tensor | None,
    decoder_rows: Tensor | None,
    bias: Tensor | None,
    shift: Tensor | None,
    implementation: str,
) -> tuple[Tensor, Tensor, Tensor]:
    writing = (encoder, encoder_rows) if decoder is None else (decoder, decoder_rows)
    residual = torch.ops.expander_sae.combine(-codes, indices, *writing, x, x.shape[1], implementation)
    return codes.clone(), residual, torch.linalg.vector_norm(residual).square()


@_explain.register_fake
def _(x: Tensor, codes: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(codes), torch.empty_like(x), x.new_empty(())


@torch.library.custom_op("expander_sae::pull_back", mutates_args=())
def _pull_back(
    x: Tensor,
    codes: Tensor,
    indices: Tensor,
    encoder: Tensor | None,
    encoder_rows: Tensor | None,
    decoder: Tensor | None,
    decoder_rows: Tensor | None,
    of_codes: Tensor,
    of_residual: Tensor,
    factor: Tensor,
    by_x: bool,
    implementation: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients by x if they are asked for, by what was subtracted from it, by the bias, by the columns that read
    and by those that write, if they differ; that of the residual is still to be multiplied by a factor."""
    of_codes, of_residual, nothing = of_codes.contiguous(), of_residual.contiguous(), x.new_empty(0)
    if encoder is None or encoder_rows is None:
        assert decoder_rows is not None
        weights = -factor * codes
        of_decoder = torch.ops.expander_sae.accumulate(weights, indices, of_residual, decoder_rows, implementation)
        of_x = factor * of_residual if by_x else nothing
        return of_x, -factor * of_residual.sum(dim=0), x.new_empty(0), x.new_empty(0), of_decoder
    reading = writing = SparseMatrix(whole(encoder, x.dtype), encoder_rows.contiguous())
    if decoder is not None and decoder_rows is not None:
        writing = SparseMatrix(whole(decoder, x.dtype), decoder_rows.contiguous())
    version = choose(implementation, x.device)
    # Imported where they are used: Numba takes a while, Triton is not everywhere.
    if version == "cpu":
        from expander_sae.kernels.cpu.explain import pull_back

        return pull_back(x, codes, indices, reading, writing, of_codes, of_residual, float(factor), by_x)
    of_residual = of_residual * factor
    if version == "gpu":
        from expander_sae.kernels.gpu.products import pull_back as pull_back_on_gpu

        passed_on, of_x, of_encoder, of_decoder = pull_back_on_gpu(
            x, codes, indices, reading, writing, of_codes, of_residual
        )
    else:
        passed_on = torch.where(codes != 0, of_codes - correlate_at(of_residual, indices, *writing), 0)
        of_x = combine(passed_on, indices, *reading, of_residual)
        of_encoder = accumulate(passed_on, indices, x, reading.rows)
        of_decoder = accumulate(-codes, indices, of_residual, writing.rows)
    of_bias = bias_gradient(passed_on, indices, encoder.shape[:1], x.dtype)
    of_shift, of_x = -of_x.sum(dim=0), of_x if by_x else nothing
    if writing is reading:
        return of_x, of_shift, of_bias, of_encoder + of_decoder, nothing
    return of_x, of_shift, of_bias, of_encoder, of_decoder


@_pull_back.register_fake
def _(
    x: Tensor,
    codes: Tensor,
    indices: Tensor,
    encoder: Tensor | None,
    rows: Tensor | None,
    decoder: Tensor | None,
    *others: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    of_encoder, of_decoder = (
        x.new_empty(0) if columns is None else torch.empty_like(columns, dtype=x.dtype)
        for columns in (encoder, decoder)
    )
    of_x = torch.empty_like(x) if others[-2] else x.new_empty(0)
    return of_x, x.new_empty(x.shape[1]), x.new_empty(len(of_encoder)), of_encoder, of_decoder


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, bias, shift, ctx.implementation = inputs
    ctx.save_for_backward(*tensors, output[1])
    ctx.set_materialize_grads(False)
    ctx.dtypes = [None if each is None else each.dtype for each in (bias, shift)]


def _gradient(
    ctx: Any, of_codes: Tensor | None, of_residual: Tensor | None, of_squares: Tensor | None
) -> tuple[Tensor | None, ...]:
    *tensors, residual = ctx.saved_tensors
    x, codes, _, encoder, _, decoder, _ = tensors
    of_codes = torch.zeros_like(codes) if of_codes is None else of_codes
    factor = x.new_ones(())
    if of_squares is None:
        of_residual = torch.zeros_like(x) if of_residual is None else of_residual
    elif of_residual is None:
        of_residual, factor = residual, 2 * of_squares
    else:
        of_residual = torch.addcmul(of_residual, residual, 2 * of_squares)
    by_x = ctx.needs_input_grad[0]
    of_x, of_shift, *others = _pull_back(*tensors, of_codes, of_residual, factor, by_x, ctx.implementation)
    of_bias, of_encoder, of_decoder = others
    by_encoder, by_decoder = (
        None if columns is None else gradient.to(columns.dtype)
        for columns, gradient in ((encoder, of_encoder), (decoder, of_decoder))
    )
    by_bias, by_shift = (
        None if dtype is None else gradient.to(dtype)
        for gradient, dtype in zip((of_bias, of_shift), ctx.dtypes, strict=True)
    )
    return of_x if by_x else None, None, None, by_encoder, None, by_decoder, None, by_bias, by_shift, None


_explain.register_autograd(_gradient, setup_context=_keep)


def explain(
    x: Float[Tensor, "batch m"],
    codes: Float[Tensor, "batch k"],
    indices: Int[Tensor, "batch k"],
    encoder: SparseMatrix | None,
    decoder: SparseMatrix | None,
    bias: Float[Tensor, " n"] | None = None,
    shift: Float[Tensor, " m"] | None = None,
    implementation: Implementation = "auto",
) -> tuple[Float[Tensor, "batch k"], Float[Tensor, "batch m"], Float[Tensor, ""]]:
    """Codes, what they leave of x and its sum of squares.

    All are differentiated by x, the columns, the bias and the shift, with the least work if only the sum is used.

    `codes` are the numbers that were found: zero, or what the encoder's columns at `indices` see of x plus the bias.
    They are taken as they are; one of zero has no gradient. Without a decoder the encoder's columns also write; without
    an encoder codes have no gradient, however they were found. The shift is what was subtracted from all tokens to get
    x, without a gradient.
    """
    writing = encoder if decoder is None else decoder
    if writing is None:
        raise ExpanderError("Codes leave nothing of tokens without columns that write; give a decoder or an encoder.")
    check_indices(indices, len(writing.rows))
    dtype, result = working_dtype(x, codes, writing.values), result_dtype(x, codes, writing.values)
    absent = None, None
    found, residual, squares = _explain(
        x.to(dtype).contiguous(),
        whole(codes, dtype),
        indices.contiguous(),
        *(encoder or absent),
        *(decoder or absent),
        bias,
        shift,
        implementation,
    )
    return found.to(codes.dtype), residual.to(result), squares


class _SquareNorm(torch.autograd.Function):
    """The sum of squares; torch's own, by norms or by products, makes two or three more matrices on the way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.linalg.vector_norm(x).square()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return x * (2 * gradients[0])


def square_norm(x: Float[Tensor, "*batch m"]) -> Float[Tensor, ""]:
    """The sum of all squares of what codes leave, however they were found."""
    norm: Tensor = _SquareNorm.apply(x)  # type: ignore[no-untyped-call]
    return norm
