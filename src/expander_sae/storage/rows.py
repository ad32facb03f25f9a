"""Stored rows in the tensor file: packed, or one integer each in files of schema version 1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

import torch
from jaxtyping import Int32
from torch import Tensor

from expander_sae.errors import ExpanderError, StorageError
from expander_sae.storage.values import Layout
from expander_sae.supports import Support
from expander_sae.supports.packing import PackedRows, pack_rows, unpack_rows

_DEGREES = "degrees"
_PARTS = tuple(part.name for part in fields(PackedRows) if part.name != _DEGREES)


def _parts(even: bool) -> tuple[str, ...]:
    return _PARTS if even else (*_PARTS, _DEGREES)


def rows_layout(name: str, shape: tuple[int, ...], m: int, packed: bool, even: bool) -> Layout:
    """How the file holds rows [n, d]; what is packed says its own size."""
    if packed:
        return {f"{name}.{part}": (None, torch.uint8) for part in _parts(even)}
    return {name: (shape, torch.uint16 if m <= 65536 else torch.int32)}


def to_packed(name: str, support: Support) -> dict[str, Tensor]:
    """What the file holds of these rows."""
    packed = pack_rows(support.rows.numpy(), support.m)
    return {f"{name}.{part}": torch.from_numpy(getattr(packed, part)) for part in _parts(support.is_even)}


def from_packed(
    name: str, tensors: Mapping[str, Tensor], shape: tuple[int, ...], m: int, even: bool
) -> Int32[Tensor, "n d"]:
    """The rows [n, d] that the file holds."""
    packed = PackedRows(*(tensors[f"{name}.{part}"].numpy() for part in _parts(even)))
    try:
        return torch.from_numpy(unpack_rows(packed, m, *shape))
    except ExpanderError as error:
        raise StorageError(f"{name} cannot be unpacked, save the autoencoder again: {error}") from error
