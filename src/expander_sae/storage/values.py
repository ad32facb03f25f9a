"""Values in the tensor file: as floats, or as small integers and a scale per column."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float, Int8, UInt8
from torch import Tensor

from expander_sae.dictionaries.quantised import dequantise, quantise, scale_codes, scales_from
from expander_sae.errors import StorageError

Quantised = Literal["int8", "int4"]
"""What values can be quantised to."""

BITS = {"int8": 8, "int4": 4}
"""Bits per value of each."""

Layout = dict[str, tuple[tuple[int, ...] | None, torch.dtype]]
"""Shape and dtype of tensors in the file by name; no shape where only the content can tell it."""


def check_quantised(values: str) -> None:
    """Refuse what values cannot be quantised to."""
    if values not in BITS:
        raise StorageError(f"Values can be quantised to {' or '.join(BITS)}, not {values!r}; a float type is a dtype.")


def is_values(name: str) -> bool:
    """Whether the learned tensor of this name holds values, not a bias."""
    return name.endswith("values")


def quantised_layout(name: str, shape: tuple[int, ...], kind: str) -> Layout:
    """How the file holds quantised values [n, d]: two int4 to a byte, column after column."""
    n, d = shape
    integers: Layout = {f"{name}.integers": ((n, d), torch.int8)}
    if kind == "int4":
        integers = {f"{name}.integers": ((-(-n * d // 2),), torch.uint8)}
    return {**integers, f"{name}.scales": ((n,), torch.uint8)}


def to_quantised(name: str, values: Float[Tensor, "n d"], kind: str) -> dict[str, Tensor]:
    """What the file holds of these values."""
    integers, scales = quantise(values, BITS[kind])
    stored = _pack_pairs(integers) if kind == "int4" else integers
    return {f"{name}.integers": stored, f"{name}.scales": scale_codes(scales)}


def from_quantised(name: str, tensors: Mapping[str, Tensor], shape: tuple[int, ...], kind: str) -> Float[Tensor, "n d"]:
    """The values [n, d] that the file holds, in float32."""
    integers = tensors[f"{name}.integers"]
    integers = _unpack_pairs(integers, shape) if kind == "int4" else integers
    return dequantise(integers, scales_from(tensors[f"{name}.scales"]))


def _pack_pairs(integers: Int8[Tensor, "n d"]) -> UInt8[Tensor, " bytes"]:
    """Integers of four bits, two to a byte, the first in its low half; a last half without one is zero."""
    flat = integers.reshape(-1).view(torch.uint8) & 15
    pairs = torch.nn.functional.pad(flat, (0, len(flat) % 2)).reshape(-1, 2)
    return pairs[:, 0] | pairs[:, 1] << 4


def _unpack_pairs(packed: UInt8[Tensor, " bytes"], shape: tuple[int, ...]) -> Int8[Tensor, "n d"]:
    """The integers of four bits that bytes hold."""
    halves = torch.stack([packed & 15, packed >> 4], dim=1).reshape(-1)[: shape[0] * shape[1]]
    return ((halves ^ 8).to(torch.int8) - 8).reshape(shape)
