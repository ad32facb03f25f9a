"""What a folder holds, told without making the model; and the same folder written again in fewer bits."""

from __future__ import annotations

import math
import os
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from expander_sae.autoencoder.config import BITS, Config, Quantised, coder_to_json, dtype_name
from expander_sae.autoencoder.model import SparseAutoencoder
from expander_sae.autoencoder.tensors import read
from expander_sae.errors import StorageError
from expander_sae.supports import Support
from expander_sae.supports.packing import bits_needed


@dataclass(frozen=True)
class Description:
    """An autoencoder on disk."""

    path: str
    m: int
    n: int
    d: int | None
    """Learned values per column, without what atoms have; None where columns differ."""
    dictionary: dict[str, Any]
    """Kind, sizes and support of the dictionary, as config.json has them."""
    coder: dict[str, Any]
    """Name and parameters."""
    tied: bool
    latent_bias: bool
    scale: float
    dtype: str
    """The dtype of the biases, and of the values unless they are quantised."""
    values: str
    """What the values are stored in: the dtype, or int8 or int4."""
    learned_values: int
    """All learned numbers: dictionary, encoder and biases."""
    bytes_on_disk: int
    bytes_by_part: dict[str, int]
    """How many bytes values, scales, rows, biases and the description of it all take."""
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
        """The description as a dictionary that JSON can hold."""
        return asdict(self)


def describe(path: str | PathLike[str]) -> Description:
    """What the folder `path` holds, after both files were verified."""
    stored = read(Path(path))
    config, record = stored.config, stored.config.dictionary
    degrees = record.degrees
    biases = sum(each.size for each in config.learned() if each.rows is None)
    bytes_on_disk, dense = sum(stored.bytes_by_part.values()), _dense_bytes(config, biases)
    bound = sum(
        _rows_bound(stored.tensors[f"{prefix}rows"], block.m)
        for prefix, block in record.blocks_inside()
        if block.rows_are_stored
    )
    return Description(
        path=str(path),
        m=record.m,
        n=record.n,
        d=next(iter(degrees)) if len(degrees) == 1 else None,
        dictionary=record.to_json(),
        coder=coder_to_json(config.coder),
        tied=config.tied,
        latent_bias=config.latent_bias,
        scale=config.scale,
        dtype=dtype_name(config.dtype),
        values=config.values,
        learned_values=sum(each.size for each in config.learned()),
        bytes_on_disk=bytes_on_disk,
        bytes_by_part=stored.bytes_by_part,
        bits_per_column={part: 8 * stored.bytes_by_part[part] / record.n for part in ("values", "scales", "rows")},
        row_bits_bound=bound / record.n,
        dense_bytes=dense,
        ratio=dense / bytes_on_disk,
        library_version=stored.library_version,
        provenance=config.provenance,
    )


def _rows_bound(rows: Tensor, m: int) -> float:
    """Bits that these rows take at best."""
    columns_of = torch.bincount((rows.to(torch.int64) >= 0).sum(dim=1)).tolist()
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


@dataclass(frozen=True)
class Compression:
    """The folder that was read, the one that was written, and what the values lost on the way."""

    before: Description
    after: Description
    error: float
    """Norm of the change of all values, relative to the norm of the values."""


def compress(
    path: str | PathLike[str], out: str | PathLike[str], values: Quantised, dtype: torch.dtype = torch.float16
) -> Compression:
    """Write the autoencoder in `path` to the folder `out`, its values quantised and its biases in `dtype`."""
    if os.path.realpath(path) == os.path.realpath(out):
        raise StorageError(f"{out} would replace the autoencoder by one that knows less; choose another folder.")
    before = SparseAutoencoder.load(path)
    before.save(out, dtype=dtype, values=values)
    return Compression(describe(path), describe(out), _relative_error(before, SparseAutoencoder.load(out)))


@torch.no_grad()
def _relative_error(before: SparseAutoencoder, after: SparseAutoencoder) -> float:
    """The norm of the change of the values over that of the values, 0 if they are all zero."""
    changed = dict(after.named_parameters())
    pairs = [(old, changed[name]) for name, old in before.named_parameters() if name.endswith("values")]
    change = math.fsum(float((new - old).double().square().sum()) for old, new in pairs)
    size = math.fsum(float(old.double().square().sum()) for old, _ in pairs)
    return math.sqrt(change / size) if size else 0.0
