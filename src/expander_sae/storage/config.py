"""What config.json says about an autoencoder, as one typed record that is checked as a whole."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from expander_sae.coders import Coder
from expander_sae.errors import StorageError
from expander_sae.storage.coders import coder_to_json, parse_coder
from expander_sae.storage.dictionaries import DictionaryRecord, Shapes, parse_dictionary
from expander_sae.storage.json_fields import Fields, check_json

DTYPES = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "float64": torch.float64,
}
"""What values can be stored in, by name."""


def check_dtype(dtype: torch.dtype) -> None:
    """Refuse a dtype that values cannot have."""
    if dtype not in DTYPES.values():
        raise StorageError(f"An autoencoder's dtype can be {', '.join(DTYPES)}, not {dtype_name(dtype)}.")


def dtype_name(dtype: torch.dtype) -> str:
    """The name without `torch.`."""
    return str(dtype).removeprefix("torch.")


def encoder_name(name: str) -> str:
    """What the encoder's counterpart of a dictionary's tensor is called."""
    prefix, dot, last = name.rpartition(".")
    return f"{prefix}{dot}encoder_{last}"


@dataclass(frozen=True)
class Config:
    """Everything about an autoencoder but its tensors."""

    dictionary: DictionaryRecord
    coder: Coder
    tied: bool
    latent_bias: bool
    scale: float
    dtype: torch.dtype
    provenance: dict[str, Any]

    def __post_init__(self) -> None:
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise StorageError(f"The scale must be finite and above zero, not {self.scale}; use fit_scale to set it.")

    def to_json(self) -> dict[str, Any]:
        """What config.json holds, without what the folder adds to it."""
        check_json(self.provenance, "provenance")
        return {
            "m": self.dictionary.m,
            "n": self.dictionary.n,
            "dictionary": self.dictionary.to_json(),
            "coder": coder_to_json(self.coder),
            "tied": self.tied,
            "latent_bias": self.latent_bias,
            "scale": self.scale,
            "dtype": dtype_name(self.dtype),
            "provenance": self.provenance,
        }

    @classmethod
    def parse(cls, content: dict[str, Any], path: Path) -> Config:
        """The config in a verified config.json; every entry must be there, of its type, and known."""
        fields = Fields(content, str(path))
        for name in ("format", "schema_version", "library_version", "tensors", "checksum"):
            fields.take(name, object)
        m, n, dtype = fields.size("m"), fields.size("n"), fields.take("dtype", str)
        if dtype not in DTYPES:
            raise StorageError(f"{path}: the dtype {dtype!r} is not one of {', '.join(DTYPES)}; update expander-sae.")
        dictionary = parse_dictionary(fields.inner("dictionary"))
        if (dictionary.m, dictionary.n) != (m, n):
            raise StorageError(f"{path}: m and n are not those of the dictionary; save the autoencoder again.")
        config = cls(
            dictionary=dictionary,
            coder=parse_coder(fields.inner("coder")),
            tied=fields.take("tied", bool),
            latent_bias=fields.take("latent_bias", bool),
            scale=fields.take("scale", float),
            dtype=DTYPES[dtype],
            provenance=fields.take("provenance", dict),
        )
        fields.finish()
        return config

    def shapes_of_parameters(self) -> Shapes:
        """The shape of every learned tensor of the file."""
        shapes = self.dictionary.shapes_of_values()
        if not self.tied:
            shapes |= {encoder_name(name): shape for name, shape in shapes.items()}
        shapes["pre_bias"] = (self.dictionary.m,)
        if self.latent_bias:
            shapes["latent_bias"] = (self.dictionary.n,)
        return shapes

    def rows_dtype(self) -> torch.dtype:
        """What stored rows are stored in."""
        return torch.uint16 if self.dictionary.m <= 65536 else torch.int32
