"""What a coder is, and what the iterative ones share around their mathematics: chunks of tokens, and packing codes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from expander_sae.dictionaries import Codes, Dictionary
from expander_sae.dictionaries.base import flatten
from expander_sae.errors import ExpanderError
from expander_sae.kernels.inputs import check_finite

CHUNK_ELEMENTS = 1 << 24
"""Elements that the working arrays of one chunk of tokens may hold together, unless one token alone needs more."""

Solver = Callable[[Float[Tensor, "batch m"]], tuple[Float[Tensor, "batch k"], Int[Tensor, "batch k"]]]


@dataclass(frozen=True)
class Coder(ABC):
    """`coder(dictionary, x)` gives the codes of every token of x [..., m]; any coder works on any dictionary."""

    @abstractmethod
    def __call__(self, dictionary: Dictionary, x: Float[Tensor, "*batch m"]) -> Codes: ...


@dataclass(frozen=True)
class OneShotCoder(Coder):
    """A coder that reads its codes off one product with the dictionary, which may be a learned encoder with a bias."""

    @abstractmethod
    def __call__(
        self, dictionary: Dictionary, x: Float[Tensor, "*batch m"], bias: Float[Tensor, " n"] | None = None
    ) -> Codes: ...


def code_in_chunks(
    dictionary: Dictionary, x: Float[Tensor, "*batch m"], k: int | None, elements_per_token: int, solve: Solver
) -> Codes:
    """The codes that `solve` finds for chunks of tokens, in x's shape and dtype; no gradient flows.

    `solve` works in float32 or better. Chunks hold as many tokens as `elements_per_token` lets fit.
    """
    flat = flatten(x, dictionary.m)
    if k is not None:
        check_fits(k, dictionary)
    check_finite("x", flat.detach())
    dtype = torch.promote_types(torch.promote_types(x.dtype, dictionary.dtype), torch.float32)
    if flat.shape[0] == 0:
        nothing = flat.new_zeros(0, k or 1)
        return Codes(nothing, nothing.long(), dictionary.n).reshape(*x.shape[:-1])
    size = max(1, CHUNK_ELEMENTS // elements_per_token)
    with torch.no_grad():
        pieces = [Codes(*solve(chunk.to(dtype)), dictionary.n) for chunk in torch.split(flat, size)]
    return Codes.concatenate(pieces).to(x.dtype).reshape(*x.shape[:-1])


def check_fits(k: int, dictionary: Dictionary) -> None:
    """Refuse to look for more features than the dictionary has."""
    if k > dictionary.n:
        raise ExpanderError(f"k must be between 1 and the number of features, {dictionary.n}, not {k}.")


def rounding_unit(dictionary: Dictionary, x: Float[Tensor, "*batch m"]) -> float:
    """The relative rounding that activations made by this dictionary carry."""
    tensors = (x, *dictionary.parameters())
    return max(torch.finfo(tensor.dtype).eps for tensor in tensors if tensor.is_floating_point())


def synthesize_dense(dictionary: Dictionary, codes: Float[Tensor, "batch n"]) -> Float[Tensor, "batch m"]:
    """`W codes` for codes given as all n entries, at the price of the nonzero ones."""
    sparse = Codes.from_dense(codes)
    # A dense column gathers m values, so only as many columns at a time as fit.
    step = max(1, CHUNK_ELEMENTS // (codes.shape[0] * dictionary.m))
    total = codes.new_zeros(codes.shape[0], dictionary.m)
    pieces = zip(torch.split(sparse.values, step, dim=1), torch.split(sparse.indices, step, dim=1), strict=True)
    for values, indices in pieces:
        total = total + dictionary.synthesize(Codes(values, indices, dictionary.n))
    return total


def largest(codes: Codes, k: int) -> Codes:
    """The k largest codes of every token by magnitude, in descending order, padded if there are fewer entries."""
    room = max(0, k - codes.values.shape[-1])
    values, indices = (
        torch.nn.functional.pad(codes.values, (0, room)),
        torch.nn.functional.pad(codes.indices, (0, room)),
    )
    order = values.abs().topk(k, dim=-1).indices
    return Codes(values.gather(-1, order), indices.gather(-1, order), codes.n)


def in_token_order(finished: list[tuple[Int[Tensor, " tokens"], Codes]]) -> Codes:
    """Codes of groups of tokens, which finished in any order, as one batch in the order of the token numbers."""
    numbers = torch.cat([tokens for tokens, _ in finished])
    return Codes.concatenate([codes for _, codes in finished])[numbers.argsort()]
