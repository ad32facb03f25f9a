"""What the columns of features say: the coordinates they touch or the atoms that they are mixtures of, their nearest
neighbours, the tokens they promote."""

from __future__ import annotations

import copy
from functools import cached_property
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from expander_sae.activations.models import LanguageModel
from expander_sae.activations.texts.spelling import Spelling
from expander_sae.dictionaries import ComposedDictionary, Dictionary
from expander_sae.errors import ExpanderError
from expander_sae.features.schema import LISTED

_AT_ONCE = 512
"""Columns written out at a time."""
_SPARSE = 1 / 24
"""Share of a column's entries that are not zero, below which adding up rows of the unembedding is faster than a product
with all of it."""


class Neighbours:
    """The columns of a dictionary beside each other."""

    def __init__(self, dictionary: Dictionary) -> None:
        self._unit = copy.deepcopy(dictionary)
        self._unit.normalise_columns()

    @torch.no_grad()
    def nearest(self, first: int, stop: int, wanted: int) -> dict[str, Any]:
        """For the columns first .. stop-1 the others of the highest cosine, the most alike first."""
        features, cosines = [], []
        for numbers in torch.split(torch.arange(first, stop, device=self._unit.device), _AT_ONCE):
            columns = self._unit.columns(numbers).to_dense(self._unit.m)
            found = self._unit.select(columns, min(wanted + 1, self._unit.n))
            others = (found.indices != numbers[:, None]) & (found.values > 0)
            order = torch.argsort(~others, dim=1, stable=True)[:, :wanted]
            features.append(torch.where(others, found.indices, -1).gather(1, order).cpu())
            cosines.append(found.values.gather(1, order).clamp(max=1).cpu())
        return {"nearest": torch.cat(features).numpy(), "nearest_cosine": torch.cat(cosines).numpy()}


@torch.no_grad()
def touched(dictionary: Dictionary, first: int, stop: int) -> dict[str, Any]:
    """The coordinates that the columns first .. stop-1 touch and what they have there, in ascending order."""
    rows, values, entries = [], [], []
    for numbers in torch.split(torch.arange(first, stop, device=dictionary.device), _AT_ONCE):
        columns = dictionary.columns(numbers)
        used = columns.values != 0
        size = columns.values.abs().masked_fill(~used, -1)
        listed = size.topk(min(LISTED, size.shape[1]), dim=1).indices
        row = torch.where(used, columns.rows.long(), dictionary.m).gather(1, listed)
        order = row.argsort(dim=1)
        row = row.gather(1, order)
        rows.append(torch.where(row < dictionary.m, row, -1).cpu())
        values.append(columns.values.gather(1, listed).gather(1, order).cpu())
        entries.append(used.sum(dim=1).cpu())
    return {
        "rows": torch.cat(rows).numpy(),
        "values": torch.cat(values).float().numpy(),
        "column_entries": torch.cat(entries).numpy(),
    }


@torch.no_grad()
def mixed(dictionary: Dictionary, first: int, stop: int) -> dict[str, Any]:
    """The atoms that the columns first .. stop-1 are mixtures of; nothing is said of columns that are none."""
    if not isinstance(dictionary, ComposedDictionary):
        return {}
    mixtures, lengths = dictionary.mixtures, nn.functional.pad(dictionary.atoms.norms(), (0, 1))
    atoms, weights = [], []
    for numbers in torch.split(torch.arange(first, stop, device=dictionary.device), _AT_ONCE):
        norms = torch.linalg.vector_norm(dictionary.columns(numbers).values, dim=1, keepdim=True)
        rows = mixtures.rows[numbers].long()
        adds = mixtures.values[numbers] * lengths[rows] * torch.where(norms > 0, 1 / norms, 0.0)
        order = adds.abs().sort(dim=1, descending=True, stable=True).indices
        atoms.append(torch.where(adds != 0, rows, -1).gather(1, order).cpu())
        weights.append(adds.gather(1, order).cpu())
    return {"atoms": torch.cat(atoms).numpy(), "atom_weights": torch.cat(weights).float().numpy()}


class Lens:
    """What a step along a column does to a language model's logits, when it goes straight to the unembedding."""

    def __init__(
        self, language_model: LanguageModel, unembedding: nn.Module, norm: nn.Module, spelling: Spelling
    ) -> None:
        self._spelling, self._norm = spelling, norm
        self._unembedding: Tensor = unembedding.weight  # type: ignore[assignment]
        self._spelled = len(language_model.tokenizer)

    @classmethod
    def of(cls, language_model: LanguageModel, width: int, spelling: Spelling) -> Self | None:
        """The lens of a model; None if activations of this width are not those of its residual stream."""
        unembedding = language_model.model.get_output_embeddings()
        if width != language_model.width or unembedding is None:
            return None
        return cls(language_model, unembedding, _last_norm(language_model, unembedding), spelling)

    @torch.no_grad()
    def promoted(self, dictionary: Dictionary, scale: float, first: int, stop: int, wanted: int) -> dict[str, Any]:
        """The tokens that the columns first .. stop-1 make likelier and less likely, the most changed first."""
        top, bottom = [], []
        for numbers in torch.split(torch.arange(first, stop, device=dictionary.device), _AT_ONCE):
            columns = dictionary.columns(numbers).to_dense(dictionary.m) / scale
            logits = self._logits(self._through_norm(columns.to(self._unembedding)))
            top.append(logits.topk(wanted, dim=1))
            bottom.append(logits.topk(wanted, dim=1, largest=False))
        found: dict[str, Any] = {}
        for name, parts in (("top", top), ("bottom", bottom)):
            ids = torch.cat([part.indices for part in parts]).tolist()
            found[f"{name}_tokens"] = [[self._spelling.alone(token) for token in tokens] for tokens in ids]
            found[f"{name}_token_logits"] = torch.cat([part.values for part in parts]).cpu().numpy()
        return found

    def _logits(self, steps: Float[Tensor, "columns m"]) -> Float[Tensor, "columns vocabulary"]:
        """What the unembedding makes of each column, of the tokens that have a text."""
        used = steps != 0
        if used.sum() > _SPARSE * steps.numel():
            return (steps @ self._unembedding.T)[:, : self._spelled].float()
        ends = used.sum(dim=1).cumsum(dim=0)
        starts = torch.cat([ends.new_zeros(1), ends[:-1]])
        coordinates = used.nonzero()[:, 1]
        return nn.functional.embedding_bag(
            coordinates, self._by_coordinate, starts, mode="sum", per_sample_weights=steps[used]
        ).float()

    @cached_property
    def _by_coordinate(self) -> Float[Tensor, "m vocabulary"]:
        """The unembedding with what each coordinate does to all tokens in one place."""
        return self._unembedding.T[:, : self._spelled].contiguous()

    def _through_norm(self, columns: Float[Tensor, "columns m"]) -> Float[Tensor, "columns m"]:
        """What the last norm's weights make of each column; what it divides by depends on the token and is left out."""
        centred = columns - columns.mean(dim=1, keepdim=True) if isinstance(self._norm, nn.LayerNorm) else columns
        size = centred.square().mean(dim=1, keepdim=True).sqrt()
        large = columns / torch.where(size > 0, size, 1)
        return (self._norm(large) - self._norm(torch.zeros_like(large))) * size


def _last_norm(language_model: LanguageModel, unembedding: nn.Module) -> nn.Module:
    """The norm whose output the model's logits are made of."""
    base = language_model.model.base_model
    outside = [
        module
        for name, module in base.named_modules()
        if "norm" in type(module).__name__.lower() and not any(part.isdigit() for part in name.split("."))
    ]
    seen: dict[nn.Module, Tensor] = {}
    handles = [
        module.register_forward_hook(lambda module, _, output: seen.__setitem__(module, output)) for module in outside
    ]
    ids = torch.zeros(1, 2, dtype=torch.int64, device=language_model.device)
    given: list[Tensor] = []
    handles.append(unembedding.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0])))
    try:
        with torch.no_grad():
            language_model.model(input_ids=ids, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    for module, output in seen.items():
        if given and torch.equal(output[:, -1], given[0][:, -1]):
            return module
    raise ExpanderError(
        f"{language_model.name} does something between its last norm and its unembedding that is not known here; "
        "leave the tokens that features promote out with --lens 0."
    )
