"""Autoencoders of which it is known what an evaluation must find."""

from __future__ import annotations

import torch
from torch import Tensor

from expander_sae import DenseDictionary, SparseAutoencoder, TopK


def constant(value: Tensor, n: int = 4) -> SparseAutoencoder:
    """Gives this vector back whatever it gets, in its precision."""
    sae = SparseAutoencoder(DenseDictionary(len(value), n, torch.zeros(n, len(value), dtype=value.dtype)), TopK(1))
    with torch.no_grad():
        sae.pre_bias.copy_(value)
    return sae


def identity(m: int, k: int | None = None, dtype: torch.dtype = torch.float32) -> SparseAutoencoder:
    """Gives back what it gets, or with k the k largest coordinates of it."""
    return SparseAutoencoder(DenseDictionary(m, m, torch.eye(m, dtype=dtype)), TopK(k or m, signed=True))


def random(m: int, n: int = 24, k: int = 3, seed: int = 0, **provenance: object) -> SparseAutoencoder:
    """Gives back something, and says that it was trained on activations with this origin."""
    generator = torch.Generator().manual_seed(seed)
    dictionary = DenseDictionary(m, n, generator=generator)
    return SparseAutoencoder(dictionary, TopK(k), provenance={"activations": provenance})
