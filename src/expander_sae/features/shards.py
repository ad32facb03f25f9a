"""Codes of a text on disk, in files that can be read token by token and feature by feature."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int32
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor

from expander_sae.dictionaries import Codes
from expander_sae.errors import ExpanderError
from expander_sae.features.source import TOKENS_PER_SHARD
from expander_sae.files import opened_tensors, replace_file, to_bytes
from expander_sae.kernels.cpu.columns import allocating

ENTRIES_AT_ONCE = 1 << 24
"""Entries of codes in memory at a time, while features are described: tokens on which they fire, times k."""
FEATURES_AT_ONCE = 1 << 13
"""Features described at a time, however rarely they fire."""


@dataclass(frozen=True)
class EncodedTokens:
    """Consecutive tokens of a text and their codes, massive tokens without any."""

    codes: Codes
    token_ids: Int32[Tensor, " tokens"]
    document: Int32[Tensor, " tokens"]
    position: Int32[Tensor, " tokens"]
    massive: Bool[Tensor, " tokens"]

    @classmethod
    def concatenated(cls, parts: Sequence[EncodedTokens]) -> EncodedTokens:
        """The tokens of all parts, in order."""
        codes = Codes.concatenate([part.codes for part in parts])
        rest = ("token_ids", "document", "position", "massive")
        return cls(codes, *(torch.cat([getattr(part, name) for part in parts]) for name in rest))


def shard_name(number: int) -> str:
    """The file name of the codes of this number."""
    return f"codes-{number:05d}.safetensors"


def bytes_of_codes(tokens: int, k: int, n: int) -> int:
    """What the codes of so many tokens take on disk, at most k features a token of n."""
    shards = math.ceil(tokens / TOKENS_PER_SHARD)
    return tokens * (k * 3 * 4 + 3 * 4 + 1) + shards * 4 * (n + 1)


def write_shard(path: Path, tokens: EncodedTokens) -> None:
    """Put the codes into their file in one step.

    Beside values and indices `[tokens, k]` it holds the numbers of all entries in use ordered by feature, and where
    each feature's entries begin in that order.
    """
    codes = tokens.codes
    indices, values = codes.indices.to(torch.int32).contiguous(), codes.values.float().contiguous()
    starts, firings = _by_feature(indices.numpy().reshape(-1), values.numpy().reshape(-1), codes.n)
    tensors = {"values": values, "indices": indices, "token_ids": tokens.token_ids, "document": tokens.document,
               "position": tokens.position, "massive": tokens.massive, "starts": torch.from_numpy(starts),
               "firings": torch.from_numpy(firings)}  # fmt: skip
    replace_file(path, to_bytes(tensors))


@allocating
def _by_feature(indices: Any, values: Any, n: int) -> tuple[Any, Any]:
    """Where every feature's entries begin, and the entries that are not zero in the order of their features."""
    starts = np.zeros(n + 1, np.int32)
    for entry in range(indices.size):
        if values[entry] != 0:
            starts[indices[entry] + 1] += 1
    for feature in range(n):
        starts[feature + 1] += starts[feature]
    place, firings = starts.copy(), np.empty(starts[n], np.int32)
    for entry in range(indices.size):
        if values[entry] != 0:
            feature = indices[entry]
            firings[place[feature]] = entry
            place[feature] += 1
    return starts, firings


@dataclass(frozen=True)
class Text:
    """All tokens in the order of the text: document by document, position by position."""

    token_ids: NDArray[np.int32]
    document: NDArray[np.int32]
    position: NDArray[np.int32]
    massive: NDArray[np.bool_]
    place: NDArray[np.int32]
    """Where each token, in the order in which they were encoded, stands in this order."""
    begin: NDArray[np.int64]
    """Where every stretch of tokens that follow each other in one document begins, and the number of tokens at last."""

    @classmethod
    def of(cls, shards: Sequence[Shard]) -> Text:
        """The tokens of these files."""
        names = ("token_ids", "document", "position", "massive")
        token_ids, document, position, massive = (
            np.concatenate([shard.whole(name) for shard in shards]) for name in names
        )
        order = np.lexsort((position, document))
        place = np.empty(len(order), np.int32)
        place[order] = np.arange(len(order), dtype=np.int32)
        document, position = document[order], position[order]
        follows = (np.diff(document) == 0) & (np.diff(position) == 1)
        begin = np.concatenate([[0], np.flatnonzero(~follows) + 1, [len(order)]])
        return cls(token_ids[order], document, position, massive[order], place, begin)

    @property
    def tokens(self) -> int:
        """How many there are."""
        return len(self.token_ids)


class Shard:
    """A file of codes; `start` is the number of its first token."""

    def __init__(self, path: Path, start: int) -> None:
        self.path, self.start = path, start
        shape, self.features = self._look(lambda file: (file.get_slice("indices").get_shape(),
                                                        file.get_slice("starts").get_shape()[0] - 1))  # fmt: skip
        self.tokens, self.k = shape

    def whole(self, name: str) -> NDArray[Any]:
        """A copy of one of its tensors."""
        return self._look(lambda file: file.get_tensor(name).numpy().copy())

    def codes_of(self, tokens: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """Values and features `[tokens, k]` of some of its tokens, by their numbers in the text."""
        rows = tokens - self.start
        return self._look(
            lambda file: (file.get_tensor("values").numpy()[rows], file.get_tensor("indices").numpy()[rows])
        )

    def firings(self, first: int, stop: int, k: int) -> Firings:
        """Every firing of the features first .. stop-1, with room for k companions."""

        def read(file: Any) -> Firings:
            starts = file.get_slice("starts")[first : stop + 1].numpy()
            entry = file.get_slice("firings")[int(starts[0]) : int(starts[-1])].numpy()
            token, rank = np.divmod(entry, np.int32(self.k))
            values, indices = file.get_tensor("values").numpy(), file.get_tensor("indices").numpy()
            companions = np.full((len(token), k), -1, np.int32)
            np.copyto(companions[:, : self.k], indices[token], where=values[token] != 0)
            feature = np.repeat(np.arange(stop - first, dtype=np.int32), np.diff(starts))
            return Firings(feature, token + self.start, values[token, rank], rank, companions)

        return self._look(read)

    def _look(self, read: Any) -> Any:
        """What is found in the file; mapped into memory only while it is looked at."""
        try:
            with opened_tensors(self.path) as file:
                return read(file)
        except (SafetensorError, OSError) as error:
            raise ExpanderError(
                f"{self.path} cannot be read ({error}); delete its folder and run `expander features` again."
            ) from error


def open_shards(paths: Sequence[Path]) -> list[Shard]:
    """The files of codes of one text, in its order."""
    shards, start = list[Shard](), 0
    for path in paths:
        shards.append(Shard(path, start))
        start += shards[-1].tokens
    return shards


def firing_counts(shards: Sequence[Shard]) -> NDArray[np.int64]:
    """On how many tokens every feature fires."""
    counts = np.zeros(shards[0].features, dtype=np.int64)
    for shard in shards:
        counts += np.diff(shard.whole("starts"))
    return counts


class Firings(NamedTuple):
    """Tokens on which some features fire, one entry for each feature and token."""

    feature: NDArray[np.int32]
    """Counted from the first of the features."""
    token: NDArray[np.int32]
    """In the order in which they were encoded."""
    value: NDArray[np.float32]
    rank: NDArray[np.int32]
    """Of the pick among those of the token."""
    companions: NDArray[np.int32]
    """All features of the token `[firings, k]`, -1 where it uses fewer than k."""


@dataclass(frozen=True)
class Block:
    """Some consecutive features with all of their firings, feature by feature, in the order of the text."""

    first: int
    count: int
    starts: NDArray[np.int64]
    """Where each feature's firings begin, and their number at last."""
    feature: NDArray[np.int32]
    place: NDArray[np.int64]
    """Of every firing, in the order of the text."""
    value: NDArray[np.float32]
    rank: NDArray[np.int32]
    companions: NDArray[np.int32]
    """In the order in which they were read; `order` says which row belongs to which firing."""
    order: NDArray[np.int64]

    @property
    def features(self) -> NDArray[np.int64]:
        """The numbers of the features."""
        return np.arange(self.first, self.first + self.count)

    @property
    def magnitude(self) -> NDArray[np.float32]:
        """How strong every firing is."""
        return np.abs(self.value)

    @classmethod
    def gather(cls, shards: Sequence[Shard], text: Text, first: int, stop: int) -> Block:
        """The features first .. stop-1 out of all files."""
        most = max(shard.k for shard in shards)
        parts = [shard.firings(first, stop, most) for shard in shards]
        found = Firings(*(np.concatenate(part) for part in zip(*parts, strict=True)))
        place = text.place[found.token].astype(np.int64)
        order = np.argsort(found.feature * np.int64(text.tokens) + place)
        feature = found.feature[order]
        starts = np.searchsorted(feature, np.arange(stop - first + 1))
        return cls(first, stop - first, starts, feature, place[order], found.value[order], found.rank[order],
                   found.companions, order)  # fmt: skip


def blocks(shards: Sequence[Shard], text: Text, fired: NDArray[np.int64]) -> Iterator[Block]:
    """All features, as many at a time as memory is meant for."""
    k = max(shard.k for shard in shards)
    edges, held = [0], 0
    for feature, count in enumerate(fired.tolist()):
        full = (held + count) * k > ENTRIES_AT_ONCE or feature - edges[-1] >= FEATURES_AT_ONCE
        if full and feature > edges[-1]:
            edges.append(feature)
            held = 0
        held += count
    for first, stop in pairwise([*edges, len(fired)]):
        yield Block.gather(shards, text, first, stop)
