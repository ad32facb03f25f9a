"""A held-out text as the measures need it: tokens, activations, predictions, and labels of tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from expander_sae.activations.harvest import TextConfig, with_bos_known
from expander_sae.activations.hookpoints import Hookpoint, read_with_output
from expander_sae.activations.models import LanguageModel
from expander_sae.activations.store.manifest import MASSIVE_MULTIPLE
from expander_sae.activations.texts import Batch, batches_by_length, documents
from expander_sae.activations.texts.tokens import TokenisedDocument
from expander_sae.errors import ExpanderError
from expander_sae.evaluation.quality.predictions import Predictions
from expander_sae.evaluation.text import TOKENS_PER_BATCH, first_tokens, pieces_of

Report = Callable[[int], None]
"""Called with the number of tokens that the model has read."""


@dataclass(frozen=True)
class Text:
    """The tokens of a text, document by document."""

    ids: NDArray[np.int64]
    document: NDArray[np.int64]
    """Of every token, numbered from 0 without gaps."""
    piece: NDArray[np.int64]
    """Of every token: what the model read at once, numbered from 0."""
    position: NDArray[np.int64]
    """Of every token in its document."""
    spans: NDArray[np.int64]
    """Where every token begins and ends in the characters of its document, `[tokens, 2]`."""
    documents: list[str]
    spelled: dict[int, str]
    """How every kind of token that occurs is written."""

    @property
    def folded(self) -> NDArray[np.int64]:
        """The kind of every token, with one number for those that differ only in letter case."""
        numbers: dict[str, int] = {}
        kinds, kind = np.unique(self.ids, return_inverse=True)
        each = [numbers.setdefault(self.spelled[int(one)].casefold(), len(numbers)) for one in kinds]
        return np.array(each, dtype=np.int64)[kind]


@dataclass(frozen=True)
class HeldOut:
    """A text with the activations of those tokens that are measured: massive and special ones are not."""

    text: Text
    place: NDArray[np.int64]
    """Where each measured token stands in the text."""
    x: Float[Tensor, "tokens m"]
    """Activations of the measured tokens, in float32 on the CPU."""
    predictions: Predictions
    """Of the next token behind every measured one."""
    massive_above: float
    """The norm above which a token is massive."""

    @property
    def document(self) -> NDArray[np.int64]:
        """The document of every measured token."""
        return self.text.document[self.place]

    @property
    def token(self) -> NDArray[np.int64]:
        """The kind of every measured token."""
        return self.text.ids[self.place]

    @property
    def folded(self) -> NDArray[np.int64]:
        """The kind of every measured token, letter case apart."""
        return self.text.folded[self.place]

    @property
    def centred(self) -> Float[Tensor, "tokens m"]:
        """Activations less their mean."""
        return self.x - self.x.mean(dim=0)

    @classmethod
    def read(
        cls,
        language_model: LanguageModel,
        text: TextConfig,
        hookpoint: Hookpoint,
        *,
        tokens: int,
        massive_above: float | None = None,
        report: Report = lambda tokens: None,
    ) -> HeldOut:
        """The first `tokens` tokens of a text, in one pass of the model.

        A token is massive when its norm is above `massive_above`, or above 4 times the median of this text.
        """
        text = with_bos_known(language_model, text)
        pieces = list(first_tokens(pieces_of(language_model, text, tokens), tokens))
        documents = _documents(language_model, text, pieces)
        if len(documents) < 2:
            raise ExpanderError(
                "The text has a single document, but what is learned on some documents is tried on others; give a "
                "text of several, or more tokens."
            )
        batches = batches_by_length(pieces, max(text.context, TOKENS_PER_BATCH))
        found = _read(language_model, hookpoint, batches, report)
        order = np.lexsort((found.position, found.document))
        found = found.ordered(order)
        norms = torch.linalg.vector_norm(found.x, dim=1)
        above = MASSIVE_MULTIPLE * float(norms.median()) if massive_above is None else massive_above
        special = np.isin(found.ids, language_model.tokenizer.all_special_ids)
        place = np.flatnonzero((norms <= above).numpy() & ~special)
        if not len(place):
            raise ExpanderError("Every token of the text is special or massive, so there is nothing to measure.")
        numbers = {number: count for count, number in enumerate(documents)}
        text_read = Text(
            ids=found.ids,
            document=np.array([numbers[int(each)] for each in found.document]),
            piece=np.cumsum(found.position % text.context == 0) - 1,
            position=found.position,
            spans=_spans(documents, found, text, language_model),
            documents=[document.text for document in documents.values()],
            spelled={int(each): language_model.tokenizer.decode([int(each)]) for each in np.unique(found.ids)},
        )
        return cls(text_read, place, found.x[place], Predictions.of(language_model, found.hidden[place]), above)


@dataclass(frozen=True)
class _Document:
    """A document and the tokens that its characters make."""

    text: str
    ids: NDArray[np.int64]
    spans: NDArray[np.int64]


def _documents(
    language_model: LanguageModel, text: TextConfig, pieces: Sequence[TokenisedDocument]
) -> dict[int, _Document]:
    """The documents that the pieces are from, by the numbers that the pieces give them."""
    wanted = {piece.document for piece in pieces}
    found = {}
    source = documents(text.text, part=text.part, column=text.column)
    for number, document in enumerate(islice(source, max(wanted) + 1)):
        if number in wanted:
            encoded = language_model.tokenizer(
                document.text, add_special_tokens=False, return_offsets_mapping=True, verbose=False
            )
            ids, spans = (np.array(encoded[name], dtype=np.int64) for name in ("input_ids", "offset_mapping"))
            found[number] = _Document(document.text, ids, spans)
    return found


@dataclass(frozen=True)
class _Found:
    """What one pass of the model gives, token by token."""

    ids: NDArray[np.int64]
    document: NDArray[np.int64]
    position: NDArray[np.int64]
    x: Float[Tensor, "tokens m"]
    hidden: Float[Tensor, "tokens width"]

    def ordered(self, order: NDArray[np.int64]) -> _Found:
        """The same tokens in another order."""
        return _Found(self.ids[order], self.document[order], self.position[order], self.x[order], self.hidden[order])


def _read(language_model: LanguageModel, hookpoint: Hookpoint, batches: Iterator[Batch], report: Report) -> _Found:
    """Activations and last hidden states of every token."""
    parts, done = list[tuple[Tensor, ...]](), 0
    for batch in batches:
        ids = batch.ids.to(language_model.device)
        x, hidden = read_with_output(language_model.model, hookpoint, ids)
        if not parts:
            Predictions.of(language_model, hidden[0]).check(language_model, ids[:1])
        mask = batch.mask
        document = batch.document[:, None].expand(mask.shape)
        parts.append((batch.ids[mask], document[mask], batch.position[mask], x.cpu()[mask].float(),
                      hidden.cpu()[mask].float()))  # fmt: skip
        done += batch.tokens
        report(done)
    ids, document, position, x, hidden = (torch.cat(each) for each in zip(*parts, strict=True))
    if not x.isfinite().all():
        raise ExpanderError(f"The activations at {hookpoint} are not finite; load the model in float32.")
    return _Found(ids.numpy(), document.numpy(), position.numpy(), x, hidden)


def _spans(
    documents: dict[int, _Document], found: _Found, text: TextConfig, language_model: LanguageModel
) -> NDArray[np.int64]:
    """The characters of every token; none for a token that begins a piece and is not of the text."""
    spans = np.zeros((len(found.ids), 2), dtype=np.int64)
    piece, inside = np.divmod(found.position, text.context)
    before = int(bool(text.bos))
    place = piece * (text.context - before) + inside - before
    of_text = inside >= before
    for number, document in documents.items():
        here = np.flatnonzero((found.document == number) & of_text)
        if not np.array_equal(document.ids[place[here]], found.ids[here]):
            raise ExpanderError(
                f"The tokenizer of {language_model.name} cuts a document in two ways; use a fast tokenizer."
            )
        spans[here] = document.spans[place[here]]
    return spans
