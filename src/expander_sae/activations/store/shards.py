"""Tokens and the file of a shard that holds them: what a harvest hands over is checked, written and read back."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, fields
from os import PathLike
from pathlib import Path
from typing import NamedTuple, NoReturn

import torch
from jaxtyping import Bool, Float, Int32
from rich.filesize import decimal
from safetensors import SafetensorError
from torch import Tensor

from expander_sae.errors import ExpanderError
from expander_sae.files import opened_tensors

FIELDS = {"token_ids": torch.int32, "document": torch.int32, "position": torch.int32, "massive": torch.bool}
"""What a shard holds beside the activations, one value per token."""
TOKENS_PER_SHARD = 65536
"""Tokens of a shard unless asked otherwise: 75 MB at width 576, so that losing an unfinished one costs little."""
Integers = Tensor | Sequence[int]
_NAMES_OF_DTYPES = {torch.float16: "F16", torch.bfloat16: "BF16", torch.int32: "I32", torch.bool: "BOOL"}
_LARGEST_INT32 = 2**31 - 1
# The header of a shard's file, and what the manifest says about it.
_BYTES_PER_SHARD = 1024
_BYTES_OF_MANIFEST = 8192


class StoreError(ExpanderError):
    """A store that cannot be written, or a folder that does not hold a whole and unchanged one."""


class Float16Overflow(StoreError):
    """An activation too large for float16; the same tokens can be appended to a store in bfloat16."""


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
        with opened_tensors(path) as file:
            views = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
            found = {name: (view.get_shape(), view.get_dtype()) for name, view in views.items()}
            if found != form.tensors():
                raise StoreError(f"{path} does not hold the tensors that the manifest speaks of; copy it again.")
            return Tokens(**{name: view[start:stop] for name, view in views.items()})
    except (SafetensorError, OSError) as error:
        raise StoreError(f"{path} cannot be read ({error}); copy it again.") from error


def as_tokens(
    activations: Float[Tensor, "tokens m"],
    fields: dict[str, Integers],
    *,
    width: int,
    dtype: torch.dtype,
    first: int,
) -> Tokens:
    """The tokens in stored form, none marked massive yet; `first` is the number of the first one, for messages."""
    if activations.dim() != 2 or activations.shape[1] != width or not activations.is_floating_point():
        raise StoreError(
            f"Activations must be floating-point and of shape [tokens, {width}] as the store's, "
            f"not {str(activations.dtype).removeprefix('torch.')} of shape {list(activations.shape)}."
        )
    count = activations.shape[0]
    integers = {name: _int32(name, values, count) for name, values in fields.items()}
    given = activations.detach().cpu()
    stored = given.to(dtype)
    # A NaN comes out of both extremes, so that two numbers tell about all values.
    if count and not torch.isfinite(torch.stack(torch.aminmax(stored))).all():
        row = int(torch.nonzero(~torch.isfinite(stored).all(dim=1))[0])
        names = {name: int(values[row]) for name, values in integers.items()}
        place = f"id {names['token_ids']}, position {names['position']} of document {names['document']}"
        _refuse_row(given[row], dtype, f"token {first + row} ({place})")
    return Tokens(stored, **integers, massive=torch.zeros(count, dtype=torch.bool))


def _int32(name: str, values: Integers, count: int) -> Int32[Tensor, " tokens"]:
    tensor = torch.as_tensor(values).detach().cpu()
    if tensor.shape != (count,) or tensor.is_floating_point() or tensor.dtype == torch.bool:
        raise StoreError(f"{name} must be {count} integers, one per activation, not of shape {list(tensor.shape)}.")
    if count and (tensor.min() < 0 or tensor.max() > _LARGEST_INT32):
        raise StoreError(f"{name} must be from 0 to {_LARGEST_INT32}, not {int(tensor.min())} to {int(tensor.max())}.")
    return tensor.to(torch.int32)


def _refuse_row(activation: Float[Tensor, " m"], dtype: torch.dtype, token: str) -> NoReturn:
    """Say why this activation cannot be stored."""
    if not torch.isfinite(activation).all():
        raise StoreError(
            f"The activation of {token} has NaN or infinite values, which nothing can learn from; "
            "run the model in float32 or bfloat16, or leave this text out."
        )
    largest = float(activation.abs().max())
    name = str(dtype).removeprefix("torch.")
    if dtype == torch.float16:
        raise Float16Overflow(
            f"The activation of {token} reaches {largest:.4g}, more than float16 holds (65504); bfloat16 would hold it."
        )
    raise StoreError(f"The activation of {token} reaches {largest:.4g}, more than {name} holds; check the model.")


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
