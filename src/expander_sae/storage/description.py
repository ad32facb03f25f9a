"""What a folder holds, told without making the model."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from expander_sae.storage.coders import coder_to_json
from expander_sae.storage.config import dtype_name
from expander_sae.storage.loading import read
from expander_sae.supports import Support


@dataclass(frozen=True)
class Description:
    """An autoencoder on disk."""

    path: str
    m: int
    n: int
    d: int | None
    """Learned values per column; None where blocks differ."""
    dictionary: dict[str, Any]
    """Kind, sizes and support of the dictionary, as config.json has them."""
    coder: dict[str, Any]
    """Name and parameters."""
    tied: bool
    latent_bias: bool
    scale: float
    dtype: str
    learned_values: int
    """All learned numbers: dictionary, encoder and biases."""
    bytes_on_disk: int
    dense_bytes: int
    """What the learned numbers of the same autoencoder with a dense dictionary take in the same dtype."""
    ratio: float
    """How many times smaller than that this folder is."""
    library_version: str
    provenance: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The same as a dictionary that JSON can hold."""
        return asdict(self)


def describe(path: str | PathLike[str]) -> Description:
    """What the folder `path` holds, after both files were verified."""
    stored = read(Path(path))
    config, record = stored.config, stored.config.dictionary
    degrees = {block.d for _, block in record.blocks_inside()}
    sizes = config.shapes_of_parameters()
    values = sum(math.prod(sizes[name]) for name in sizes if name.endswith("values"))
    biases = sum(math.prod(sizes[name]) for name in sizes if name.endswith("bias"))
    dense = (record.m * record.n * (1 if config.tied else 2) + biases) * torch.finfo(config.dtype).bits // 8
    return Description(
        path=str(path),
        m=record.m,
        n=record.n,
        d=degrees.pop() if len(degrees) == 1 else None,
        dictionary=record.to_json(),
        coder=coder_to_json(config.coder),
        tied=config.tied,
        latent_bias=config.latent_bias,
        scale=config.scale,
        dtype=dtype_name(config.dtype),
        learned_values=values + biases,
        bytes_on_disk=stored.bytes_on_disk,
        dense_bytes=dense,
        ratio=dense / stored.bytes_on_disk,
        library_version=stored.library_version,
        provenance=config.provenance,
    )


def stored_supports(path: str | PathLike[str]) -> dict[str, Support]:
    """The supports of the expander blocks by the prefix of their tensors ("" without a union), checked."""
    stored = read(Path(path))
    return {
        prefix: block.support.make(block.m, block.n, block.d, stored.tensors.get(f"{prefix}rows"))
        for prefix, block in stored.config.dictionary.blocks_inside()
        if block.support is not None
    }
