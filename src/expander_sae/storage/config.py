"""What config.json says about an autoencoder, as one typed record that is checked as a whole."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from expander_sae.coders import Coder
from expander_sae.errors import StorageError
from expander_sae.storage.coders import coder_to_json, parse_coder
from expander_sae.storage.dictionaries import DictionaryRecord, Shapes, parse_dictionary
from expander_sae.storage.json_fields import Fields, check_json
from expander_sae.storage.rows import rows_layout
from expander_sae.storage.values import BITS, Layout, Places, is_values, quantised_layout

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


def names_of_values(prefix: str) -> tuple[str, str]:
    """What the values of a block are called, and those of its counterpart in the encoder."""
    name = f"{prefix}values"
    return name, encoder_name(name)


def places_of_values(dictionary: DictionaryRecord, rows: Mapping[str, Tensor]) -> dict[str, Places]:
    """Which values there are, by their names, where columns differ in length; `rows` are those of every such block."""
    places = dict[str, Places]()
    for prefix in dictionary.uneven_blocks():
        places |= dict.fromkeys(names_of_values(prefix), rows[f"{prefix}rows"] >= 0)
    return places


@dataclass(frozen=True)
class Config:
    """Everything about an autoencoder but its tensors."""

    dictionary: DictionaryRecord
    coder: Coder
    tied: bool
    latent_bias: bool
    scale: float
    dtype: torch.dtype
    """Of the biases, and of the values unless they are quantised."""
    values: str
    """What values are stored in: the dtype's name, or int8 or int4."""
    provenance: dict[str, Any]
    rows_are_packed: bool = True
    """False in files of schema version 1."""

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
            "values": self.values,
            "provenance": self.provenance,
        }

    @classmethod
    def parse(cls, content: dict[str, Any], path: Path) -> Config:
        """The config in a verified config.json; every entry must be there, of its type, and known."""
        fields = Fields(content, str(path))
        for name in ("format", "library_version", "tensors", "checksum"):
            fields.take(name, object)
        version = fields.take("schema_version", int)
        m, n, dtype = fields.size("m"), fields.size("n"), fields.take("dtype", str)
        if dtype not in DTYPES:
            raise StorageError(f"{path}: the dtype {dtype!r} is not one of {', '.join(DTYPES)}; update expander-sae.")
        values = fields.take("values", str) if version > 1 else dtype
        if values not in (dtype, *BITS):
            raise StorageError(
                f"{path}: 'values' is {values!r}, not {dtype} or {' or '.join(BITS)}; update expander-sae."
            )
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
            values=values,
            provenance=fields.take("provenance", dict),
            rows_are_packed=version > 1,
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

    def entries_of(self, name: str) -> int | None:
        """How many values the file holds under this name, where not all [n, d] of them are there."""
        for prefix, entries in self.dictionary.uneven_blocks().items():
            if name in names_of_values(prefix):
                return entries
        return None

    def is_quantised(self, name: str) -> bool:
        """Whether the file holds the learned tensor of this name as integers."""
        return is_values(name) and self.values in BITS

    def rows_are_even(self, name: str) -> bool:
        """Whether all columns of the rows of this name are of one length."""
        return name.removesuffix("rows") not in self.dictionary.uneven_blocks()

    def layout(self) -> Layout:
        """What the tensor file holds."""
        layout: Layout = {}
        for name, shape in self.shapes_of_parameters().items():
            entries = self.entries_of(name)
            if self.is_quantised(name):
                layout |= quantised_layout(name, shape, self.values, entries)
            else:
                layout[name] = (shape if entries is None else (entries,)), self.dtype
        for name, shape in self.dictionary.shapes_of_rows().items():
            even = self.rows_are_even(name)
            layout |= rows_layout(name, shape, self.dictionary.m, self.rows_are_packed, even)
        return layout
