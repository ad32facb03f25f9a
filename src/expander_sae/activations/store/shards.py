"""The file of one shard: activations and, for every token, what it was and where it stood."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int32
from safetensors import SafetensorError, safe_open
from torch import Tensor

from expander_sae.activations.store.errors import StoreError

FIELDS = {"token_ids": torch.int32, "document": torch.int32, "position": torch.int32, "massive": torch.bool}
"""What a shard holds beside the activations, one value per token."""

_NAMES_OF_DTYPES = {torch.float16: "F16", torch.bfloat16: "BF16", torch.int32: "I32", torch.bool: "BOOL"}


@dataclass(frozen=True)
class Tokens:
    """Consecutive tokens of a store."""

    activations: Float[Tensor, "tokens m"]
    token_ids: Int32[Tensor, " tokens"]
    document: Int32[Tensor, " tokens"]
    position: Int32[Tensor, " tokens"]
    massive: Bool[Tensor, " tokens"]

    @classmethod
    def concatenated(cls, parts: list[Tokens]) -> Tokens:
        """The tokens of all parts, in order; a single part comes back as it is."""
        if len(parts) == 1:
            return parts[0]
        names = [field.name for field in fields(cls)]
        return cls(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})


class ShardFormat(NamedTuple):
    """What a shard's file must be like."""

    tokens: int
    width: int
    dtype: torch.dtype

    def tensors(self) -> dict[str, tuple[list[int], str]]:
        """Shape and safetensors dtype of every tensor."""
        shapes = {"activations": ([self.tokens, self.width], _NAMES_OF_DTYPES[self.dtype])}
        return shapes | {name: ([self.tokens], _NAMES_OF_DTYPES[dtype]) for name, dtype in FIELDS.items()}


def shard_name(number: int) -> str:
    """The file name of the shard of this number."""
    return f"shard-{number:05d}.safetensors"


def read_tokens(path: Path, form: ShardFormat, start: int, stop: int) -> Tokens:
    """The tokens start .. stop-1 of a shard, mapped into memory: only what is used is read from the disk."""
    try:
        with safe_open(path, framework="pt") as file:
            views = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
            found = {name: (view.get_shape(), view.get_dtype()) for name, view in views.items()}
            if found != form.tensors():
                raise StoreError(f"{path} does not hold the tensors that the manifest speaks of; copy it again.")
            return Tokens(**{name: view[start:stop] for name, view in views.items()})
    except (SafetensorError, OSError) as error:
        raise StoreError(f"{path} cannot be read ({error}); copy it again.") from error
