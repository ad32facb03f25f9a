"""Reading a feature database: what is known about every feature, and the contexts in which it fires."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from jaxtyping import Float
from torch import Tensor

from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.checks import a_feature
from expander_sae.errors import ExpanderError, require
from expander_sae.features.schema import (
    CONTEXTS,
    CONTEXTS_FILE,
    DATABASE,
    FEATURES,
    FEATURES_FILE,
    Column,
    arrow_schema,
)
from expander_sae.features.shards import Shard, open_shards
from expander_sae.files import NamedFile, conforms

if TYPE_CHECKING:
    import pyarrow


@dataclass(frozen=True)
class DatabaseInfo:
    """What a database is about."""

    name: str
    """What the autoencoder's folder is called."""
    autoencoder: str
    """Fingerprint of its tensors and its coder."""
    m: int
    n: int
    k: int
    """Features that a token uses at most."""
    coder: str
    origin: Mapping[str, Any]
    """Where the activations come from: model, revision, hookpoint, text, part, context, bos, ..."""
    tokens: int
    """Tokens that were encoded."""
    massive: int
    """Of these, tokens of massive norm, on which nothing fires."""
    documents: int
    alive: int
    """Features that fired on ten tokens or more."""
    rare: int
    """Features that fired on fewer."""
    dead: int
    """Features that never fired."""
    settings: Mapping[str, Any]
    """What was asked for: tokens around a context, contexts in a group, ..."""

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """The part of database.json that these fields are."""
        return cls(**{field.name: content[field.name] for field in fields(cls)})

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON has them."""
        return asdict(self)


class FeatureDatabase:
    """A finished database, read a few features at a time; whatever is asked for comes from the two Parquet files."""

    def __init__(self, path: Path, info: DatabaseInfo, files: Mapping[str, NamedFile], checksum: str) -> None:
        """`files` says of every file how many `bytes` it has, and their `sha256`."""
        self.path, self.info, self._files = path, info, files
        self.checksum = checksum
        """Another one for every other content."""
        self.codes = [name for name in files if name.startswith("codes-")]
        """Names of the files of codes in the order of the text; none if they were not kept."""
        self._features: pyarrow.Table | None = None
        self._contexts: pyarrow.parquet.ParquetFile | None = None

    @classmethod
    def open(cls, path: str | PathLike[str]) -> Self:
        """The database in this folder (or in the folder `features` of an autoencoder), finished and whole."""
        require("pyarrow", extra="features")
        folder = Path(path)
        if not DATABASE.is_at(folder) and DATABASE.is_at(folder / "features"):
            folder = folder / "features"
        if not DATABASE.is_at(folder):
            raise ExpanderError(f"There is no feature database in {folder}; `expander features RUN` makes one.")
        content = DATABASE.read(folder)
        if not content["complete"]:
            raise ExpanderError(
                f"The feature database in {folder} is not finished; the same `expander features` goes on with it."
            )
        for name, known in content["files"].items():
            DATABASE.check_size(folder / name, known["bytes"])
        if not (conforms(content, DatabaseInfo) and {FEATURES_FILE, CONTEXTS_FILE} <= content["files"].keys()):
            raise ExpanderError(f"{folder / DATABASE.seal} {DATABASE.unknown}.")
        return cls(folder, DatabaseInfo.from_json(content), content["files"], content["checksum"])

    def check(self, sae: SparseAutoencoder) -> None:
        """Refuse another autoencoder than the one whose features these are."""
        if fingerprint(sae) != self.info.autoencoder:
            raise ExpanderError(
                f"{self.path} is about another autoencoder ({self.info.name}, n={self.info.n}); "
                "run `expander features` for this one."
            )

    def features(self) -> pyarrow.Table:
        """The table of all features, read once."""
        if self._features is None:
            file = self._table(FEATURES_FILE, FEATURES)
            with self._readable(FEATURES_FILE):
                self._features = file.read()
        return self._features

    def feature(self, number: int) -> dict[str, Any]:
        """The row of one feature, by the names of its columns."""
        self._check(number)
        row: dict[str, Any] = self.features().slice(number, 1).to_pylist()[0]
        return row

    def contexts(self, number: int) -> list[dict[str, Any]]:
        """The contexts of one feature, by group and rank."""
        found: list[dict[str, Any]] = self.contexts_of(number, number + 1).to_pylist()
        return found

    def contexts_of(self, first: int, stop: int) -> pyarrow.Table:
        """The contexts of the features first .. stop-1 as a table; only that part of the file is read."""
        from pyarrow import compute

        self._check(first)
        file = self._contexts_file()
        groups = [group for group, (low, high) in enumerate(self._ranges()) if low < stop and high >= first]
        with self._readable(CONTEXTS_FILE):
            table = file.read_row_groups(groups)
        column = table.column("feature")
        inside = compute.and_(compute.greater_equal(column, first), compute.less(column, stop))
        return table.filter(inside)

    @property
    def largest(self) -> Float[Tensor, " n"]:
        """The largest activation of every feature, the unit of its strengths; 0 for features that never fired."""
        column = self.features().column("largest").fill_null(0.0).to_numpy()
        return torch.from_numpy(column.copy())

    def shards(self) -> list[Shard]:
        """The codes of the text; none if they were not kept."""
        return open_shards([self._verified(name) for name in self.codes])

    def _verified(self, name: str) -> Path:
        """One of its files, which was found to be as it was written."""
        known = self._files[name]
        DATABASE.check_named(self.path / name, known["sha256"], known["bytes"])
        return self.path / name

    def _contexts_file(self) -> pyarrow.parquet.ParquetFile:
        if self._contexts is None:
            self._contexts = self._table(CONTEXTS_FILE, CONTEXTS)
        return self._contexts

    def _table(self, name: str, columns: Mapping[str, Column]) -> pyarrow.parquet.ParquetFile:
        """One of its tables, which has these columns."""
        from pyarrow import parquet

        path = self._verified(name)
        with self._readable(name):
            file = parquet.ParquetFile(path)
            if not file.schema_arrow.equals(arrow_schema(columns)):
                raise TypeError
            return file

    @contextmanager
    def _readable(self, name: str) -> Iterator[None]:
        """What its seal says may be right and the table none all the same, where both were changed."""
        import pyarrow

        try:
            yield
        except (pyarrow.ArrowException, OSError, TypeError, ValueError) as error:
            raise ExpanderError(f"{self.path / name} is no table of a feature database; copy it again.") from error

    def _ranges(self) -> Iterator[tuple[int, int]]:
        """The lowest and the highest feature of every row group of the contexts."""
        metadata = self._contexts_file().metadata
        for group in range(metadata.num_row_groups):
            statistics = metadata.row_group(group).column(0).statistics
            if statistics is None or not statistics.has_min_max:
                raise ExpanderError(f"{self.path / CONTEXTS_FILE} does not say what is where in it; copy it again.")
            yield statistics.min, statistics.max

    def _check(self, number: int) -> None:
        a_feature(number, self.info.n)


def fingerprint(sae: SparseAutoencoder) -> str:
    """The same for autoencoders whose codes and columns are the same, and for no others."""
    digest = hashlib.sha256(repr(sae.coder).encode())
    tensors = [*sae.named_parameters(), *sae.named_buffers()]
    for name, tensor in sorted(tensors, key=lambda each: each[0]):
        digest.update(name.encode())
        plain = tensor.detach().cpu()
        plain = plain.float() if plain.is_floating_point() else plain.int()
        digest.update(plain.contiguous().numpy().tobytes())
    return digest.hexdigest()
