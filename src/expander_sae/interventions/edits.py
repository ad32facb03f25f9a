"""What can be done to the features of a token: ablate, scale, set, add, or take them from another prompt.

An edit looks at the codes of a forward pass and answers with the *changes* that it makes to them, as codes of their
own. Changes are added to what was there, so the activation of a feature is the sum of its entries, edits can follow one
another, and only the columns of changed features are ever touched: an edit that changes nothing leaves the model's
activations as they are, to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from expander_sae.checks import a_feature
from expander_sae.dictionaries import Codes
from expander_sae.errors import ExpanderError

Positions = slice | Sequence[int] | int | None
"""Which tokens of a sequence an edit concerns, counted from 0 at its beginning whether or not a cache holds them; None
is all of them. `slice(len(prompt), None)` is what the model writes itself."""


def chosen(positions: Positions, place: Int[Tensor, " length"]) -> Bool[Tensor, " length"]:
    """Which of these places in the sequence the positions name."""
    if positions is None:
        return torch.ones_like(place, dtype=torch.bool)
    if isinstance(positions, slice):
        first, last, step = positions.start or 0, positions.stop, positions.step or 1
        if min(first, last or 0) < 0 or step < 1:
            raise ExpanderError("Positions count from the beginning of the text, since its end may not be written yet.")
        inside = (place >= first) & ((place - first) % step == 0)
        return inside if last is None else inside & (place < last)
    wanted = [positions] if isinstance(positions, int) else list(positions)
    if any(each < 0 for each in wanted):
        raise ExpanderError("Positions count from the beginning of the text, since its end may not be written yet.")
    return torch.isin(place, torch.tensor(wanted, dtype=place.dtype, device=place.device))


def activation_of(codes: Codes, feature: int) -> Float[Tensor, "batch length"]:
    """How strongly a feature fires on every token, all its entries together."""
    return torch.where(codes.indices == feature, codes.values, 0).sum(dim=-1)


@dataclass(frozen=True)
class Ablate:
    """Take a feature away wherever it fires."""

    feature: int
    positions: Positions = None

    def changed(self, activation: Tensor) -> Tensor:
        """What the activations of the feature become."""
        return torch.zeros_like(activation)


@dataclass(frozen=True)
class Scale:
    """Make a feature so many times as strong wherever it fires."""

    feature: int
    factor: float
    positions: Positions = None

    def changed(self, activation: Tensor) -> Tensor:
        """What the activations of the feature become."""
        return activation * self.factor


@dataclass(frozen=True)
class Clamp:
    """Set a feature to one activation, whether it fires or not."""

    feature: int
    activation: float
    positions: Positions = None

    def changed(self, activation: Tensor) -> Tensor:
        """What the activations of the feature become."""
        return torch.full_like(activation, self.activation)


@dataclass(frozen=True)
class Add:
    """Make a feature stronger by so much, whether it fires or not."""

    feature: int
    amount: float
    positions: Positions = None

    def changed(self, activation: Tensor) -> Tensor:
        """What the activations of the feature become."""
        return activation + self.amount


@dataclass(frozen=True)
class Patch:
    """Put the codes of another prompt in the place of this one's, all of them or some features alone.

    `codes` are [batch, length, k] as `Attached.codes` gives them, with one row of the batch for all or one for each;
    the token at position p gets those at p, and tokens behind their end are left alone.
    """

    codes: Codes
    features: Sequence[int] | None = None
    positions: Positions = None


Edit = Ablate | Scale | Clamp | Add | Patch
"""Anything that can be done to codes."""
Kind = Literal["add", "clamp", "scale", "ablate"]
"""What can be done to one feature, by name."""


def edit_in_units(
    kind: Kind, feature: int, strength: float, unit: float, positions: Positions = None
) -> Ablate | Scale | Clamp | Add:
    """An edit whose strength is a multiple of `unit`, the feature's own largest activation; scaling by a factor and
    ablating need no unit."""
    if kind in ("add", "clamp") and unit == 0:
        raise ExpanderError(f"Feature {feature} never fired, so it has no largest activation to count in.")
    if kind == "add":
        return Add(feature, strength * unit, positions)
    if kind == "clamp":
        return Clamp(feature, strength * unit, positions)
    return Scale(feature, strength, positions) if kind == "scale" else Ablate(feature, positions)


def changes_of(edit: Edit, codes: Codes, place: Int[Tensor, " length"], open_: Bool[Tensor, "batch length"]) -> Codes:
    """What an edit adds to the codes [batch, length, k] of tokens at these places; nothing where `open_` is false."""
    here = open_ & chosen(edit.positions, place)
    if isinstance(edit, Patch):
        return _patch_changes(edit, codes, place, here)
    activation = activation_of(codes, edit.feature)
    change = torch.where(here, edit.changed(activation) - activation, 0)
    return Codes(change[..., None], torch.full_like(change[..., None], edit.feature, dtype=torch.int64), codes.n)


def _patch_changes(edit: Patch, codes: Codes, place: Tensor, here: Tensor) -> Codes:
    """The other prompt's codes in, the own ones out."""
    given = edit.codes
    here = here & (place < given.values.shape[1])
    at = place.clamp(max=given.values.shape[1] - 1)
    batch = len(codes.values)
    taken = Codes(
        given.values[:, at].to(codes.values).expand(batch, -1, -1),
        given.indices[:, at].to(codes.indices.device).expand(batch, -1, -1),
        codes.n,
    )
    there, own = taken.values, codes.values
    if edit.features is not None:
        some = torch.tensor(list(edit.features), device=codes.indices.device)
        there, own = there * torch.isin(taken.indices, some), own * torch.isin(codes.indices, some)
    values = torch.cat([there, -own], dim=-1) * here[..., None]
    return Codes(values, torch.cat([taken.indices, codes.indices], dim=-1), codes.n)


def together(codes: Codes, changes: Codes) -> Codes:
    """Codes with the entries of changes behind their own; a feature may then have several, which add up."""
    indices = torch.cat([codes.indices, changes.indices.to(codes.indices.dtype)], dim=-1)
    return Codes(torch.cat([codes.values, changes.values], dim=-1), indices, codes.n)


def check_edits(edits: Iterable[Edit], n: int) -> None:
    """Refuse features that are not there, strengths that are no numbers, and codes of another dictionary."""
    for edit in edits:
        if isinstance(edit, Patch):
            if edit.codes.n != n:
                raise ExpanderError(f"These codes are for {edit.codes.n} features, this dictionary has {n}.")
            if edit.codes.values.ndim != 3 or edit.codes.values.shape[1] == 0:
                raise ExpanderError("A patch needs codes [batch, length, k] of at least one token.")
            features: Sequence[int] = edit.features or ()
        else:
            features = [edit.feature]
        for feature in features:
            a_feature(feature, n)
        strengths = [getattr(edit, name, 0.0) for name in ("factor", "activation", "amount")]
        if not all(math.isfinite(strength) for strength in strengths):
            raise ExpanderError(f"A feature cannot be made {max(strengths, key=abs)} strong; give a finite number.")
