"""Writing a store: shard after shard, so that a harvest killed at any moment goes on after its last complete shard."""

from __future__ import annotations

import copy
import json
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import reduce
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from expander_sae.activations.store.lock import FolderLock, make_folder, open_manifest
from expander_sae.activations.store.manifest import (
    DTYPES,
    MASSIVE_MULTIPLE,
    STORE,
    Manifest,
    Resume,
    Shard,
)
from expander_sae.activations.store.reader import Store
from expander_sae.activations.store.shards import (
    FIELDS,
    TOKENS_PER_SHARD,
    Integers,
    StoreError,
    Tokens,
    as_tokens,
    read_tokens,
    shard_name,
)
from expander_sae.files import Data, check_json, named_file, pieces_of
from expander_sae.means import check_memory


@dataclass(frozen=True)
class ResumePoint:
    """Where a harvest goes on: with the token of number `tokens`, in the state that `cursor` tells."""

    tokens: int
    """Tokens that were appended before; those after it that the store has already are dropped when they come again."""
    cursor: Any
    """What the last append before this point was given as `cursor`; None at the beginning, or without cursors."""
    stored: int
    """Tokens in complete shards."""
    documents: int
    """Documents that these tokens come from."""


class StoreWriter:
    """Fills a store, new or begun before: `append` until `finish`; leaving the `with` block keeps complete shards only.

    One unfinished shard is held in memory. A token is massive when its norm is above 4 times the median norm of the
    first shard, a threshold that is written down with that shard and never moves.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        width: int,
        dtype: torch.dtype,
        origin: Mapping[str, Any],
        tokens_per_shard: int = TOKENS_PER_SHARD,
        tokens: int | None = None,
    ) -> None:
        """`origin` says what is harvested, and must be the same to resume; `tokens`, how many there will be in all.

        Only a writer that says that it wants more `tokens` than a complete store has can go on with it.
        """
        self.path = Path(path)
        wanted = _wanted_manifest(width, dtype, tokens_per_shard, origin)
        shard = 1.0 * tokens_per_shard * width * dtype.itemsize
        check_memory(f"A shard of {tokens_per_shard:,} tokens", shard, instead="give a smaller --tokens-per-shard")
        make_folder(self.path)
        self._lock = FolderLock(self.path)
        try:
            self._manifest = open_manifest(self.path, wanted, tokens)
            self._documents = _documents_in(self.path, self._manifest)
        except BaseException:
            self._lock.release()
            raise
        self._next = self._manifest.resume.tokens
        self._cursors: deque[Resume] = deque()
        self._has_cursors = self._manifest.resume.cursor is not None
        self._pending = _empty_shard(tokens_per_shard, width, dtype)
        self._filled = 0
        self._open = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def tokens(self) -> int:
        """Tokens that the store has, those of the unfinished shard included."""
        return self._manifest.tokens + self._filled

    def resume_point(self) -> ResumePoint:
        """Where the harvest of the complete shards goes on."""
        resume = self._manifest.resume
        cursor = copy.deepcopy(resume.cursor)
        return ResumePoint(resume.tokens, cursor, self._manifest.tokens, self._manifest.documents)

    def go_back_to(self, point: ResumePoint) -> None:
        """Expect the harvest to go on from the point of a store beside this one, which has come less far."""
        if self._filled or point.tokens > self._next:
            raise StoreError(
                f"{self.path} is at token {self._next + self._filled} and can only go back before the first append, "
                f"not to token {point.tokens}; go on from the store that has come the least far."
            )
        self._next = point.tokens

    def append(
        self,
        activations: Float[Tensor, "tokens m"],
        token_ids: Integers,
        document: Integers,
        position: Integers,
        *,
        cursor: Any = None,
    ) -> None:
        """Add tokens; `cursor` is JSON from which the harvest can go on after them. What is refused changes nothing."""
        self._check_open()
        check_json(cursor, "cursor")
        fields = {"token_ids": token_ids, "document": document, "position": position}
        manifest = self._manifest
        tokens = as_tokens(activations, fields, width=manifest.width, dtype=manifest.dtype, first=self._next)
        count = tokens.massive.numel()
        start = self._check_stored(tokens, count)
        self._next += count
        if cursor is not None:
            self._has_cursors = True
            self._cursors.append(Resume(self._next, copy.deepcopy(cursor)))
        while start < count:
            taken = min(count - start, manifest.tokens_per_shard - self._filled)
            self._put(tokens, start, taken)
            start += taken
            if self._filled == manifest.tokens_per_shard:
                self._write_shard()

    def finish(self) -> None:
        """Write the last shard, mark the store complete and close it."""
        self._check_open()
        if self._next < self._manifest.tokens:
            raise StoreError(
                f"The harvest ended at token {self._next}, but {self.path} already has {self._manifest.tokens}: "
                "the text or the model has changed; harvest into another folder."
            )
        if self._filled:
            self._write_shard()
        if not self._manifest.shards:
            raise StoreError(f"{self.path} was given no token, and a store cannot be empty; give more text.")
        if not self._manifest.complete:
            self._commit(replace(self._manifest, complete=True))
        self.close()

    def close(self) -> None:
        """Forget the unfinished shard and let others write the folder; complete shards stay."""
        self._open, self._filled = False, 0
        self._lock.release()

    def _check_open(self) -> None:
        if not self._open:
            raise StoreError(f"The writer of {self.path} is closed; open another one to go on with the store.")

    def _check_stored(self, tokens: Tokens, count: int) -> int:
        """How many of the tokens are in complete shards already, after they were found to be the same."""
        stored = min(count, max(0, self._manifest.tokens - self._next))
        if stored:
            there = Store(self.path, self._manifest)[self._next : self._next + stored]
            for name in ("token_ids", "document", "position"):
                differing = torch.nonzero(getattr(there, name) != getattr(tokens, name)[:stored])
                if differing.numel():
                    raise StoreError(
                        f"The harvest does not go on as {self.path} begins: {name} of token "
                        f"{self._next + int(differing[0])} differs; the text or its order has changed, "
                        "harvest into another folder."
                    )
        return stored

    def _put(self, tokens: Tokens, start: int, count: int) -> None:
        for name, values in self._pending.items():
            values[self._filled : self._filled + count] = getattr(tokens, name)[start : start + count]
        self._filled += count

    def _write_shard(self) -> None:
        """Put the pending tokens on disk and then into the manifest."""
        tensors = {name: values[: self._filled] for name, values in self._pending.items()}
        norms = torch.linalg.vector_norm(tensors["activations"], dim=1, dtype=torch.float64).numpy()
        median = self._manifest.median_norm
        median = float(np.median(norms)) if median is None else median
        massive = norms > MASSIVE_MULTIPLE * median
        tensors["massive"].copy_(torch.from_numpy(massive))
        documents = np.unique(tensors["document"].numpy())
        data = list(pieces_of(tensors))
        file = shard_name(len(self._manifest.shards))
        shard = Shard(
            file=file,
            tokens=self._filled,
            documents=(int(documents[0]), int(documents[-1])),
            new_documents=int(np.setdiff1d(documents, self._documents, assume_unique=True).size),
            massive=int(massive.sum()),
            norm_sum=float(norms[~massive].sum()),
            square_norm_sum=float(np.square(norms[~massive]).sum()),
            **named_file(data),
        )
        resume = self._resume_within(self._manifest.tokens + self._filled)
        self._commit(self._manifest.with_shard(shard, median, resume), {file: data})
        self._documents = np.union1d(self._documents, documents)
        self._filled = 0

    def _resume_within(self, stored: int) -> Resume:
        """The last point at which all appended tokens are among the first `stored` ones."""
        resume = self._manifest.resume
        while self._cursors and self._cursors[0].tokens <= stored:
            resume = max(resume, self._cursors.popleft(), key=lambda point: point.tokens)
        return resume if self._has_cursors else Resume(stored, None)

    def _commit(self, manifest: Manifest, shards: Mapping[str, Data] | None = None) -> None:
        """Write new shards and then the manifest that names them; the writer is closed if that fails."""
        try:
            STORE.write(self.path, manifest.to_json(), shards or {})
        except OSError as error:
            self.close()
            whole = f"{len(self._manifest.shards)} complete shards with {self._manifest.tokens} tokens"
            raise StoreError(
                f"{self.path} cannot be written ({error.strerror}); its {whole} are whole, and harvesting again "
                "goes on after them once the disk allows it."
            ) from error
        self._manifest = manifest


def _wanted_manifest(width: int, dtype: torch.dtype, tokens_per_shard: int, origin: Mapping[str, Any]) -> Manifest:
    """The manifest of a store without shards, sizes checked."""
    if width < 1 or tokens_per_shard < 1:
        raise StoreError(f"width and tokens_per_shard must be at least 1, not {width} and {tokens_per_shard}.")
    if dtype not in DTYPES.values():
        raise StoreError(f"A store's dtype can be {' or '.join(DTYPES)}, not {str(dtype).removeprefix('torch.')}.")
    check_json(origin, "origin")
    # As JSON gives it back, so that lists and tuples compare equal when the harvest is resumed.
    return Manifest(width, dtype, tokens_per_shard, json.loads(json.dumps(origin)))


def _empty_shard(tokens: int, width: int, dtype: torch.dtype) -> dict[str, Tensor]:
    fields = {name: torch.empty(tokens, dtype=field_dtype) for name, field_dtype in FIELDS.items()}
    return {"activations": torch.empty(tokens, width, dtype=dtype)} | fields


def _documents_in(folder: Path, manifest: Manifest) -> NDArray[np.int32]:
    """The numbers of all documents that complete shards have tokens of."""
    parts = (
        read_tokens(folder / shard.file, manifest.form_of(shard), 0, shard.tokens).document.numpy()
        for shard in manifest.shards
    )
    return reduce(np.union1d, parts, np.empty(0, dtype=np.int32))
