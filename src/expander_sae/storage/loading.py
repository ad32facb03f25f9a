"""Reading an autoencoder."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.storage.config import Config, check_dtype, encoder_name
from expander_sae.storage.folder import CONFIG, read_folder
from expander_sae.storage.sizes import sizes_of
from expander_sae.storage.tensors import convert, from_bytes, learned_and_rows

Autoencoder = TypeVar("Autoencoder", bound=SparseAutoencoder)


@dataclass(frozen=True)
class Stored:
    """The verified content of a folder."""

    config: Config
    tensors: dict[str, Tensor]
    """Every learned tensor, and the stored rows."""
    library_version: str
    bytes_by_part: dict[str, int]


def load(
    path: str | PathLike[str],
    cls: type[Autoencoder],
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Autoencoder:
    """The autoencoder in `path`, checked; in float32 (float64 if stored so) unless `dtype` says otherwise."""
    stored = read(Path(path))
    config = stored.config
    dtype = dtype or (torch.float64 if config.dtype == torch.float64 else torch.float32)
    check_dtype(dtype)
    parameters = config.shapes_of_parameters()
    tensors = {
        name: convert(name, tensor, dtype, device) if name in parameters else tensor
        for name, tensor in stored.tensors.items()
    }
    return _build(cls, config, tensors)


def read(folder: Path) -> Stored:
    """What a folder holds, every check passed that needs no model."""
    content, data = read_folder(folder)
    config = Config.parse(content, folder / CONFIG)
    tensors = from_bytes(data, config, folder)
    parts = sizes_of(tensors, (folder / CONFIG).stat().st_size + len(data))
    return Stored(config, learned_and_rows(tensors, config), str(content["library_version"]), parts)


def _build(cls: type[Autoencoder], config: Config, tensors: dict[str, Tensor]) -> Autoencoder:
    sae = cls(
        config.dictionary.build(tensors),
        config.coder,
        tied=config.tied,
        latent_bias=config.latent_bias,
        provenance=config.provenance,
    )
    with torch.no_grad():
        if sae.untied_encoder is not None:
            for name, parameter in sae.untied_encoder.named_parameters():
                parameter.copy_(tensors[encoder_name(name)])
        sae.pre_bias.copy_(tensors["pre_bias"])
        if sae.latent_bias is not None:
            sae.latent_bias.copy_(tensors["latent_bias"])
        sae.scale.fill_(config.scale)
    return sae
