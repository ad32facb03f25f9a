"""JSON that is checked: what goes in must come out the same, what comes out must be what is expected."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any, TypeVar

from expander_sae.errors import StorageError

T = TypeVar("T")


def check_json(value: object, name: str) -> None:
    """Refuse what JSON would change or cannot hold, naming the entry."""
    if isinstance(value, Mapping):
        for key, entry in value.items():
            if not isinstance(key, str):
                raise StorageError(f"{name} has the key {key!r}, but a file holds only keys that are strings.")
            check_json(entry, f"{name}.{key}")
    elif isinstance(value, list | tuple):
        for position, entry in enumerate(value):
            check_json(entry, f"{name}[{position}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise StorageError(f"{name} is {value}, but a file holds only finite numbers; leave it out or use None.")
    elif not (value is None or isinstance(value, str | int | float)):
        kind = type(value).__name__
        raise StorageError(
            f"{name} is a {kind}, but a file holds only strings, numbers, booleans, None, lists and dictionaries."
        )


def checksum(config: Mapping[str, Any]) -> str:
    """SHA-256 of the config's content, however it is laid out, without its own entry `checksum`."""
    content = {key: value for key, value in config.items() if key != "checksum"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


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
        """The same, or None if there is no such entry."""
        return self.size(name) if name in self._left else None

    def inner(self, name: str) -> Fields:
        """The entry of this name, itself an object."""
        return Fields(self.take(name, dict), f"{self.where}: {name!r}")

    def finish(self) -> None:
        """Refuse entries that nobody took."""
        if self._left:
            names = ", ".join(map(repr, self._left))
            raise StorageError(f"{self.where} has the unknown entries {names}; update expander-sae to read it.")
