"""How much room a store takes, and whether the disk has it."""

from __future__ import annotations

import math
import shutil
from os import PathLike
from pathlib import Path

import torch
from rich.filesize import decimal

from expander_sae.activations.store.errors import StoreError
from expander_sae.activations.store.shards import FIELDS

TOKENS_PER_SHARD = 65536
"""Tokens of a shard unless asked otherwise: 75 MB at width 576, so that losing an unfinished one costs little."""

# The header of a shard's file, and what the manifest says about it.
_BYTES_PER_SHARD = 1024
_BYTES_OF_MANIFEST = 8192


def bytes_needed(tokens: int, width: int, dtype: torch.dtype, tokens_per_shard: int = TOKENS_PER_SHARD) -> int:
    """The most that a store of these sizes takes on disk, origin and cursor of a usual length included."""
    bytes_per_token = width * dtype.itemsize + sum(field.itemsize for field in FIELDS.values())
    shards = math.ceil(tokens / tokens_per_shard)
    return tokens * bytes_per_token + shards * _BYTES_PER_SHARD + _BYTES_OF_MANIFEST


def check_disk(path: str | PathLike[str], needed: int) -> None:
    """Refuse when the disk that `path` is on, or would be on, has less than `needed` bytes free."""
    place = Path(path).absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if needed > free:
        raise StoreError(
            f"{path} needs {decimal(needed)} ({needed} bytes), but its disk has {decimal(free)} ({free} bytes) free; "
            "ask for fewer tokens, make room, or choose another disk."
        )
