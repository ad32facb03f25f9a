"""Whether a model predicts a text at all: its cross-entropy beside that of a table of which token follows which.

A model in the wrong dtype, without the BOS token that it needs, or with the tokenizer of another one still runs, and
everything that is then measured is about a broken model.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch

from expander_sae.activations.harvest import TextConfig, text_pieces, with_bos_known
from expander_sae.activations.models import LanguageModel
from expander_sae.activations.texts import TokenisedDocument

MEASURED = 1024
"""Tokens that the model predicts."""
COUNTED = 100_000
"""Tokens behind those that the table is made of."""


@dataclass(frozen=True)
class Soundness:
    """Mean nats per token of the first tokens of a text."""

    model: float
    bigram: float
    """Of a bigram model made of the text behind them."""
    bos: bool
    """Whether pieces of the text begin with BOS."""

    @property
    def warning(self) -> str | None:
        """A sentence where the model is the worse of the two."""
        if self.model <= self.bigram:
            return None
        begun = "with" if self.bos else "without"
        return (
            f"Warning: the model takes {self.model:.2f} nats a token of this text, {begun} BOS, and a table of which "
            f"token follows which {self.bigram:.2f}: something is wrong with the model, the text or its beginning "
            f"(--bos {not self.bos})."
        )


@torch.no_grad()
def soundness(language_model: LanguageModel, text: TextConfig) -> Soundness:
    """How well the model predicts the beginning of the text, and how well counting does."""
    text = with_bos_known(language_model, text)
    pieces = text_pieces(language_model, text)
    measured, bos = list(_first(pieces, MEASURED)), bool(text.bos)
    table = _Bigrams(_first(pieces, COUNTED), language_model.vocabulary, bos)
    total, bigram, count = 0.0, 0.0, 0
    for piece in measured:
        ids = torch.tensor([piece.ids], device=language_model.device)
        logits = language_model.model(input_ids=ids, use_cache=False).logits[0, :-1].float()
        total += float(torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum"))
        bigram += sum(table.nats(*pair) for pair in pairwise(piece.ids))
        count += len(piece.ids) - 1
    return Soundness(total / count, bigram / count, bos)


def _first(pieces: Iterator[TokenisedDocument], tokens: int) -> Iterator[TokenisedDocument]:
    """As many of the next pieces as have so many tokens."""
    while tokens > 0 and (piece := next(pieces, None)) is not None:
        yield piece
        tokens -= len(piece.ids)


class _Bigrams:
    """Which token follows which, as Witten and Bell smooth it: what is new to a context is left to all tokens."""

    def __init__(self, pieces: Iterable[TokenisedDocument], vocabulary: int, bos: bool) -> None:
        self._pairs, self._singles = Counter[tuple[int, int]](), Counter[int]()
        for piece in pieces:
            self._pairs.update(pairwise(piece.ids))
            self._singles.update(piece.ids[bos:])
        self._vocabulary = vocabulary
        self._total, self._kinds = self._singles.total(), len(self._singles)
        self._befores, self._followers = Counter[int](), Counter[int]()
        for (before, _), number in self._pairs.items():
            self._befores[before] += number
            self._followers[before] += 1

    def nats(self, before: int, token: int) -> float:
        """What the token costs behind the one before it."""
        alone = self._mixed(self._singles[token], self._total, self._kinds, 1 / self._vocabulary)
        pair = self._pairs[before, token]
        return -math.log(self._mixed(pair, self._befores[before], self._followers[before], alone))

    @staticmethod
    def _mixed(number: int, total: int, kinds: int, otherwise: float) -> float:
        """The share of the counts, with as much left for others as there were kinds."""
        return (number + kinds * otherwise) / (total + kinds) if total else otherwise
