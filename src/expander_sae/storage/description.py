"""What a folder holds, told without making the model."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from expander_sae.storage.coders import coder_to_json
from expander_sae.storage.config import Config, dtype_name
from expander_sae.storage.loading import read
from expander_sae.storage.values import BITS, is_values
from expander_sae.supports import Support
from expander_sae.supports.packing import bits_needed


@dataclass(frozen=True)
class Description:
    """An autoencoder on disk."""

    path: str
    m: int
    n: int
    d: int | None
    """Learned values per column; None where columns differ."""
    dictionary: dict[str, Any]
    """Kind, sizes and support of the dictionary, as config.json has them."""
    coder: dict[str, Any]
    """Name and parameters."""
    tied: bool
    latent_bias: bool
    scale: float
    dtype: str
    """Of the biases, and of the values unless they are quantised."""
    values: str
    """What the values are stored in: the dtype, or int8 or int4."""
    learned_values: int
    """All learned numbers: dictionary, encoder and biases."""
    bytes_on_disk: int
    bytes_by_part: dict[str, int]
    """The same by part: values, scales, rows, biases, and the description of it all."""
    bits_per_column: dict[str, float]
    """What values, scales and rows take."""
    row_bits_bound: float
    """What rows would take at best if all sets of coordinates were as likely; 0 where recipes make all of them."""
    dense_bytes: int
    """What the learned numbers of the same autoencoder with a dense dictionary take, stored in the same way."""
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
    sizes = {name: config.entries_of(name) or math.prod(shape) for name, shape in config.shapes_of_parameters().items()}
    biases = sum(size for name, size in sizes.items() if not is_values(name))
    bytes_on_disk, dense = sum(stored.bytes_by_part.values()), _dense_bytes(config, biases)
    bound = sum(_rows_bound(name, tensor, record.m) for name, tensor in stored.tensors.items())
    return Description(
        path=str(path),
        m=record.m,
        n=record.n,
        d=None if record.uneven_blocks() or len(degrees) > 1 else degrees.pop(),
        dictionary=record.to_json(),
        coder=coder_to_json(config.coder),
        tied=config.tied,
        latent_bias=config.latent_bias,
        scale=config.scale,
        dtype=dtype_name(config.dtype),
        values=config.values,
        learned_values=sum(sizes.values()),
        bytes_on_disk=bytes_on_disk,
        bytes_by_part=stored.bytes_by_part,
        bits_per_column={part: 8 * stored.bytes_by_part[part] / record.n for part in ("values", "scales", "rows")},
        row_bits_bound=bound / record.n,
        dense_bytes=dense,
        ratio=dense / bytes_on_disk,
        library_version=stored.library_version,
        provenance=config.provenance,
    )


def _rows_bound(name: str, tensor: Tensor, m: int) -> float:
    """Bits that these rows take at best; none if it is not rows."""
    if not name.endswith("rows"):
        return 0.0
    columns_of = torch.bincount((tensor.to(torch.int64) >= 0).sum(dim=1)).tolist()
    return sum(bits_needed(m, columns, degree) for degree, columns in enumerate(columns_of))


def _dense_bytes(config: Config, biases: int) -> int:
    """Bytes of the learned numbers if every column held m values."""
    itemsize, columns = config.dtype.itemsize, config.dictionary.n * (1 if config.tied else 2)
    if config.values in BITS:
        return columns * config.dictionary.m * BITS[config.values] // 8 + columns + biases * itemsize
    return (columns * config.dictionary.m + biases) * itemsize


def stored_supports(path: str | PathLike[str]) -> dict[str, Support]:
    """The supports of the expander blocks by the prefix of their tensors ("" without a union), checked."""
    stored = read(Path(path))
    return {
        prefix: block.support.make(block.m, block.n, block.d, stored.tensors.get(f"{prefix}rows"))
        for prefix, block in stored.config.dictionary.blocks_inside()
        if block.support is not None
    }
