"""The model's work shared by several processes: each runs it on some of the batches, the first one gets what comes out.

Process r takes the batches r, r + N, ... of N processes. Every process cuts the same text into the same batches, so the
first one knows what it has to wait for, and hands all of it on in the order of the text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice

import torch
from jaxtyping import Float
from torch import Tensor

from expander_sae.activations.hookpoints import Hookpoint, read_activations
from expander_sae.activations.models import LanguageModel
from expander_sae.activations.texts import Batch
from expander_sae.distribution import Group, Message
from expander_sae.errors import ExpanderError

Activations = dict[Hookpoint, Float[Tensor, "tokens m"]]
"""The activations of the tokens of one batch, piece after piece, without the padding."""


def activations_of(language_model: LanguageModel, hookpoints: Iterable[Hookpoint], batch: Batch) -> Activations:
    """What the model computes for one batch, on its device."""
    found = read_activations(language_model.model, list(hookpoints), batch.ids.to(language_model.device))
    mask = batch.mask.to(language_model.device)
    return {hookpoint: activations[mask] for hookpoint, activations in found.items()}


def check_one_precision(language_model: LanguageModel, group: Group) -> None:
    """Refuse processes that would compute the activations of one text in different arithmetic."""
    found = dict.fromkeys(group.words(language_model.precision))
    if len(found) > 1:
        raise ExpanderError(
            f"The processes of this run have the model in {', others in '.join(found)}; load it in the same dtype in "
            "all of them."
        )


def activations_in_order(
    language_model: LanguageModel,
    width: Mapping[Hookpoint, int],
    batches: Iterable[Batch],
    group: Group,
    first: Activations | None = None,
) -> Iterator[tuple[Batch, Activations]]:
    """In the first process every batch with its activations, in order; in the others nothing, while they do theirs.

    `first` are those of the first batch if the first process has them already.
    """
    if group.world == 1:
        return _computed(language_model, width, batches, first)
    rounds = _rounds(iter(batches), group.world)
    if group.writes:
        return _collected(language_model, width, rounds, group, first)
    _contribute(language_model, width, rounds, group)
    return iter(())


def _computed(
    language_model: LanguageModel, width: Mapping[Hookpoint, int], batches: Iterable[Batch], first: Activations | None
) -> Iterator[tuple[Batch, Activations]]:
    for batch in batches:
        yield batch, activations_of(language_model, width, batch) if first is None else first
        first = None


def _rounds(batches: Iterator[Batch], world: int) -> Iterator[list[Batch]]:
    """The batches that are computed at the same time, one for each process; only the last time for fewer."""
    while together := list(islice(batches, world)):
        yield together


def _collected(
    language_model: LanguageModel,
    width: Mapping[Hookpoint, int],
    rounds: Iterator[list[Batch]],
    group: Group,
    first: Activations | None,
) -> Iterator[tuple[Batch, Activations]]:
    place, dtype = group.carrier(language_model.device), _dtype(language_model)
    for together in rounds:
        sizes = [sum(batch.tokens * m for m in width.values()) for batch in together]
        coming = [
            group.receive(torch.empty(size, dtype=dtype, device=place), sender)
            for sender, size in enumerate(sizes[1:], start=1)
        ]
        yield together[0], activations_of(language_model, width, together[0]) if first is None else first
        first = None
        for batch, message in zip(together[1:], coming, strict=True):
            parts = torch.split(message.arrived(), [batch.tokens * m for m in width.values()])
            yield batch, {at: part.view(-1, m) for (at, m), part in zip(width.items(), parts, strict=True)}


def _contribute(
    language_model: LanguageModel, width: Mapping[Hookpoint, int], rounds: Iterator[list[Batch]], group: Group
) -> None:
    """Compute this process's batches and send them; one is on its way while the next is computed."""
    place, dtype = group.carrier(language_model.device), _dtype(language_model)
    underway: Message | None = None
    for together in rounds:
        if group.rank < len(together):
            found = activations_of(language_model, width, together[group.rank])
            whole = torch.cat([found[hookpoint].to(dtype).flatten() for hookpoint in width]).to(place)
            if underway is not None:
                underway.arrived()
            underway = group.send(whole)
    if underway is not None:
        underway.arrived()


def _dtype(language_model: LanguageModel) -> torch.dtype:
    """What activations travel in: exact for whatever the model computes in, and known to both sides."""
    return torch.promote_types(language_model.model.dtype, torch.float32)
