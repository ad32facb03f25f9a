"""Documents to tokens: every document cut into pieces that fit a model's context."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import Any, Protocol

from expander_sae.activations.texts.document import Document
from expander_sae.errors import ExpanderError

SHORTEST = 2
"""Tokens of text in a piece: one alone predicts nothing."""

_DOCUMENTS_AT_ONCE = 64  # fast tokenizers share a list among threads


class Tokenizer(Protocol):
    """What is asked of a tokenizer; those of transformers have it."""

    @property
    def bos_token_id(self) -> int | None: ...

    def __call__(self, text: list[str], *, add_special_tokens: bool, verbose: bool) -> Any: ...


@dataclass(frozen=True)
class TokenisedDocument:
    """A piece of a document that a model can read at once."""

    ids: list[int]
    """With the token that begins a sequence in front, if that was asked for."""
    document: int
    """Number of the document in its source, from 0; documents that gave no piece are counted too."""
    start: int
    """Position of the first id in the document: a multiple of the context, since all pieces but the last are full."""


class Pieces(Iterator[TokenisedDocument]):
    """The pieces of all documents, in order, and what was left out so far."""

    def __init__(self, documents: Iterable[Document], tokenizer: Tokenizer, *, context: int, bos: bool) -> None:
        self.skipped = 0
        """Pieces (mostly whole documents) of fewer than 2 tokens."""
        self._tokenizer = tokenizer
        self._context = context
        self._prefix = _prefix(tokenizer, bos)
        self._pieces = self._cut(iter(documents))

    def __next__(self) -> TokenisedDocument:
        return next(self._pieces)

    def _cut(self, documents: Iterator[Document]) -> Iterator[TokenisedDocument]:
        numbers = count()
        yielded = 0
        while chunk := [document.text for document in islice(documents, _DOCUMENTS_AT_ONCE)]:
            # Special tokens are added here or nowhere; a text longer than the context is no reason to warn.
            encoded = self._tokenizer(chunk, add_special_tokens=False, verbose=False)["input_ids"]
            for ids, number in zip(encoded, numbers, strict=False):  # numbers last: none is taken for nothing
                for piece in self._pieces_of(ids, number):
                    yielded += 1
                    yield piece
        if not yielded:
            raise ExpanderError(f"No document of the text has {SHORTEST} tokens; give a text that is longer.")

    def _pieces_of(self, ids: Sequence[int], document: int) -> Iterator[TokenisedDocument]:
        room = self._context - len(self._prefix)
        # A document without any token still counts as one that was skipped.
        for number, start in enumerate(range(0, max(len(ids), 1), room)):
            piece = list(ids[start : start + room])
            if len(piece) < SHORTEST:
                self.skipped += 1
            else:
                yield TokenisedDocument(self._prefix + piece, document, number * self._context)


def tokenise(documents: Iterable[Document], tokenizer: Tokenizer, *, context: int, bos: bool) -> Pieces:
    """Consecutive pieces of at most `context` ids; with `bos`, each begins with the tokenizer's BOS token.

    Without `bos` no special token is added, whatever the tokenizer would do by itself.
    """
    if context < SHORTEST + bos:
        raise ExpanderError(f"A context must hold at least {SHORTEST + bos} tokens, not {context}.")
    return Pieces(documents, tokenizer, context=context, bos=bos)


def _prefix(tokenizer: Tokenizer, bos: bool) -> list[int]:
    if not bos:
        return []
    if tokenizer.bos_token_id is None:
        raise ExpanderError("This tokenizer has no token that begins a sequence (BOS); ask for no BOS instead.")
    return [tokenizer.bos_token_id]
