"""What config.json says about an autoencoder, as one typed record that is checked as a whole."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from expander_sae.autoencoder.dictionaries import ATOMS, DictionaryRecord, parse_dictionary
from expander_sae.autoencoder.folder import Fields
from expander_sae.coders import Coder
from expander_sae.coders.named import CODERS
from expander_sae.errors import ExpanderError, StorageError
from expander_sae.files import check_json

DTYPES = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "float64": torch.float64,
}
"""What values can be stored in, by name."""

Quantised = Literal["int8", "int4"]
"""What values can be quantised to."""

BITS = {"int8": 8, "int4": 4}
"""Bits per value of each."""


def dtype_name(dtype: torch.dtype) -> str:
    """The name without `torch.`."""
    return str(dtype).removeprefix("torch.")


def check_dtype(dtype: torch.dtype) -> None:
    """Refuse a dtype that values cannot have."""
    if dtype not in DTYPES.values():
        raise StorageError(f"An autoencoder's dtype can be {', '.join(DTYPES)}, not {dtype_name(dtype)}.")


def check_quantised(values: str) -> None:
    """Refuse what values cannot be quantised to."""
    if values not in BITS:
        raise StorageError(f"Values can be quantised to {' or '.join(BITS)}, not {values!r}; a float type is a dtype.")


def encoder_name(name: str) -> str:
    """What the encoder's counterpart of a dictionary's tensor is called."""
    prefix, dot, last = name.rpartition(".")
    return f"{prefix}{dot}encoder_{last}"


@dataclass(frozen=True)
class Learned:
    """A learned tensor and how the file holds it."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    """The dtype that the file holds it in, unless it is quantised."""
    quantised: str | None = None
    """int8 or int4, if it is values that are held so."""
    rows: str | None = None
    """The name of the rows that its values stand on, if it is values."""
    entries: int | None = None
    """How many values there are, where columns differ in length; the file holds those alone, column after column."""

    @property
    def size(self) -> int:
        """How many numbers the file holds."""
        return math.prod(self.shape) if self.entries is None else self.entries


@dataclass(frozen=True)
class Config:
    """Everything about an autoencoder but its tensors."""

    dictionary: DictionaryRecord
    coder: Coder
    tied: bool
    latent_bias: bool
    thresholds: bool
    scale: float
    dtype: torch.dtype
    """The dtype of the biases, and of the values unless they are quantised."""
    values: str
    """What values are stored in: the dtype's name, or int8 or int4."""
    provenance: dict[str, Any]
    rows_are_packed: bool = True
    """False in files of schema version 1."""

    def __post_init__(self) -> None:
        held = torch.finfo(torch.float32)
        if not held.tiny <= self.scale <= held.max:
            raise StorageError(f"The scale must be finite and above zero, not {self.scale}; use fit_scale to set it.")

    def to_json(self) -> dict[str, Any]:
        """What config.json holds, without what the folder adds to it."""
        check_json(self.provenance, "provenance")
        thresholds = {"thresholds": True} if self.thresholds else {}
        return {
            "m": self.dictionary.m,
            "n": self.dictionary.n,
            "dictionary": self.dictionary.to_json(),
            "coder": coder_to_json(self.coder),
            "tied": self.tied,
            "latent_bias": self.latent_bias,
            **thresholds,
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
            thresholds="thresholds" in content and fields.take("thresholds", bool),
            scale=fields.take("scale", float),
            dtype=DTYPES[dtype],
            values=values,
            provenance=fields.take("provenance", dict),
            rows_are_packed=version > 1,
        )
        fields.finish()
        return config

    def learned(self) -> Iterator[Learned]:
        """Every learned tensor of the file: values, those of the encoder, biases."""
        quantised = self.values if self.values in BITS else None
        for prefix, block in self.dictionary.blocks_inside():
            values = Learned(
                f"{prefix}values", (block.n, block.d), self.dtype, quantised, f"{prefix}rows", block.entries
            )
            yield values
            if not self.tied and not prefix.endswith(ATOMS):  # which the encoder shares
                yield dataclasses.replace(values, name=encoder_name(values.name))
        yield Learned("pre_bias", (self.dictionary.m,), self.dtype)
        if self.latent_bias:
            yield Learned("latent_bias", (self.dictionary.n,), self.dtype)
        if self.thresholds:
            yield Learned("thresholds", (self.dictionary.n,), self.dtype)


def known_coders() -> dict[str, type[Coder]]:
    """The coders of this library by name, the only ones a file can name."""
    return {coder.__name__: coder for coder in CODERS.values()}


def coder_to_json(coder: Coder) -> dict[str, Any]:
    """What config.json holds about a coder; what it leaves to a default of its own is not there."""
    name = type(coder).__name__
    if known_coders().get(name) is not type(coder):
        raise StorageError(
            f"The coder {name} is not one of this library's ({', '.join(known_coders())}), so a file cannot name it; "
            "save sae.with_coder(...) with one of them and set your own after loading."
        )
    every = {field.name: getattr(coder, field.name) for field in dataclasses.fields(coder)}
    parameters = {name: value for name, value in every.items() if value is not None}
    check_json(parameters, name)
    return {"name": name, "parameters": parameters}


def parse_coder(fields: Fields) -> Coder:
    """The coder that these fields of config.json hold."""
    name, parameters = fields.take("name", str), fields.take("parameters", dict)
    fields.finish()
    known = known_coders()
    if name not in known:
        raise StorageError(f"{fields.where}: the coder {name!r} is not known here; update expander-sae to load it.")
    unknown = set(parameters) - {field.name for field in dataclasses.fields(known[name])}
    if unknown:
        names = ", ".join(sorted(unknown))
        raise StorageError(f"{fields.where}: the coder {name} has no parameter {names} here; update expander-sae.")
    try:
        return known[name](**parameters)
    except (ExpanderError, TypeError) as error:
        reason = str(error).rstrip(".")
        raise StorageError(f"{fields.where}: the coder {name} cannot have these parameters: {reason}.") from error
