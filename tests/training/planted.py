"""Activations made of known sparse columns, and small configs that learn them in a second."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from expander_sae import Codes, Dictionary, ExpanderDictionary, SparseAutoencoder, Support
from expander_sae.training import TrainConfig

M, N, D, K = 64, 96, 4, 3


def planted(tokens: int, *, seed: int = 0) -> tuple[Dictionary, Float[Tensor, "tokens m"]]:
    """A dictionary with random values, and activations of K of its columns each, around a mean that is not zero."""
    generator = torch.Generator().manual_seed(seed)
    support = Support.make("uniform", m=M, n=N, d=D, seed=seed)
    dictionary = ExpanderDictionary(support, torch.randn(N, D, generator=generator))
    dictionary.normalise_columns()
    indices = torch.rand(tokens, N, generator=generator).topk(K).indices
    codes = Codes(torch.rand(tokens, K, generator=generator) + 0.5, indices, N)
    with torch.no_grad():
        return dictionary, 3 * dictionary.synthesize(codes) + torch.randn(M, generator=generator)


def config(**changes: Any) -> TrainConfig:
    """A run of 20 steps on the planted support unless told otherwise."""
    settings: dict[str, Any] = {"n": N, "d": D, "k": K, "tokens": 20 * 64, "batch": 64, "log_every": 5}
    settings |= {"construction": "uniform", "coder": "topk"}
    return TrainConfig(**(settings | changes))


def same_tensors(one: SparseAutoencoder, other: SparseAutoencoder) -> bool:
    """Whether two autoencoders are equal to the last bit."""
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
