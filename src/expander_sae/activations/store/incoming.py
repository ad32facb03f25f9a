"""What a harvest hands over, checked and brought to the form it is stored in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import torch
from jaxtyping import Float, Int32
from torch import Tensor

from expander_sae.activations.store.errors import Float16Overflow, StoreError
from expander_sae.activations.store.shards import Tokens

Integers = Tensor | Sequence[int]
_LARGEST_INT32 = 2**31 - 1


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
