"""Dictionaries inside a running model: their codes are read, and changed, at every forward pass."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from contextlib import ExitStack
from functools import partial
from types import TracebackType
from typing import Any, Self

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from expander_sae.activations.hookpoints import Hookpoint
from expander_sae.activations.models import LanguageModel
from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.dictionaries import Codes
from expander_sae.errors import ExpanderError
from expander_sae.interventions.edits import Edit, changes_of, check_edits, together
from expander_sae.interventions.hooks import Reading, changing, hookpoint_named


def attach(
    model: LanguageModel | nn.Module,
    saes: Mapping[str, SparseAutoencoder],
    *,
    edits: Mapping[str, Iterable[Edit]] | None = None,
    keep_error: bool = True,
    special: Collection[int] | None = None,
) -> Attached:
    """Dictionaries by hookpoint, to be used in a `with`: inside, `forward` and `generate` read and change their codes.

    With `keep_error`, what a dictionary does not explain of an activation stays in it, so that without edits the model
    predicts what it always predicts, bit for bit; without it, the reconstruction takes the activation's place. Special
    tokens (by default those of the tokenizer, or of the model's config), padding, and tokens that were massive in
    training pass unchanged.
    """
    return Attached(model, saes, edits or {}, keep_error, special)


class Attached:
    """Dictionaries attached to a model: a context, in which `codes` are those of what the model read last."""

    def __init__(
        self,
        model: LanguageModel | nn.Module,
        saes: Mapping[str, SparseAutoencoder],
        edits: Mapping[str, Iterable[Edit]],
        keep_error: bool,
        special: Collection[int] | None,
    ) -> None:
        if not saes:
            raise ExpanderError("There is no dictionary to attach; give at least one, by its hookpoint.")
        self.model: Any = model.model if isinstance(model, LanguageModel) else model
        self.keep_error = keep_error
        self._base: nn.Module = getattr(self.model, "base_model", self.model)
        ids = _special_ids(model) if special is None else set(special)
        self._special = torch.tensor(sorted(ids), dtype=torch.int64)
        self._reading, self._stack = Reading(), ExitStack()
        self._places = {name: _Place(hookpoint_named(self.model, name), sae) for name, sae in saes.items()}
        twice = {str(place.hookpoint) for place in self._places.values()}
        if len(twice) < len(self._places):
            raise ExpanderError(f"Two dictionaries are for one hookpoint, among {', '.join(saes)}; attach one of them.")
        for name in edits:
            self.edit(name, *edits[name])

    def edit(self, hookpoint: str, *edits: Edit) -> None:
        """From now on do this to the features at a hookpoint, one edit after the other, instead of what was done."""
        place = self._at(hookpoint)
        check_edits(edits, place.sae.n)
        place.edits = list(edits)

    def codes(self, hookpoint: str | None = None) -> Codes:
        """The codes [batch, length, k] of the text that the model read last, before any edit at this hookpoint.

        What was read with a cache, as `generate` does, is put together; tokens that pass unchanged have none.
        """
        place = self._at(hookpoint)
        if not place.read:
            raise ExpanderError("The model has read nothing since the dictionaries were attached; call it first.")
        return Codes.concatenate(place.read, dim=1)

    def __enter__(self) -> Self:
        with ExitStack() as stack:  # if one of the hooks cannot be set, none stays
            stack.enter_context(self._reading.watched(self.model, self._base))
            for place in self._places.values():
                place.read, place.length = [], 0
                stack.enter_context(changing(self._base, place.hookpoint, partial(self._changed, place)))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _changed(self, place: _Place, x: Float[Tensor, "batch length m"]) -> Float[Tensor, "batch length m"]:
        """What becomes of the activations at one place."""
        sae = place.sae
        if x.shape[-1] != sae.m:
            raise ExpanderError(
                f"The activations at {place.hookpoint} have width {x.shape[-1]}, but the dictionary is for {sae.m}."
            )
        open_ = self._open_tokens(place, x)
        with torch.no_grad():
            found = sae.encode(torch.where(open_[..., None], x, 0).float())
        codes = Codes(found.values * open_[..., None], found.indices, found.n)
        place.remember(codes, self._reading.start)
        edited, at = codes, self._reading.place(x.shape[1], x.device)
        for edit in place.edits:
            edited = together(edited, changes_of(edit, edited, at, open_))
        if not self.keep_error:
            return torch.where(open_[..., None], sae.decode(edited).to(x.dtype), x)
        k = codes.values.shape[-1]
        changes = Codes(edited.values[..., k:], edited.indices[..., k:], codes.n)
        if not changes.values.any():
            return x
        return x + (sae.dictionary.synthesize(changes) / sae.scale).to(x.dtype)

    def _open_tokens(self, place: _Place, x: Float[Tensor, "batch length m"]) -> Bool[Tensor, "batch length"]:
        """Which tokens the dictionary is asked about: neither padding nor special nor massive."""
        there = self._reading.there(x)
        if self._reading.ids is not None:
            there = there & ~torch.isin(self._reading.ids.to(x.device), self._special.to(x.device))
        if place.massive_above is not None:
            there = there & (torch.linalg.vector_norm(x.detach().float(), dim=-1) <= place.massive_above)
        return there

    def _at(self, hookpoint: str | None) -> _Place:
        if hookpoint is None:
            if len(self._places) > 1:
                raise ExpanderError(f"There are dictionaries at {', '.join(self._places)}; say which is meant.")
            return next(iter(self._places.values()))
        if hookpoint not in self._places:
            raise ExpanderError(f"No dictionary is attached at {hookpoint}, only at {', '.join(self._places)}.")
        return self._places[hookpoint]


class _Place:
    """A dictionary where it is attached."""

    def __init__(self, hookpoint: Hookpoint, sae: SparseAutoencoder) -> None:
        self.hookpoint, self.sae = hookpoint, sae
        self.edits: list[Edit] = []
        self.read: list[Codes] = []
        self.length = 0
        """Tokens of the sequence that `read` holds the codes of."""
        self.massive_above = massive_above(sae, hookpoint)

    def remember(self, codes: Codes, start: int) -> None:
        """Keep what was read; what does not go on where the last stopped begins anew."""
        if start == 0 or start != self.length:
            self.read = []
        self.read.append(codes.detach())
        self.length = start + codes.values.shape[1]


def massive_above(sae: SparseAutoencoder, hookpoint: Hookpoint) -> float | None:
    """The norm above which a token was massive in training; None if that was at another hookpoint, or is not known."""
    origin = sae.provenance.get("activations", {})
    above: float | None = origin.get("massive_above") if origin.get("hookpoint") == str(hookpoint) else None
    return above


def _special_ids(model: LanguageModel | nn.Module) -> set[int]:
    """Tokens that mean no text."""
    if isinstance(model, LanguageModel):
        return set(model.tokenizer.all_special_ids)
    config = getattr(model, "config", None)
    given = [getattr(config, name, None) for name in ("bos_token_id", "eos_token_id", "pad_token_id")]
    return {each for ids in given for each in (ids if isinstance(ids, list) else [ids]) if isinstance(each, int)}
