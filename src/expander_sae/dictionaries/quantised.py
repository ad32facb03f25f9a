"""Values as small signed integers with one scale per column, and back.

A scale is one of 256, eight to an octave from 2**-24 to 240, so it takes a byte. It has four significant bits: what
`dequantise` gives is exact in float32, and in float16 unless it is tiny, so quantising again finds the same values.

Four bits of exponent and three of mantissa per value (e4m3) were measured against eight bits here, each with its best
scale per column, on values trained with pursuit (m=576, n=4608, d=7): their relative error is 1.3 %, here it is 0.3 %.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int, Int8, UInt8
from torch import Tensor

from expander_sae.errors import ExpanderError

_MANTISSA_SHIFT = 20
"""Bits of a float32 below the three of its mantissa that a scale keeps."""
_FIRST_CODE = (127 - 24) << 3
"""The float32 2**-24 without those bits: the scale whose code is 0."""
_LAST_CODE = 255
_CANDIDATES = 12
"""Scales tried per column, from one that leaves a fifth of the range unused to one that clips half of it."""
_RANGE_USED = 0.79


def quantise(values: Float[Tensor, "n d"], bits: int) -> tuple[Int8[Tensor, "n d"], Float[Tensor, " n"]]:
    """(integers, scales): every column in `bits` bits per value, with the scale that makes the squared error least.

    The integers are symmetric, from -(2**(bits-1) - 1) to its opposite; the scales are float32.
    """
    highest = _highest_integer(bits)
    values = values.detach().to(torch.float32)
    largest = values.abs().amax(dim=1)
    _check_range(largest, bits)
    # A whole number of steps: quantised values then find the scale that they were made with among the candidates.
    top = _codes(largest / max(1, int(_RANGE_USED * highest)))
    scales, integers = scales_from(top), torch.zeros_like(values, dtype=torch.int8)
    least = torch.full_like(largest, torch.inf)
    for step in range(_CANDIDATES):
        candidate = scales_from((top - step).clamp(min=0))
        rounded = (values / candidate[:, None]).round().clamp(-highest, highest).to(torch.int8)
        error = (dequantise(rounded, candidate) - values).square().sum(dim=1)
        better = error < least
        least, scales = torch.where(better, error, least), torch.where(better, candidate, scales)
        integers = torch.where(better[:, None], rounded, integers)
    return integers, scales


def dequantise(integers: Int8[Tensor, "n d"], scales: Float[Tensor, " n"]) -> Float[Tensor, "n d"]:
    """The values that integers and scales stand for, in float32."""
    return integers.to(torch.float32) * scales[:, None]


def scale_codes(scales: Float[Tensor, " n"]) -> UInt8[Tensor, " n"]:
    """The byte of every scale that `quantise` gave."""
    return _codes(scales).to(torch.uint8)


def scales_from(codes: Int[Tensor, " n"] | UInt8[Tensor, " n"]) -> Float[Tensor, " n"]:
    """The scale that every byte stands for, in float32."""
    return ((codes.to(torch.int32) + _FIRST_CODE) << _MANTISSA_SHIFT).view(torch.float32)


def _codes(scales: Float[Tensor, " n"]) -> Int[Tensor, " n"]:
    """The code of the largest scale that is not above these, or else of the smallest one."""
    return ((scales.view(torch.int32) >> _MANTISSA_SHIFT) - _FIRST_CODE).clamp(0, _LAST_CODE)


def _highest_integer(bits: int) -> int:
    if not 2 <= bits <= 8:
        raise ExpanderError(f"Values can be quantised to between 2 and 8 bits, not {bits}.")
    return 2 ** (bits - 1) - 1


def _check_range(largest: Float[Tensor, " n"], bits: int) -> None:
    limit = _highest_integer(bits) * float(scales_from(torch.tensor([_LAST_CODE])))
    if not bool((largest <= limit).all()):  # nor is NaN
        reached = float(largest.max())
        raise ExpanderError(
            f"Values that reach {reached:.4g} cannot be quantised to {bits} bits, only up to {limit:g}."
        )
