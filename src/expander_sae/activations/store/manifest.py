"""manifest.json: what a store holds. It is the commit point: a shard that the manifest does not name is not there."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from expander_sae.activations.store.shards import ShardFormat, StoreError, shard_name
from expander_sae.files import SealedFolder, checksum

STORE = SealedFolder(
    seal="manifest.json",
    others=re.compile(r"shard-\d{5,}\.safetensors"),
    noun="a store",
    error=StoreError,
    format="expander-sae-store",
    version=1,
    older=(),
    foreign="is not that of a store of activations; give a folder that `expander harvest` wrote",
    newer="was written by a newer expander-sae ({library}); update expander-sae to read it",
    unknown="describes no store that this version of expander-sae can read; harvest it again",
    remedy="restore the folder from a copy",
)
DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}
"""What activations can be stored in, by name."""
MASSIVE_MULTIPLE = 4.0
"""A token is massive when its norm is above this many times the median norm."""

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Shard:
    """What the manifest says about one shard; the sums are over its tokens that are not massive."""

    file: str
    tokens: int
    documents: tuple[int, int]
    """Lowest and highest document number."""
    new_documents: int
    """Documents that no earlier shard has a token of."""
    massive: int
    norm_sum: float
    square_norm_sum: float
    bytes: int
    sha256: str

    @classmethod
    def parse(cls, content: Mapping[str, Any]) -> Shard:
        """The shard of an entry of the manifest."""
        first, last = content["documents"]
        return cls(
            file=str(content["file"]),
            tokens=int(content["tokens"]),
            documents=(int(first), int(last)),
            new_documents=int(content["new_documents"]),
            massive=int(content["massive"]),
            norm_sum=float(content["norm_sum"]),
            square_norm_sum=float(content["square_norm_sum"]),
            bytes=int(content["bytes"]),
            sha256=str(content["sha256"]),
        )

    def is_sane(self) -> bool:
        """Whether sizes and hash can be those of a shard."""
        return self.tokens > 0 and 0 <= self.massive <= self.tokens and _SHA256.fullmatch(self.sha256) is not None


@dataclass(frozen=True)
class Norms:
    """Norms of the stored activations; means are over the `count` tokens that are not massive."""

    count: int
    mean: float
    mean_square: float
    median: float
    """The median over all tokens of the first shard; fixed from then on, so that a flag never changes."""
    massive: int
    """Tokens with a norm above four times the median."""


@dataclass(frozen=True)
class Resume:
    """How far the harvest had come at the last append of which every token is in a complete shard."""

    tokens: int
    cursor: Any


@dataclass(frozen=True)
class Manifest:
    """Everything about a store but its shards' content."""

    width: int
    dtype: torch.dtype
    tokens_per_shard: int
    origin: Mapping[str, Any]
    """Where the activations come from (model, revision, tokenizer, hookpoint, text, BOS policy, ...), as JSON."""
    median_norm: float | None = None
    """None until there is a shard."""
    shards: tuple[Shard, ...] = ()
    resume: Resume = Resume(0, None)
    complete: bool = False

    @property
    def tokens(self) -> int:
        """Tokens in complete shards."""
        return sum(shard.tokens for shard in self.shards)

    @property
    def documents(self) -> int:
        """Documents that a complete shard has a token of."""
        return sum(shard.new_documents for shard in self.shards)

    @property
    def norms(self) -> Norms | None:
        """Norms over all shards; None while there is no shard."""
        if self.median_norm is None:
            return None
        massive = sum(shard.massive for shard in self.shards)
        count = self.tokens - massive
        mean = math.fsum(shard.norm_sum for shard in self.shards) / max(1, count)
        mean_square = math.fsum(shard.square_norm_sum for shard in self.shards) / max(1, count)
        return Norms(count, mean, mean_square, self.median_norm, massive)

    def with_shard(self, shard: Shard, median_norm: float, resume: Resume) -> Manifest:
        """The same store with one more shard."""
        shards = (*self.shards, shard)
        return replace(self, shards=shards, median_norm=median_norm, resume=resume, complete=False)

    def form_of(self, shard: Shard) -> ShardFormat:
        """What the file of this shard must be like."""
        return ShardFormat(shard.tokens, self.width, self.dtype)

    def to_json(self) -> dict[str, Any]:
        """What manifest.json holds, without format, versions and checksum."""
        return {
            "width": self.width,
            "dtype": str(self.dtype).removeprefix("torch."),
            "tokens_per_shard": self.tokens_per_shard,
            "origin": self.origin,
            "complete": self.complete,
            "tokens": self.tokens,
            "documents": self.documents,
            "norms": None if self.norms is None else asdict(self.norms),
            "resume": asdict(self.resume),
            "shards": [asdict(shard) for shard in self.shards],
        }

    @property
    def precision(self) -> str:
        """The arithmetic of the model that was harvested; harvests that did not tell it yet ran in float32."""
        return str(self.origin.get("precision", "float32"))

    @classmethod
    def parse(cls, content: Mapping[str, Any]) -> Manifest:
        """The manifest of this content; the caller checks that `to_json` gives the same content back."""
        norms, resume = content["norms"], content["resume"]
        return cls(
            width=int(content["width"]),
            dtype=DTYPES[content["dtype"]],
            tokens_per_shard=int(content["tokens_per_shard"]),
            origin=dict(content["origin"]),
            median_norm=None if norms is None else float(norms["median"]),
            shards=tuple(Shard.parse(shard) for shard in content["shards"]),
            resume=Resume(int(resume["tokens"]), resume["cursor"]),
            complete=bool(content["complete"]),
        )

    def is_sane(self) -> bool:
        """Whether sizes are possible and shards are named in order."""
        return (
            min(self.width, self.tokens_per_shard) > 0
            and (self.median_norm is None) == (not self.shards)
            and 0 <= self.resume.tokens <= self.tokens
            and all(shard.file == shard_name(number) for number, shard in enumerate(self.shards))
            and all(shard.is_sane() for shard in self.shards)
        )


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a store, its format, version, checksum and content found right."""
    content = STORE.read(folder)
    try:
        manifest = Manifest.parse(content)
        # Totals are derived and types are converted, so that what comes back differs if anything was odd.
        again = {name: content[name] for name in ("format", "schema_version", "library_version", "checksum")}
        known = checksum({**again, **manifest.to_json()}) == content["checksum"] and manifest.is_sane()
    except (KeyError, TypeError, ValueError, OverflowError):
        known = False
    if not known:
        raise StoreError(f"{folder / STORE.seal} {STORE.unknown}.")
    return manifest
