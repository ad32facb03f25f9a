"""The tensor file: its bytes, and the checks that every tensor passes on its way in and out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors import torch as safetensors
from torch import Tensor

from expander_sae.errors import StorageError
from expander_sae.storage.config import Config, dtype_name


def convert(name: str, tensor: Tensor, dtype: torch.dtype, device: torch.device | str | None = None) -> Tensor:
    """A copy in another dtype; refuses values that are not finite, before or after."""
    if not torch.isfinite(tensor).all():
        raise StorageError(f"{name} has values that are not finite, which no autoencoder can use; train it again.")
    converted = tensor.detach().to(device=device, dtype=dtype, copy=True)
    if not torch.isfinite(converted).all():
        largest, name_of_dtype = float(tensor.detach().abs().max()), dtype_name(dtype)
        raise StorageError(f"{name} reaches {largest:.4g}, too much for {name_of_dtype}; use float32 or bfloat16.")
    return converted


def to_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """The content of a tensor file."""
    return safetensors.save({name: tensor.contiguous() for name, tensor in tensors.items()})


def from_bytes(data: bytes, config: Config, path: Path) -> dict[str, Tensor]:
    """The tensors of a tensor file, which must be exactly those that the config speaks of."""
    try:
        tensors = safetensors.load(data)
    except (SafetensorError, KeyError) as error:
        raise StorageError(
            f"The tensor file in {path} is not readable: {error}; save the autoencoder again."
        ) from error
    parameters, rows = config.shapes_of_parameters(), config.dictionary.shapes_of_rows()
    expected = {name: (shape, config.dtype) for name, shape in parameters.items()}
    expected |= {name: (shape, config.rows_dtype()) for name, shape in rows.items()}
    for problem, names in (("misses", expected.keys() - tensors), ("has the unexpected", tensors.keys() - expected)):
        if names:
            raise StorageError(
                f"The tensor file in {path} {problem} {', '.join(sorted(names))}; save the autoencoder again."
            )
    for name, (shape, dtype) in expected.items():
        found = tensors[name]
        if (tuple(found.shape), found.dtype) != (shape, dtype):
            raise StorageError(
                f"{name} in {path} is {dtype_name(found.dtype)} {list(found.shape)}, but the config asks for "
                f"{dtype_name(dtype)} {list(shape)}; save the autoencoder again."
            )
    return tensors
