"""What a feature does in the model: how concentrated the change of the predictions is when it is taken away."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from expander_sae.activations.hookpoints import Hookpoint, read_activations
from expander_sae.activations.models import LanguageModel
from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.dictionaries import Codes
from expander_sae.evaluation.quality.held_out import HeldOut
from expander_sae.interventions.replaced import PatchedModel

AHEAD = 16
"""Tokens whose predictions are looked at: the one where the feature fires, and those after it in its piece."""
AT_ONCE = 4
"""Firings that are taken away in one pass."""


@dataclass(frozen=True)
class Removal:
    """A firing that is taken away."""

    token: int
    """Number of the measured token where the feature fires."""
    part: Float[Tensor, " m"]
    """What the firing adds to the activation."""


@dataclass(frozen=True)
class Effect:
    """How the logits of the following tokens change without a firing."""

    spread: float
    """`(L1 / L2)^2` of the change, as a share of the numbers that it could have touched: small where few changed."""
    size: float
    """Norm of the change as a multiple of the norm of what was taken away."""


@torch.no_grad()
def removals_of(
    sae: SparseAutoencoder, feature: int, tokens: NDArray[np.int64], strengths: NDArray[np.float32]
) -> list[Removal]:
    """The firings of a feature on these tokens."""
    column = (
        sae.dictionary.synthesize(
            Codes(
                torch.ones(1, 1, device=sae.pre_bias.device),
                torch.tensor([[feature]], device=sae.pre_bias.device),
                sae.n,
            )
        )[0]
        / sae.scale
    )
    return [
        Removal(int(token), float(each) * column.float().cpu()) for token, each in zip(tokens, strengths, strict=True)
    ]


@torch.no_grad()
def effects_of(
    removals: Sequence[Removal],
    held_out: HeldOut,
    language_model: LanguageModel,
    hookpoint: Hookpoint,
    report: Callable[[int], None] = lambda done: None,
) -> list[Effect]:
    """The effect of every removal, all others left as they are."""
    model = PatchedModel(language_model, hookpoint)
    place = held_out.place
    pieces = held_out.text.piece[place[[removal.token for removal in removals]]] if removals else np.empty(0, int)
    found: dict[int, Effect] = {}
    for piece in np.unique(pieces):
        mine = np.flatnonzero(pieces == piece)
        begin, end = np.searchsorted(held_out.text.piece, [piece, piece + 1])
        at = [int(place[removals[number].token] - begin) for number in mine.tolist()]
        end = min(int(end), int(begin) + max(at) + AHEAD)
        ids = torch.from_numpy(held_out.text.ids[begin:end])[None].to(language_model.device)
        x = read_activations(language_model.model, [hookpoint], ids)[hookpoint]
        clean = model.logits(ids, x)
        for start in range(0, len(mine), AT_ONCE):
            numbers, where = mine[start : start + AT_ONCE], at[start : start + AT_ONCE]
            changed = x.repeat(len(numbers), 1, 1)
            for row, (number, position) in enumerate(zip(numbers.tolist(), where, strict=True)):
                changed[row, position] -= removals[number].part.to(changed)
            logits = model.logits(ids.expand(len(numbers), -1), changed)
            for row, (number, position) in enumerate(zip(numbers.tolist(), where, strict=True)):
                ahead = slice(position, position + AHEAD)
                change = (logits[row, ahead] - clean[0, ahead]).float().cpu()
                found[number] = _effect(change, float(removals[number].part.norm()))
        report(len(found))
    return [found[number] for number in range(len(removals))]


def _effect(change: Float[Tensor, "positions vocabulary"], removed: float) -> Effect:
    """Of a change of logits; what all tokens of a position share changes no prediction and is left out."""
    change = change - change.median(dim=1, keepdim=True).values
    size = float(change.norm())
    spread = (float(change.abs().sum()) / size) ** 2 / change.numel() if size > 0 else float("nan")
    return Effect(spread, size / removed if removed > 0 else float("nan"))
