"""What an engineer would do to a trained dense dictionary instead: prune, factorise, quantise.

Each function gives back an autoencoder that can be measured like any other. Where our file has no such form, its values
are written out in full, and its provenance says under `packed` what they would take in theirs.
"""

from __future__ import annotations

import copy
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.coders import Coder, OneShotCoder
from expander_sae.dictionaries import DenseDictionary, Dictionary, ExpanderDictionary
from expander_sae.dictionaries.quantised import dequantise, quantise
from expander_sae.experiments.product_quantisation import quantise_products
from expander_sae.supports import Support

PACKED = "packed"
"""What provenance calls the form that our file does not have."""
LEVELS = (-1.51, -0.4528, 0.4528, 1.51)
"""The best four for numbers of a normal distribution (Lloyd and Max), in standard deviations."""

_SCALES_TRIED = 40


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
