"""Reading a store: tokens by number, checked, without the model or the text they come from."""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Mapping
from itertools import accumulate
from os import PathLike
from pathlib import Path
from typing import Any, Self

import torch

from expander_sae.activations.store.manifest import (
    MASSIVE_MULTIPLE,
    STORE,
    Manifest,
    Norms,
    Shard,
    read_manifest,
)
from expander_sae.activations.store.shards import StoreError, Tokens, read_tokens


class Store:
    """The complete shards of a store as they were when it was opened; `store[start:stop]` gives `Tokens`.

    A shard's checksum is verified the first time that one of its tokens is read.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path, self.manifest = path, manifest
        self._ends = list(accumulate(shard.tokens for shard in manifest.shards))
        self._verified: set[str] = set()
        for shard in manifest.shards:
            STORE.check_size(path / shard.file, shard.bytes)

    @classmethod
    def open(cls, path: str | PathLike[str]) -> Self:
        """The store in the folder `path`, the size of every shard found right."""
        folder = Path(path)
        _check_folder(folder)
        return cls(folder, read_manifest(folder))

    @property
    def width(self) -> int:
        """Size of an activation."""
        return self.manifest.width

    @property
    def dtype(self) -> torch.dtype:
        """What activations are stored in."""
        return self.manifest.dtype

    @property
    def precision(self) -> str:
        """The arithmetic that the model ran in."""
        return self.manifest.precision

    @property
    def tokens(self) -> int:
        """Tokens that can be read."""
        return self._ends[-1] if self._ends else 0

    @property
    def documents(self) -> int:
        """Documents that these tokens come from."""
        return self.manifest.documents

    @property
    def origin(self) -> Mapping[str, Any]:
        """Where the activations come from, as the harvest told it."""
        return self.manifest.origin

    @property
    def complete(self) -> bool:
        """Whether the harvest was finished."""
        return self.manifest.complete

    @property
    def norms(self) -> Norms:
        """Norms of the activations, and how many tokens are massive."""
        norms = self.manifest.norms
        if norms is None:
            raise StoreError(f"{self.path} has no complete shard yet; let the harvest write at least one.")
        return norms

    @property
    def massive_above(self) -> float:
        """The norm above which a token is massive."""
        return MASSIVE_MULTIPLE * self.norms.median

    @property
    def shard_tokens(self) -> list[int]:
        """Tokens of every shard, in order."""
        return [shard.tokens for shard in self.manifest.shards]

    @property
    def fingerprint(self) -> str:
        """The same for stores that hold the same shards, and for no others."""
        return hashlib.sha256("".join(shard.sha256 for shard in self.manifest.shards).encode()).hexdigest()[:16]

    def __len__(self) -> int:
        return self.tokens

    def __getitem__(self, tokens: slice) -> Tokens:
        """The tokens of a slice, mapped into memory where it lies in one shard, copied together where it does not."""
        if not isinstance(tokens, slice) or tokens.step not in (None, 1):
            raise StoreError(f"A store is read by slices such as store[0:1000], not by {tokens!r}.")
        start, stop, _ = tokens.indices(self.tokens)
        if start >= stop:
            raise StoreError(f"store[{tokens.start}:{tokens.stop}] holds no token; {self.path} has {self.tokens}.")
        first, last = bisect.bisect_right(self._ends, start), bisect.bisect_left(self._ends, stop)
        return Tokens.concatenated([self._part(number, start, stop) for number in range(first, last + 1)])

    def verify(self) -> None:
        """Read every shard and refuse the store if one does not match its checksum, naming all that do not."""
        damaged = [shard.file for shard in self.manifest.shards if not self._matches(shard)]
        if damaged:
            raise StoreError(
                f"{self.path}: {', '.join(damaged)} was damaged or changed; copy it again or harvest anew."
            )
        self._verified.update(shard.file for shard in self.manifest.shards)

    def _part(self, number: int, start: int, stop: int) -> Tokens:
        """What the shard of this number holds of the tokens start .. stop-1 of the store."""
        shard = self.manifest.shards[number]
        path = self.path / shard.file
        if shard.file not in self._verified:
            if not self._matches(shard):
                raise StoreError(f"{path} does not match its SHA-256: it was damaged or changed; copy it again.")
            self._verified.add(shard.file)
        begin = self._ends[number] - shard.tokens
        form = self.manifest.form_of(shard)
        return read_tokens(path, form, max(0, start - begin), min(shard.tokens, stop - begin))

    def _matches(self, shard: Shard) -> bool:
        return STORE.sha256_of(self.path / shard.file) == shard.sha256


def _check_folder(folder: Path) -> None:
    if not folder.exists():
        raise StoreError(f"{folder} does not exist; give a folder that `expander harvest` wrote.")
    if not folder.is_dir():
        raise StoreError(f"{folder} is a file, but a store is a folder with a {STORE.seal}; give the folder.")
    if not STORE.is_at(folder):
        inside = sorted(path.parent.name for path in folder.glob(f"*/{STORE.seal}"))
        hint = f"give one of the stores inside it: {', '.join(inside)}" if inside else "harvest into it first"
        raise StoreError(f"{folder} has no {STORE.seal}, so it is not a store; {hint}.")
