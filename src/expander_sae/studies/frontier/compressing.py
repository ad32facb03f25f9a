"""What an engineer would do to a trained dense dictionary instead: prune, factorise, quantise.

Each function gives back an autoencoder that can be measured like any other. Where our file has no such form, its values
are written out in full, and its provenance says under `packed` what they would take in theirs.
"""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from expander_sae.activations.store import Store
from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.coders import Coder, OneShotCoder
from expander_sae.dictionaries import DenseDictionary, Dictionary, ExpanderDictionary
from expander_sae.dictionaries.quantised import dequantise, quantise
from expander_sae.supports import Support
from expander_sae.training import TrainConfig, Trainee, learn, open_source

PACKED = "packed"
"""What provenance calls the form that our file does not have."""
LEVELS = (-1.51, -0.4528, 0.4528, 1.51)
"""The best four for numbers of a normal distribution (Lloyd and Max), in standard deviations."""

CENTROIDS = 256
"""As many as a byte can name."""
COLUMNS_PER_CENTROID = 4
"""At least; a small dictionary gets fewer centroids, or they would be the columns themselves."""

_SCALES_TRIED = 40
_ROUNDS = 25


def with_dictionary(sae: SparseAutoencoder, dictionary: Dictionary, coder: Coder) -> SparseAutoencoder:
    """A copy with another dictionary under another coder; the latent bias stays where the coder can use it."""
    biased = sae.latent_bias is not None and isinstance(coder, OneShotCoder)
    other = SparseAutoencoder(dictionary, coder, latent_bias=biased, provenance=sae.provenance)
    with torch.no_grad():
        other.pre_bias.copy_(sae.pre_bias)
        other.scale.copy_(sae.scale)
        if other.latent_bias is not None and sae.latent_bias is not None:
            other.latent_bias.copy_(sae.latent_bias)
    return other


def packed(sae: SparseAutoencoder, learned_values: int, size: int) -> SparseAutoencoder:
    """The same autoencoder, saying that its dictionary is so many learned values in so many bytes."""
    sae.provenance = {**sae.provenance, PACKED: {"learned_values": learned_values, "bytes": size}}
    return sae


@torch.no_grad()
def pruned(sae: SparseAutoencoder, d: int, coder: Coder) -> SparseAutoencoder:
    """The d largest values of every column, and where they are: an expander dictionary."""
    values = sae.dictionary.to_dense().T
    rows = values.abs().topk(d, dim=1).indices.sort(dim=1).values
    dictionary = ExpanderDictionary(Support.from_rows(rows.to(torch.int32), sae.m), values.gather(1, rows))
    if not isinstance(coder, OneShotCoder):
        dictionary.normalise_columns()  # as they are trained with a pursuit
    return with_dictionary(sae, dictionary, coder)


class LowRankDictionary(DenseDictionary):
    """A dense dictionary whose values are a product of two thin factors, which are what is learned."""

    def __init__(self, values: Float[Tensor, "n m"], rank: int) -> None:
        """The best product of this rank that there is, by singular values."""
        Dictionary.__init__(self)  # values are no parameter here
        self.n, self.m = values.shape
        left, sizes, right = torch.linalg.svd(values.detach(), full_matrices=False)
        roots = sizes[:rank].sqrt()
        self.left, self.right = nn.Parameter(left[:, :rank] * roots), nn.Parameter(roots[:, None] * right[:rank])

    @property
    def values(self) -> Float[Tensor, "n m"]:  # type: ignore[override]
        """The product, made anew whenever it is asked for."""
        return self.left @ self.right

    @property
    def learned_values(self) -> int:
        return self.left.numel() + self.right.numel()


def low_rank(sae: SparseAutoencoder, rank: int) -> SparseAutoencoder:
    """The best dictionary of this rank; what is trained are its two factors."""
    return with_dictionary(sae, LowRankDictionary(sae.dictionary.to_dense().T, rank), sae.coder)


@torch.no_grad()
def multiplied(sae: SparseAutoencoder) -> SparseAutoencoder:
    """A low-rank autoencoder with its factors rounded to 8 bits and multiplied, packed as the factors."""
    left, right = (dequantise(*quantise(factor, 8)) for factor in sae.dictionary.parameters())
    found = with_dictionary(sae, DenseDictionary(sae.m, sae.n, left @ right), sae.coder)
    values = left.numel() + right.numel()
    return packed(found, values, values + len(left) + len(right))  # a byte each, and one for every row's scale


@torch.no_grad()
def two_bits(sae: SparseAutoencoder) -> SparseAutoencoder:
    """Every value as one of four levels, times a scale per column that makes the squared error least."""
    values = sae.dictionary.to_dense().T
    levels, edges = torch.tensor(LEVELS), torch.tensor([(low + high) / 2 for low, high in pairwise(LEVELS)])
    spread = values.square().mean(dim=1).sqrt()
    found, least = torch.zeros_like(values), torch.full_like(spread, torch.inf)
    for share in torch.linspace(0.2, 3, _SCALES_TRIED):
        scale = (share * spread).half().float().clamp_min(torch.finfo(torch.float16).tiny)[:, None]
        rounded = levels[torch.bucketize(values / scale, edges)] * scale
        error = (rounded - values).square().sum(dim=1)
        found = torch.where((error < least)[:, None], rounded, found)
        least = torch.minimum(error, least)
    dictionary = DenseDictionary(sae.m, sae.n, found)
    return packed(with_dictionary(sae, dictionary, sae.coder), values.numel(), -(-values.numel() // 4) + 2 * sae.n)


@torch.no_grad()
def product_quantised(sae: SparseAutoencoder, length: int) -> SparseAutoencoder:
    """Columns cut into pieces of this length, each replaced by one of 256 centroids of its place."""
    generator = torch.Generator().manual_seed(0)
    values, cost = quantise_products(sae.dictionary.to_dense().T, length, generator)
    dictionary = DenseDictionary(sae.m, sae.n, values)
    return packed(with_dictionary(sae, dictionary, sae.coder), cost.learned_values, cost.bytes)


@torch.no_grad()
def written_dense(sae: SparseAutoencoder) -> SparseAutoencoder:
    """An autoencoder whose expander columns hold all m coordinates, packed without rows, in 8 bits."""
    values = sae.dictionary.learned_values
    return packed(copy.copy(sae), values, values + sae.n)


class Cost(NamedTuple):
    """What product-quantised columns take."""

    learned_values: int
    """Centroids, indices and the norms of the columns."""
    bytes: int
    """Centroids in 8 bits with a scale each, indices of a byte, norms in float16."""


def quantise_products(
    values: Float[Tensor, "n m"], length: int, generator: torch.Generator
) -> tuple[Float[Tensor, "n m"], Cost]:
    """(the columns as centroids and norms give them, what they take)."""
    n, m = values.shape
    norms = torch.linalg.vector_norm(values, dim=1, keepdim=True).clamp_min(torch.finfo(values.dtype).tiny)
    pieces, count = [], min(CENTROIDS, max(1, n // COLUMNS_PER_CENTROID))
    for piece in (values / norms).split(length, dim=1):
        centroids = dequantise(*quantise(k_means(piece, count, generator), 8))
        pieces.append(centroids[nearest(piece, centroids)])
    directions = torch.cat(pieces, dim=1)
    # The projection onto the new direction, which is no longer of unit norm.
    gains = (values * directions).sum(dim=1) / directions.square().sum(dim=1).clamp_min(torch.finfo(values.dtype).tiny)
    learned = count * m + n * len(pieces) + n
    return directions * gains.half().float()[:, None], Cost(learned, learned + count * len(pieces) + n)


def k_means(x: Float[Tensor, "n s"], count: int, generator: torch.Generator) -> Float[Tensor, "count s"]:
    """Centroids by Lloyd's rounds from random rows; one that loses all its rows stays where it is."""
    centroids = x[torch.randperm(len(x), generator=generator)[:count]]
    for _ in range(_ROUNDS):
        chosen = nearest(x, centroids)
        sums = torch.zeros_like(centroids).index_add_(0, chosen, x)
        sizes = torch.bincount(chosen, minlength=count)[:, None]
        centroids = torch.where(sizes > 0, sums / sizes.clamp_min(1), centroids)
    return centroids


def nearest(x: Float[Tensor, "n s"], centroids: Float[Tensor, "count s"]) -> Int[Tensor, " n"]:
    """The number of the nearest centroid of every row."""
    return (centroids.square().sum(dim=1) - 2 * x @ centroids.T).argmin(dim=1)


def fine_tuned(sae: SparseAutoencoder, config: TrainConfig, source: Store | Tensor) -> SparseAutoencoder:
    """What the autoencoder becomes by the steps that the config asks for: rates, revival and order of tokens as usual.

    Learned rows would need what the data say of every coordinate, so the config must name a recipe: rows stay.
    """
    trainee = Trainee(config, sae)
    with open_source(source, config) as batches:
        learn(trainee, batches, config.tokens)
    return trainee.finished()
