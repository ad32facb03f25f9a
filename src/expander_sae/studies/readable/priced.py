"""A pursuit with a price on every pick: what is worth less than the price is put back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from expander_sae.coders import OMP, Coder
from expander_sae.coders.base import CHUNK_ELEMENTS
from expander_sae.coders.lasso import refitted
from expander_sae.dictionaries import Codes, Dictionary

ROOM = 2
"""Picks of a token at most, as a multiple of k."""


@dataclass(frozen=True)
class PricedPursuit(Coder):
    """Orthogonal matching pursuit of 2 k picks, of which those stay that are worth a price; the rest is refitted.

    The price is one for all tokens of the batch, and such that k picks of a token stay on average. A pick is worth what
    its column alone takes off the squared error, its code squared on columns of unit norm.
    """

    k: int
    """Features per token, on average over the batch."""

    @torch.no_grad()
    def __call__(self, dictionary: Dictionary, x: Float[Tensor, "*batch m"]) -> Codes:
        flat = x.reshape(-1, dictionary.m)
        picked = OMP(min(ROOM * self.k, dictionary.n))(dictionary, flat)
        worth = (picked.values * dictionary.norms()[picked.indices]).square()
        stay = worth.flatten().topk(min(self.k * len(flat), worth.numel())).indices
        kept = torch.zeros_like(worth).flatten().index_fill(0, stay, 1.0).reshape(worth.shape)
        codes = Codes(picked.values * kept, picked.indices, dictionary.n)
        size = max(1, CHUNK_ELEMENTS // (worth.shape[1] * dictionary.m))
        values = [
            refitted(dictionary, flat[start : start + size], codes[start : start + size], signed=False)
            for start in range(0, len(flat), size)
        ]
        return Codes(torch.cat(values), codes.indices, codes.n).reshape(*x.shape[:-1])
