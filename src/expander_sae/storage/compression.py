"""An autoencoder on disk, written again with its values in few bits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import torch

from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.errors import StorageError
from expander_sae.storage.description import Description, describe
from expander_sae.storage.loading import load
from expander_sae.storage.saving import save
from expander_sae.storage.values import Quantised, is_values


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
    if Path(path).resolve() == Path(out).resolve():
        raise StorageError(f"{out} would replace the autoencoder by one that knows less; choose another folder.")
    before = load(path, SparseAutoencoder)
    save(before, out, dtype=dtype, values=values)
    return Compression(describe(path), describe(out), _relative_error(before, load(out, SparseAutoencoder)))


@torch.no_grad()
def _relative_error(before: SparseAutoencoder, after: SparseAutoencoder) -> float:
    """The norm of the change of the values over that of the values, 0 if they are all zero."""
    changed = dict(after.named_parameters())
    pairs = [(old, changed[name]) for name, old in before.named_parameters() if is_values(name)]
    change = math.fsum(float((new - old).double().square().sum()) for old, new in pairs)
    size = math.fsum(float(old.double().square().sum()) for old, _ in pairs)
    return math.sqrt(change / size) if size else 0.0
