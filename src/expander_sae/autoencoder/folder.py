"""The two files of an autoencoder's folder: replaced as one, and checked to the last bit when read.

`config.json` seals the folder and names the tensor file, whose name holds the hash of its content.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from expander_sae.errors import StorageError
from expander_sae.files import SealedFolder

T = TypeVar("T")

AUTOENCODER = SealedFolder(
    seal="config.json",
    others=re.compile(r"sae-[0-9a-f]{12}\.safetensors"),
    noun="an autoencoder",
    error=StorageError,
    format="expander-sae",
    version=2,
    older=(1,),
    foreign="does not describe an expander-sae autoencoder; only folders that save() wrote can be loaded",
    newer="was written by a newer version of expander-sae ({library}); update expander-sae to load it",
    unknown="has the unknown schema version {version}; this version of expander-sae reads 1 and 2",
    remedy="restore the folder from a copy",
)


def is_autoencoder(folder: Path) -> bool:
    """Whether the folder holds an autoencoder of this library, whole or not."""
    return AUTOENCODER.is_at(folder)


def write_folder(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Make the folder hold this config and these tensors, whatever autoencoder it held before."""
    _check_replaceable(folder)
    added = AUTOENCODER.add_tensors(folder, tensors, _name_of)
    file = _name_of(added["sha256"])
    AUTOENCODER.replace(folder, {**config, "tensors": {"file": file, **added}}, [file])


def read_folder(folder: Path) -> tuple[dict[str, Any], bytes]:
    """The config and the bytes of the tensor file, both verified."""
    _check_folder(folder)
    config = AUTOENCODER.read(folder)
    while True:
        try:
            return config, _read_tensors(folder, config)
        except StorageError:
            # A save may have replaced the autoencoder between the two reads; then the config has changed.
            current = AUTOENCODER.read(folder)
            if current == config:
                raise
            config = current


def _check_replaceable(folder: Path) -> None:
    """Refuse to write over what is not an autoencoder of ours."""
    if folder.exists() and not folder.is_dir():
        raise StorageError(f"{folder} is a file; an autoencoder is saved as a folder, choose another path.")
    path = folder / AUTOENCODER.seal
    if path.exists():
        try:
            existing = json.loads(path.read_bytes())
        except (OSError, ValueError, RecursionError):
            existing = None
        if not isinstance(existing, dict) or existing.get("format") != AUTOENCODER.format:
            raise StorageError(
                f"{folder} has a {path.name} that is not of an expander-sae autoencoder, or damaged; "
                "it is not overwritten, choose another path or delete it first."
            )


def _check_folder(folder: Path) -> None:
    """Refuse what is not a folder with a config, and say whose it looks like."""
    if not folder.exists():
        raise StorageError(f"{folder} does not exist; give the path of a folder that save() wrote.")
    seal = AUTOENCODER.seal
    if not folder.is_dir():
        raise StorageError(f"{folder} is a file, but an autoencoder is a folder with a {seal}; give the folder.")
    if not is_autoencoder(folder):
        foreign = ""
        if (folder / "cfg.json").is_file():
            maker = "SAELens" if (folder / "sae_weights.safetensors").is_file() else "SAELens or sparsify"
            foreign = f" and its cfg.json looks like one of {maker}"
        raise StorageError(f"{folder} has no {seal}{foreign}; only folders that save() wrote can be loaded.")


def _name_of(digest: str) -> str:
    """What a tensor file with this SHA-256 is called."""
    return f"sae-{digest[:12]}.safetensors"


def _read_tensors(folder: Path, config: Mapping[str, Any]) -> bytes:
    """The bytes of the tensor file, after their number and hash were found right."""
    path = folder / AUTOENCODER.seal
    fields = Fields(config.get("tensors"), f"{path}: 'tensors'")
    file, digest, size = fields.take("file", str), fields.take("sha256", str), fields.take("bytes", int)
    fields.finish()
    if not AUTOENCODER.others.fullmatch(file) or file != _name_of(digest):
        raise StorageError(
            f"{path} names the tensor file {file!r}, which is not the sae-<hash>.safetensors beside it; "
            "save the autoencoder again."
        )
    return AUTOENCODER.read_named(folder / file, digest, size)


class Fields:
    """A JSON object whose entries are taken one by one, each with its type; `finish` refuses what is left."""

    def __init__(self, content: object, where: str) -> None:
        if not isinstance(content, dict):
            raise StorageError(f"{where} must be an object, not {content!r}; save the autoencoder again.")
        self.where = where
        self._left: dict[str, Any] = dict(content)

    def take(self, name: str, kind: type[T]) -> T:
        """The entry of this name, which must be there and of this type (an integer is not a boolean)."""
        if name not in self._left:
            raise StorageError(f"{self.where} has no entry {name!r}; save the autoencoder again.")
        value = self._left.pop(name)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            expected = f"{self.where}: {name!r} must be of type {kind.__name__}"
            raise StorageError(f"{expected}, not {value!r}; save the autoencoder again.")
        return value

    def size(self, name: str) -> int:
        """The entry of this name, an integer of at least 1."""
        value = self.take(name, int)
        if value < 1:
            raise StorageError(f"{self.where}: {name!r} must be at least 1, not {value}; save the autoencoder again.")
        return value

    def size_or_none(self, name: str) -> int | None:
        """The entry of this name, an integer of at least 1, or None if there is no such entry."""
        return self.size(name) if name in self._left else None

    def inner(self, name: str) -> Fields:
        """The entry of this name, itself an object."""
        return Fields(self.take(name, dict), f"{self.where}: {name!r}")

    def finish(self) -> None:
        """Refuse entries that nobody took."""
        if self._left:
            names = ", ".join(map(repr, self._left))
            raise StorageError(f"{self.where} has the unknown entries {names}; update expander-sae to read it.")
