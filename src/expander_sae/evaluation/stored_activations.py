"""Evaluating autoencoders on activations alone: no language model needed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple, TypedDict, Unpack, overload

import torch
from jaxtyping import Float, Int
from torch import Tensor

from expander_sae.activations.store import Store
from expander_sae.activations.store.manifest import MASSIVE_MULTIPLE
from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.coders import Coder
from expander_sae.errors import ExpanderError
from expander_sae.evaluation.autoencoders import check_width, subjects_of
from expander_sae.evaluation.bootstrap import Bootstrap
from expander_sae.evaluation.reconstruction import ReconstructionMeter
from expander_sae.evaluation.results import Evaluation, Scope

TOKENS_AT_ONCE = 4096


class Rows(NamedTuple):
    """Some tokens, and how many massive ones between them were left out."""

    x: Float[Tensor, "tokens m"]
    document: Int[Tensor, " tokens"]
    massive: int


class Activations:
    """A store or a matrix, read piece by piece without its massive tokens."""

    def __init__(
        self, source: Store | Float[Tensor, "tokens m"], documents: Int[Tensor, " tokens"] | None, tokens: int | None
    ) -> None:
        if isinstance(source, Tensor):
            if source.ndim != 2 or not source.is_floating_point():
                raise ExpanderError(
                    f"Activations must be a floating-point matrix [tokens, m], not {source.dtype} {list(source.shape)}."
                )
            if documents is not None and documents.shape != source.shape[:1]:
                raise ExpanderError(
                    f"documents must number the {len(source)} tokens one by one, not have the shape "
                    f"{list(documents.shape)}."
                )
        elif documents is not None:
            raise ExpanderError("A store numbers its documents itself; give documents only with a matrix.")
        if len(source) == 0 or (tokens is not None and tokens < 1):
            raise ExpanderError("There is no token to evaluate; give at least one.")
        self.tokens = len(source) if tokens is None else min(tokens, len(source))
        self.width = source.width if isinstance(source, Store) else source.shape[1]
        self._source, self._documents = source, documents
        self._above = 0.0 if isinstance(source, Store) else MASSIVE_MULTIPLE * float(_norms(source).median())

    def __iter__(self) -> Iterator[Rows]:
        for start in range(0, self.tokens, TOKENS_AT_ONCE):
            x, document, massive = self._read(start, min(start + TOKENS_AT_ONCE, self.tokens))
            yield Rows(x[~massive], document[~massive], int(massive.sum()))

    def _read(self, start: int, stop: int) -> tuple[Tensor, Tensor, Tensor]:
        if isinstance(self._source, Store):
            tokens = self._source[start:stop]
            return tokens.activations.float(), tokens.document, tokens.massive
        x = self._source[start:stop]
        document = torch.zeros(len(x)) if self._documents is None else self._documents[start:stop]
        return x, document.to(x.device, torch.int64), _norms(x) > self._above


def _norms(x: Float[Tensor, "tokens m"]) -> Float[Tensor, " tokens"]:
    return torch.linalg.vector_norm(x, dim=1, dtype=torch.promote_types(x.dtype, torch.float32))


class Options(TypedDict, total=False):
    """What `evaluate_activations` takes besides the autoencoders and the activations."""

    documents: Int[Tensor, " tokens"] | None
    tokens: int | None
    coder: Coder | None


@overload
def evaluate_activations(
    saes: SparseAutoencoder, source: Store | Float[Tensor, "tokens m"], **options: Unpack[Options]
) -> Evaluation: ...


@overload
def evaluate_activations(
    saes: Mapping[str, SparseAutoencoder], source: Store | Float[Tensor, "tokens m"], **options: Unpack[Options]
) -> dict[str, Evaluation]: ...


def evaluate_activations(
    saes: SparseAutoencoder | Mapping[str, SparseAutoencoder],
    source: Store | Float[Tensor, "tokens m"],
    *,
    documents: Int[Tensor, " tokens"] | None = None,
    tokens: int | None = None,
    coder: Coder | None = None,
) -> Evaluation | dict[str, Evaluation]:
    """How close reconstructions are on the first `tokens` tokens of a store or a matrix, massive ones left out.

    A store knows its massive tokens; in a matrix they are those above 4 times its median norm. Without documents (one
    number for each row of a matrix) there are no intervals.
    """
    subjects = subjects_of(saes, coder)
    activations = Activations(source, documents, tokens)
    check_width(subjects, activations.width, "those of the source")
    total, count, massive = torch.zeros(activations.width, dtype=torch.float64), 0, 0
    seen = torch.empty(0, dtype=torch.int64)
    for rows in activations:
        total += rows.x.double().sum(dim=0).cpu()
        count, massive = count + len(rows.x), massive + rows.massive
        seen = torch.unique(torch.cat([seen, rows.document.cpu().long()]))
    if count == 0:
        raise ExpanderError("Every token is massive, so there is nothing to evaluate.")
    if not total.isfinite().all():
        raise ExpanderError("Some activations are not finite; leave those tokens out.")
    meters = {name: ReconstructionMeter(sae, total / count, len(seen)) for name, sae in subjects.items()}
    for rows in activations:
        number = torch.searchsorted(seen, rows.document.cpu().long())
        for meter in meters.values():
            meter.add(rows.x, number)
    setting = {"store": source.path.name, **source.origin} if isinstance(source, Store) else {}
    scope = Scope(activations.tokens, len(seen), {"massive": massive}, setting)
    bootstrap = Bootstrap(len(seen))
    found = {name: meter.evaluation(name, scope, bootstrap) for name, meter in meters.items()}
    return found[next(iter(found))] if isinstance(saes, SparseAutoencoder) else found
