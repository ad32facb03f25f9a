"""Small dictionaries of every kind, and activations planted in them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from expander_sae.dictionaries import Codes, ComposedDictionary, DenseDictionary, Dictionary, ExpanderDictionary, Union
from expander_sae.supports import Support

FAMILIES = ("expander", "dense", "composed", "union")
DENSE_COLUMNS_OF_UNION = 3


def make_dictionary(
    family: str, *, m: int = 24, n: int = 40, d: int = 4, seed: int = 0, dtype: torch.dtype = torch.float64
) -> Dictionary:
    """A dictionary of the family with Gaussian values, so no two of its numbers are related."""
    generator = torch.Generator().manual_seed(seed)
    if family == "dense":
        return DenseDictionary(m, n, torch.randn(n, m, generator=generator, dtype=dtype))
    if family == "composed":
        mixtures = make_dictionary("expander", m=m + 6, n=n, d=d, seed=seed, dtype=dtype)
        assert isinstance(mixtures, ExpanderDictionary)
        atoms = torch.randn(m + 6, m, generator=generator, dtype=dtype)
        return ComposedDictionary(DenseDictionary(m, m + 6, atoms), mixtures)
    if family == "union":
        sparse = make_dictionary("expander", m=m, n=n - DENSE_COLUMNS_OF_UNION, d=d, seed=seed, dtype=dtype)
        dense = make_dictionary("dense", m=m, n=DENSE_COLUMNS_OF_UNION, seed=seed + 1, dtype=dtype)
        return Union([sparse, dense])
    support = Support.make("uniform", m=m, n=n, d=d, seed=seed)
    return ExpanderDictionary(support, torch.randn(n, d, generator=generator, dtype=dtype))


def flat_dictionary(m: int, n: int, d: int, seed: int = 0) -> ExpanderDictionary:
    """Unit columns of equal magnitudes and random signs; any two share at most one coordinate."""
    support = Support.make("lines", m=m, n=n, d=d, seed=seed)
    values = ExpanderDictionary(support, generator=torch.Generator().manual_seed(seed)).values
    return ExpanderDictionary(support, values.detach().double(), dtype=torch.float64)


def from_matrix(matrix: Float[Tensor, "m n"]) -> DenseDictionary:
    """The dense dictionary with these columns."""
    return DenseDictionary(matrix.shape[0], matrix.shape[1], matrix.T.contiguous())


class Planted(NamedTuple):
    """Activations and the codes that made them."""

    x: Float[Tensor, "batch m"]
    codes: Codes


def plant(dictionary: Dictionary, tokens: int, k: int, *, signed: bool = False, seed: int = 0) -> Planted:
    """Activations of k features each, with codes between 0.5 and 1.5 (of either sign when signed)."""
    generator = torch.Generator().manual_seed(1000 + seed)
    indices = torch.stack([torch.randperm(dictionary.n, generator=generator)[:k] for _ in range(tokens)])
    values = 0.5 + torch.rand(tokens, k, generator=generator, dtype=torch.float64)
    if signed:
        values = values * (2 * torch.randint(0, 2, (tokens, k), generator=generator) - 1)
    codes = Codes(values.to(dictionary.dtype), indices, dictionary.n)
    return Planted(dictionary.synthesize(codes).detach(), codes)


def gaussian(tokens: int, m: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Float[Tensor, "batch m"]:
    """Activations that no few features explain."""
    return torch.randn(tokens, m, generator=torch.Generator().manual_seed(2000 + seed), dtype=dtype)


def residual(dictionary: Dictionary, codes: Codes, x: Float[Tensor, "*batch m"]) -> Float[Tensor, "*batch m"]:
    """What the codes leave of x."""
    return x - dictionary.synthesize(codes).detach()


def matrix_of(dictionary: Dictionary) -> np.ndarray:
    """W as a float64 array [m, n]."""
    return dictionary.to_dense().detach().double().numpy()


def support_of(codes: Codes, token: int) -> Int[np.ndarray, " used"]:
    """The features that a token uses, in their order."""
    return codes.indices[token][codes.active[token]].numpy()
