"""Smaller dictionaries out of larger ones.

An expander dictionary that is coded by a pursuit is cut without training, and so are mixtures of atoms: the entries
that explain most, of all columns together, are kept. A dense one is trained once more while its columns lose theirs.
"""

from __future__ import annotations

import copy
import os
from os import PathLike
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from expander_sae.activations.store import Store
from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.coders import OneShotCoder
from expander_sae.dictionaries import ComposedDictionary, ExpanderDictionary, columns_in
from expander_sae.errors import ExpanderError
from expander_sae.supports import Support
from expander_sae.training.config import TrainConfig
from expander_sae.training.lengths import least_degree
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
    """The autoencoder with n d of its columns' values: those whose square times their column's energy is largest.

    Every column keeps at least a third of d, and its norm; atoms stay as they are, and a value is as large as what it
    adds to its column. A pursuit finds new codes for what is left. The biases and thresholds of a one-shot encoder of
    coordinates would have to be trained again, so there it is refused; a mixture still correlates with its tokens.
    """
    before = sae.dictionary
    columns = columns_in(before)
    if not isinstance(columns, ExpanderDictionary) or not sae.tied:
        raise ExpanderError("Only an expander dictionary, or mixtures, that are their own encoder can be cut.")
    if columns is before and isinstance(sae.coder, OneShotCoder):
        raise ExpanderError("Only an expander dictionary that is coded by a pursuit can be cut; train others smaller.")
    if not 1 <= d * columns.n < columns.learned_values:
        mean = columns.learned_values / columns.n
        raise ExpanderError(f"d must be at least 1 and below the {mean:g} values that columns have, not {d}.")
    result = copy.deepcopy(sae)
    result.provenance["cut_to"] = d
    if isinstance(before, ComposedDictionary):
        worth = energy * before.inverse_norms(columns.dtype).square()
        result.dictionary = ComposedDictionary(before.atoms, _shortened(columns, d, worth, before.atoms.norms()))
        scale = before.norms() * result.dictionary.inverse_norms(columns.dtype)
        result.dictionary.mixtures.values.mul_(scale[:, None])
    else:
        worth = energy * columns.inverse_norms(columns.dtype).square()
        result.dictionary = _shortened(columns, d, worth, torch.ones(columns.m))
    return result


def _shortened(
    columns: ExpanderDictionary, d: int, energy: Float[Tensor, " n"], lengths: Float[Tensor, " rows"]
) -> ExpanderDictionary:
    """The n d largest entries of columns over rows of these lengths."""
    lengths = nn.functional.pad(lengths.to(columns.values), (0, 1), value=1.0)  # of an entry that is none, too
    values = columns.values.detach() * lengths[columns.rows]
    wanted = present_entries(columns.rows, values, energy, columns.m)
    whole = torch.zeros(0, dtype=torch.long, device=values.device)
    kept = afforded(wanted, energy, columns.m, columns.n * d, least_degree(d), whole)
    longest = int(kept.sum(dim=1).max())
    after = moved_columns(columns.rows, values, wanted, kept, columns.m)
    shorter = after.values / lengths[after.rows]
    return ExpanderDictionary(Support.from_rows(after.rows[:, :longest], columns.m), shorter[:, :longest])
