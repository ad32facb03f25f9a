"""Smaller dictionaries out of larger ones.

An expander dictionary that is coded by a pursuit is cut without training: the entries that explain most, of all columns
together, are kept. A dense one is trained once more while its columns lose their entries.
"""

from __future__ import annotations

import os
from os import PathLike
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from expander_sae.activations.store import Store
from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.coders import OneShotCoder
from expander_sae.dictionaries import ExpanderDictionary
from expander_sae.errors import ExpanderError
from expander_sae.supports import Support
from expander_sae.training.config import TrainConfig, least_degree
from expander_sae.training.rows import afforded, moved_columns, present_entries

USUAL = 4096
"""Tokens that tell how many features fire, for a coder that does not say it."""


def compressing(
    path: str | PathLike[str], store: Store, d: int, objective: Literal["readable", "fidelity"], tokens: int
) -> TrainConfig:
    """The training that makes an expander dictionary out of the autoencoder in a folder: as many features, as many of
    them for a token, and columns that begin as those of the other."""
    sae = SparseAutoencoder.load(path)
    if store.width != sae.m:
        raise ExpanderError(f"{store.path} has activations of width {store.width}, not {sae.m}.")
    k: int | None = getattr(sae.coder, "k", None)
    if k is None:
        first = store[: min(USUAL, store.tokens)]
        k = max(1, round(float(sae.encode(first.activations[~first.massive].float()).l0.float().mean())))
    signed = bool(getattr(sae.coder, "signed", False))
    return TrainConfig(
        n=sae.n, d=d, k=k, signed=signed, objective=objective, columns_from=os.fspath(path), tokens=tokens
    )


def energies(sae: SparseAutoencoder, batches: list[Float[Tensor, "tokens m"]]) -> Float[Tensor, " n"]:
    """The sum of every column's squared codes, columns scaled to norm one."""
    total = torch.zeros(sae.n, device=sae.pre_bias.device)
    norms = sae.dictionary.norms().detach()
    for x in batches:
        codes = sae.encode(x)
        squares = (codes.values * norms[codes.indices]).square()
        total.index_add_(0, codes.indices.flatten(), squares.flatten().to(total.dtype))
    return total


@torch.no_grad()
def cut(sae: SparseAutoencoder, d: int, energy: Float[Tensor, " n"]) -> SparseAutoencoder:
    """The autoencoder with n d of its dictionary's values: those whose square times their column's energy is largest.

    Every column keeps at least a third of d, and its norm. A pursuit finds new codes for what is left; the biases and
    thresholds of a one-shot encoder would have to be trained again, so there it is refused.
    """
    before = sae.dictionary
    if not isinstance(before, ExpanderDictionary) or isinstance(sae.coder, OneShotCoder):
        raise ExpanderError("Only an expander dictionary that is coded by a pursuit can be cut; train others smaller.")
    if not 1 <= d * before.n < before.learned_values:
        mean = before.learned_values / before.n
        raise ExpanderError(f"d must be at least 1 and below the {mean:g} values that columns have, not {d}.")
    m, values = before.m, before.values.detach()
    wanted = present_entries(before.rows, values, energy, m)
    worth = energy * before.inverse_norms(values.dtype).square()
    kept = afforded(wanted, worth, m, before.n * d, least_degree(d), torch.zeros(0, dtype=torch.long))
    longest = int(kept.sum(dim=1).max())
    after = moved_columns(before.rows, values, wanted, kept, m)
    smaller = ExpanderDictionary(Support.from_rows(after.rows[:, :longest], m), after.values[:, :longest])
    result = SparseAutoencoder(smaller, sae.coder, provenance={**sae.provenance, "cut_to": d})
    result.pre_bias.copy_(sae.pre_bias)
    result.scale.copy_(sae.scale)
    return result
