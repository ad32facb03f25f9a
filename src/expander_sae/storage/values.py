"""Values in the tensor file: as floats, or as small integers and a scale per column."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int8, Shaped, UInt8
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


Places = Bool[Tensor, "n d"]
"""Which values [n, d] there are, where columns differ in length; the file holds those alone, column after column."""


def without_padding(values: Shaped[Tensor, "n d"], places: Places | None) -> Shaped[Tensor, "n d"] | Tensor:
    """What the file holds: all values [n, d], or those [entries] that there are."""
    return values if places is None else values[places]


def with_padding(stored: Tensor, places: Places | None) -> Shaped[Tensor, "n d"]:
    """The values [n, d] again, with zeros where there are none."""
    if places is None:
        return stored
    return stored.new_zeros(places.shape).masked_scatter(places, stored)


def quantised_layout(name: str, shape: tuple[int, ...], kind: str, entries: int | None) -> Layout:
    """How the file holds quantised values [n, d], `entries` of them if columns differ: two int4 to a byte, in order."""
    n, d = shape
    stored = (n, d) if entries is None else (entries,)
    integers: Layout = {f"{name}.integers": (stored, torch.int8)}
    if kind == "int4":
        integers = {f"{name}.integers": ((-(-math.prod(stored) // 2),), torch.uint8)}
    return {**integers, f"{name}.scales": ((n,), torch.uint8)}


def to_quantised(name: str, values: Float[Tensor, "n d"], kind: str, places: Places | None) -> dict[str, Tensor]:
    """What the file holds of these values."""
    integers, scales = quantise(values, BITS[kind])
    integers = without_padding(integers, places)
    stored = _pack_pairs(integers) if kind == "int4" else integers
    return {f"{name}.integers": stored, f"{name}.scales": scale_codes(scales)}


def from_quantised(
    name: str, tensors: Mapping[str, Tensor], shape: tuple[int, ...], kind: str, places: Places | None
) -> Float[Tensor, "n d"]:
    """The values [n, d] that the file holds, in float32."""
    integers = tensors[f"{name}.integers"]
    if kind == "int4":
        integers = _unpack_pairs(integers, shape if places is None else (int(places.sum()),))
    return dequantise(with_padding(integers, places), scales_from(tensors[f"{name}.scales"]))


def _pack_pairs(integers: Int8[Tensor, "*shape"]) -> UInt8[Tensor, " bytes"]:
    """Integers of four bits, two to a byte, the first in its low half; a last half without one is zero."""
    flat = integers.reshape(-1).view(torch.uint8) & 15
    pairs = torch.nn.functional.pad(flat, (0, len(flat) % 2)).reshape(-1, 2)
    return pairs[:, 0] | pairs[:, 1] << 4


def _unpack_pairs(packed: UInt8[Tensor, " bytes"], shape: tuple[int, ...]) -> Int8[Tensor, "*shape"]:
    """The integers of four bits that bytes hold."""
    halves = torch.stack([packed & 15, packed >> 4], dim=1).reshape(-1)[: math.prod(shape)]
    return ((halves ^ 8).to(torch.int8) - 8).reshape(shape)
