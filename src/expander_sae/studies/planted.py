"""Planted codes: activations made from known sparse codes, and how well coders find them again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from expander_sae.coders import OMP, Coder, MatchingPursuit, TopK
from expander_sae.dictionaries import Codes, DenseDictionary, Dictionary, ExpanderDictionary
from expander_sae.errors import ExpanderError
from expander_sae.supports import Support


@dataclass(frozen=True)
class PlantedConfig:
    """A dictionary and how its codes are drawn."""

    m: int = 2048
    """Width of an activation."""
    n: int = 16384
    """Number of features."""
    d: int = 7
    """Learned values per column."""
    k: int = 32
    """Active features per token."""
    tokens: int = 256
    """Activations to make and to decode."""
    construction: str = "uniform"
    """How the support is made (see `xs.Support.make`)."""
    noise: float = 0.0
    """Norm of added noise as a share of the activation's norm."""
    seed: int = 0
    """Of the support, the values, the codes and the noise."""

    def __post_init__(self) -> None:
        if not 1 <= self.k <= self.n:
            raise ExpanderError(f"k must be between 1 and the number of features, {self.n}, not {self.k}.")
        if self.tokens < 1 or self.noise < 0:
            raise ExpanderError(f"tokens must be positive and noise not negative, not {self.tokens} and {self.noise}.")


@dataclass(frozen=True)
class Recovery:
    """How one coder did on one dictionary."""

    dictionary: str
    """Which dictionary."""
    coder: str
    """Which coder."""
    recall: float
    """Share of the planted features that were found."""
    exact: float
    """Share of the tokens whose features were found without exception."""
    error: float
    """Norm of what is left of the activations, as a share of theirs."""
    milliseconds: float
    """Time per 1000 tokens."""
    dictionary_bytes: int
    """What the dictionary's values and rows take in memory."""


def planted_codes(config: PlantedConfig, generator: torch.Generator) -> Codes:
    """k distinct random features per token, coefficients uniform in [0.5, 1.5]."""
    indices = torch.stack([torch.randperm(config.n, generator=generator)[: config.k] for _ in range(config.tokens)])
    return Codes(torch.rand(indices.shape, generator=generator) + 0.5, indices, config.n)


def score(found: Codes, planted: Codes) -> tuple[float, float]:
    """(share of planted features found, share of tokens with all of them found and no other)."""
    hit = (planted.indices[..., None] == torch.where(found.active, found.indices, -1)[..., None, :]).any(dim=-1)
    whole = hit.all(dim=-1) & (found.l0 == planted.l0)
    return float(hit.float().mean()), float(whole.float().mean())


def _recover(name: str, dictionary: Dictionary, coder: Coder, planted: Codes, x: Float[Tensor, "tokens m"]) -> Recovery:
    coder(dictionary, x[:64])  # compiled once, not timed
    start = time.perf_counter()
    found = coder(dictionary, x)
    elapsed = time.perf_counter() - start
    recall, exact = score(found, planted)
    error = float(torch.linalg.vector_norm(x - dictionary.synthesize(found)) / torch.linalg.vector_norm(x))
    tensors = [dictionary.values, dictionary.rows] if isinstance(dictionary, ExpanderDictionary) else []
    size = sum(tensor.nbytes for tensor in tensors or dictionary.parameters())
    return Recovery(name, type(coder).__name__, recall, exact, error, 1e6 * elapsed / len(x), size)


@torch.no_grad()
def recover_planted(config: PlantedConfig) -> Iterator[Recovery]:
    """TopK, matching pursuit and OMP on an expander dictionary, and TopK and OMP on a dense one of the same size."""
    generator = torch.Generator().manual_seed(config.seed)
    support = Support.make(config.construction, m=config.m, n=config.n, d=config.d, seed=config.seed)
    expander = ExpanderDictionary(support, generator=generator)
    planted = planted_codes(config, generator)
    coders: list[Coder] = [TopK(config.k), MatchingPursuit(config.k), OMP(config.k)]
    x = _noisy(expander.synthesize(planted), config, generator)
    for coder in coders:
        yield _recover(f"expander, d={config.d}", expander, coder, planted, x)
    dense = DenseDictionary(config.m, config.n, generator=generator)
    x = _noisy(dense.synthesize(planted), config, generator)
    for coder in (coders[0], coders[2]):
        yield _recover("dense", dense, coder, planted, x)


def _noisy(
    x: Float[Tensor, "tokens m"], config: PlantedConfig, generator: torch.Generator
) -> Float[Tensor, "tokens m"]:
    noise = torch.randn(x.shape, generator=generator)
    norms = torch.linalg.vector_norm(x, dim=1, keepdim=True) / torch.linalg.vector_norm(noise, dim=1, keepdim=True)
    return x + config.noise * norms * noise
