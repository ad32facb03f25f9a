"""The tensor file: its bytes, and the checks that every tensor passes on its way in and out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors import torch as safetensors
from torch import Tensor

from expander_sae.errors import StorageError
from expander_sae.storage.config import Config, dtype_name, places_of_values
from expander_sae.storage.rows import from_packed
from expander_sae.storage.values import from_quantised, with_padding


def check_finite(name: str, tensor: Tensor) -> None:
    """Refuse NaN and infinity."""
    if not torch.isfinite(tensor).all():
        raise StorageError(f"{name} has values that are not finite, which no autoencoder can use; train it again.")


def convert(name: str, tensor: Tensor, dtype: torch.dtype, device: torch.device | str | None = None) -> Tensor:
    """A copy in another dtype; refuses values that are not finite, before or after."""
    check_finite(name, tensor)
    converted = tensor.detach().to(device=device, dtype=dtype, copy=True)
    if not torch.isfinite(converted).all():
        largest, name_of_dtype = float(tensor.detach().abs().max()), dtype_name(dtype)
        raise StorageError(f"{name} reaches {largest:.4g}, too much for {name_of_dtype}; use float32 or bfloat16.")
    return converted


def to_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """The content of a tensor file."""
    return safetensors.save({name: tensor.contiguous() for name, tensor in tensors.items()})


def from_bytes(data: bytes, config: Config, path: Path) -> dict[str, Tensor]:
    """The tensors of a tensor file as they are, which must be exactly those that the config speaks of."""
    try:
        tensors = safetensors.load(data)
    except (SafetensorError, KeyError) as error:
        raise StorageError(
            f"The tensor file in {path} is not readable: {error}; save the autoencoder again."
        ) from error
    expected = config.layout()
    for problem, names in (("misses", expected.keys() - tensors), ("has the unexpected", tensors.keys() - expected)):
        if names:
            raise StorageError(
                f"The tensor file in {path} {problem} {', '.join(sorted(names))}; save the autoencoder again."
            )
    for name, (shape, dtype) in expected.items():
        found = tensors[name]
        if found.dtype != dtype or (shape is not None and tuple(found.shape) != shape):
            asked = f"{dtype_name(dtype)} {'' if shape is None else list(shape)}".strip()
            raise StorageError(
                f"{name} in {path} is {dtype_name(found.dtype)} {list(found.shape)}, but the config asks for "
                f"{asked}; save the autoencoder again."
            )
    return tensors


def learned_and_rows(tensors: Mapping[str, Tensor], config: Config) -> dict[str, Tensor]:
    """Every learned tensor, and the stored rows, out of what the file holds."""
    rows = {}
    for name, shape in config.dictionary.shapes_of_rows().items():
        even, m = config.rows_are_even(name), config.dictionary.m
        rows[name] = from_packed(name, tensors, shape, m, even) if config.rows_are_packed else tensors[name]
    places, learned = places_of_values(config.dictionary, rows), {}
    for name, shape in config.shapes_of_parameters().items():
        there = places.get(name)
        if there is not None and int(there.sum()) != config.entries_of(name):
            raise StorageError(f"{name} and the rows it belongs to differ in length; save the autoencoder again.")
        if config.is_quantised(name):
            learned[name] = from_quantised(name, tensors, shape, config.values, there)
        else:
            learned[name] = with_padding(tensors[name], there)
    return learned | rows
