"""How config.json describes a dictionary, one record per kind, and how the dictionary is made from it again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from expander_sae.autoencoder.folder import Fields
from expander_sae.dictionaries import ComposedDictionary, DenseDictionary, Dictionary, ExpanderDictionary, Union
from expander_sae.errors import ExpanderError, StorageError
from expander_sae.supports import Support


@dataclass(frozen=True)
class SupportRecord:
    """A recipe and the hash of the rows that it makes, or, when `stored`, of the rows in the tensor file."""

    construction: str
    stored: bool
    seed: int
    parameters: dict[str, Any]
    sha256: str

    @classmethod
    def of(cls, support: Support) -> SupportRecord:
        """The record of a support."""
        return cls(support.construction, support.is_stored, support.seed, support.parameters, support.sha256)

    @classmethod
    def parse(cls, fields: Fields) -> SupportRecord:
        """The record that these fields hold."""
        record = cls(
            fields.take("construction", str),
            fields.take("stored", bool),
            fields.take("seed", int),
            fields.take("parameters", dict),
            fields.take("sha256", str),
        )
        fields.finish()
        return record

    def make(self, m: int, n: int, d: int, rows: Tensor | None) -> Support:
        """The support itself, found equal to the one that was saved; `rows` are the stored ones."""
        try:
            if rows is None:
                sizes = {"m": m, "n": n, "d": d, "seed": self.seed}
                recipe = {"construction": self.construction, **sizes, "parameters": self.parameters}
                support = Support.from_recipe(recipe)
                hash_found = support.sha256
            else:
                support = Support.from_rows(rows, m, self.construction)
                hash_found = support.sha256 if torch.equal(support.rows, rows.to(torch.int32)) else "of unsorted rows"
        except ExpanderError as error:
            raise StorageError(
                f"The support {self.construction!r} of this file cannot be made by this version of expander-sae, "
                f"update it: {error}"
            ) from error
        if hash_found != self.sha256:
            raise StorageError(
                f"The support {self.construction!r} does not give the rows that the file was saved with (SHA-256 "
                f"{hash_found} instead of {self.sha256}), so its values would be misplaced; load it with the version "
                "of expander-sae that wrote it, and report this."
            )
        return support


ATOMS = "atoms."
"""What comes before the names of the atoms' tensors."""


@dataclass(frozen=True)
class DictionaryRecord(ABC):
    """What config.json says about a dictionary; the tensors of a block inside it have a prefix to their names."""

    kind: ClassVar[str]
    m: int
    n: int

    @abstractmethod
    def blocks_inside(self) -> Iterator[tuple[str, BlockRecord]]:
        """The dictionaries that hold values, each with the prefix of its tensors."""

    @property
    @abstractmethod
    def degrees(self) -> frozenset[int | None]:
        """How many values the columns have, None standing for columns that differ."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """What config.json holds."""

    @abstractmethod
    def build(self, tensors: Mapping[str, Tensor], prefix: str = "") -> Dictionary:
        """The dictionary with the values (and rows) found under this prefix."""


@dataclass(frozen=True)
class BlockRecord(DictionaryRecord):
    """A dictionary that holds values itself: d of them per column, or at most d."""

    d: int
    support: SupportRecord | None
    entries: int | None = None
    """How many values there are, where columns differ in length."""

    def blocks_inside(self) -> Iterator[tuple[str, BlockRecord]]:
        yield "", self

    @property
    def degrees(self) -> frozenset[int | None]:
        return frozenset({self.d if self.entries is None else None})

    @property
    def rows_are_stored(self) -> bool:
        """Whether the tensor file holds the rows."""
        return self.support is not None and self.support.stored


@dataclass(frozen=True)
class ExpanderRecord(BlockRecord):
    """d values per column, on a support."""

    kind = "expander"
    support: SupportRecord

    @classmethod
    def of(cls, dictionary: ExpanderDictionary) -> ExpanderRecord:
        """The record of a dictionary, whose rows must be those of its support."""
        support = dictionary.support
        if not torch.equal(dictionary.rows.cpu(), support.rows):
            raise StorageError(
                "The rows of the dictionary are not those of its support; make a new dictionary from "
                "Support.from_rows(rows, m) to save it."
            )
        entries = None if support.is_even else support.entries
        return cls(dictionary.m, dictionary.n, dictionary.d, SupportRecord.of(support), entries)

    @classmethod
    def parse(cls, fields: Fields) -> ExpanderRecord:
        """The record that these fields hold."""
        sizes = fields.size("m"), fields.size("n"), fields.size("d")
        support = SupportRecord.parse(fields.inner("support"))
        return cls(*sizes, support, fields.size_or_none("entries"))

    def to_json(self) -> dict[str, Any]:
        content = {"kind": self.kind, **asdict(self)}
        if self.entries is None:
            del content["entries"]
        return content

    def build(self, tensors: Mapping[str, Tensor], prefix: str = "") -> ExpanderDictionary:
        rows = tensors[f"{prefix}rows"] if self.support.stored else None
        return ExpanderDictionary(self.support.make(self.m, self.n, self.d, rows), tensors[f"{prefix}values"])


@dataclass(frozen=True)
class DenseRecord(BlockRecord):
    """m values per column."""

    kind = "dense"

    @classmethod
    def of(cls, dictionary: DenseDictionary) -> DenseRecord:
        """The record of a dictionary."""
        return cls(dictionary.m, dictionary.n, dictionary.m, None)

    @classmethod
    def parse(cls, fields: Fields) -> DenseRecord:
        """The record that these fields hold."""
        m = fields.size("m")
        return cls(m, fields.size("n"), m, None)

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "m": self.m, "n": self.n}

    def build(self, tensors: Mapping[str, Tensor], prefix: str = "") -> DenseDictionary:
        return DenseDictionary(self.m, self.n, tensors[f"{prefix}values"])


@dataclass(frozen=True)
class ComposedRecord(DictionaryRecord):
    """Mixtures of atoms; the tensors of the two have the prefixes `atoms.` and `mixtures.`."""

    kind = "composed"
    atoms: DenseRecord
    mixtures: ExpanderRecord

    @classmethod
    def of(cls, dictionary: ComposedDictionary) -> ComposedRecord:
        """The record of a dictionary."""
        atoms, mixtures = DenseRecord.of(dictionary.atoms), ExpanderRecord.of(dictionary.mixtures)
        return cls(dictionary.m, dictionary.n, atoms, mixtures)

    @classmethod
    def parse(cls, fields: Fields) -> ComposedRecord:
        """The record that these fields hold."""
        m, n = fields.size("m"), fields.size("n")
        atoms, mixtures = parse_dictionary(fields.inner("atoms")), parse_dictionary(fields.inner("mixtures"))
        if not isinstance(atoms, DenseRecord) or not isinstance(mixtures, ExpanderRecord):
            raise StorageError(f"{fields.where}: mixtures of atoms are not of that kind here; update expander-sae.")
        if (atoms.m, mixtures.m, mixtures.n) != (m, atoms.n, n):
            raise StorageError(
                f"{fields.where}: the sizes of atoms and mixtures do not fit; save the autoencoder again."
            )
        return cls(m, n, atoms, mixtures)

    def blocks_inside(self) -> Iterator[tuple[str, BlockRecord]]:
        yield ATOMS, self.atoms
        yield "mixtures.", self.mixtures

    @property
    def degrees(self) -> frozenset[int | None]:
        return self.mixtures.degrees

    def to_json(self) -> dict[str, Any]:
        parts = {"atoms": self.atoms.to_json(), "mixtures": self.mixtures.to_json()}
        return {"kind": self.kind, "m": self.m, "n": self.n, **parts}

    def build(self, tensors: Mapping[str, Tensor], prefix: str = "") -> ComposedDictionary:
        atoms = self.atoms.build(tensors, f"{prefix}{ATOMS}")
        return ComposedDictionary(atoms, self.mixtures.build(tensors, f"{prefix}mixtures."))


@dataclass(frozen=True)
class UnionRecord(DictionaryRecord):
    """Dictionaries side by side; the tensors of block i have the prefix `blocks.i.`."""

    kind = "union"
    blocks: tuple[DictionaryRecord, ...]

    @classmethod
    def of(cls, dictionary: Union) -> UnionRecord:
        """The record of a dictionary."""
        blocks = tuple(record_of(block) for block in dictionary.blocks if isinstance(block, Dictionary))
        return cls(dictionary.m, dictionary.n, blocks)

    @classmethod
    def parse(cls, fields: Fields) -> UnionRecord:
        """The record that these fields hold."""
        m, n, blocks = fields.size("m"), fields.size("n"), fields.take("blocks", list)
        records = [parse_dictionary(Fields(block, f"{fields.where}, block {i}")) for i, block in enumerate(blocks)]
        if {record.m for record in records} != {m} or sum(record.n for record in records) != n:
            raise StorageError(f"{fields.where}: the sizes of the blocks do not add up; save the autoencoder again.")
        return cls(m, n, tuple(records))

    def blocks_inside(self) -> Iterator[tuple[str, BlockRecord]]:
        for position, record in enumerate(self.blocks):
            for prefix, block in record.blocks_inside():
                yield f"blocks.{position}.{prefix}", block

    @property
    def degrees(self) -> frozenset[int | None]:
        return frozenset().union(*(record.degrees for record in self.blocks))

    def to_json(self) -> dict[str, Any]:
        blocks = [record.to_json() for record in self.blocks]
        return {"kind": self.kind, "m": self.m, "n": self.n, "blocks": blocks}

    def build(self, tensors: Mapping[str, Tensor], prefix: str = "") -> Union:
        return Union([record.build(tensors, f"{prefix}blocks.{i}.") for i, record in enumerate(self.blocks)])


def record_of(dictionary: Dictionary) -> DictionaryRecord:
    """The record of any dictionary of this library."""
    # Exact types: a subclass computes something else, which the file could not say.
    if type(dictionary) is ExpanderDictionary:
        return ExpanderRecord.of(dictionary)
    if type(dictionary) is DenseDictionary:
        return DenseRecord.of(dictionary)
    if type(dictionary) is ComposedDictionary:
        return ComposedRecord.of(dictionary)
    if type(dictionary) is Union:
        return UnionRecord.of(dictionary)
    raise StorageError(
        f"A {type(dictionary).__name__} cannot be saved, only ExpanderDictionary, DenseDictionary, ComposedDictionary "
        "and Union can."
    )


def parse_dictionary(fields: Fields) -> DictionaryRecord:
    """The record that these fields of config.json hold."""
    kind = fields.take("kind", str)
    kinds = {record.kind: record for record in (ExpanderRecord, DenseRecord, ComposedRecord, UnionRecord)}
    if kind not in kinds:
        raise StorageError(f"{fields.where}: the kind {kind!r} is unknown; update expander-sae to load it.")
    record = kinds[kind].parse(fields)
    fields.finish()
    return record
