"""Documents to tokens: cut into pieces that fit a model's context, and those into batches with little padding."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import Any, Protocol

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from expander_sae.activations.texts.files import Document
from expander_sae.errors import ExpanderError

SHORTEST = 2
"""Tokens of text in a piece: one alone predicts nothing."""
WINDOW = 16
"""Batches' worth of tokens that are sorted together: enough for small padding, and never more in memory."""
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
    """Token ids, with the one that begins a sequence in front if that was asked for."""
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


def puts_bos(tokenizer: Tokenizer) -> bool:
    """Whether the tokenizer by itself begins a text with its BOS token."""
    if tokenizer.bos_token_id is None:
        return False
    return list(tokenizer(["a"], add_special_tokens=True, verbose=False)["input_ids"][0][:1]) == [
        tokenizer.bos_token_id
    ]


def _prefix(tokenizer: Tokenizer, bos: bool) -> list[int]:
    if not bos:
        return []
    if tokenizer.bos_token_id is None:
        raise ExpanderError("This tokenizer has no token that begins a sequence (BOS); ask for no BOS instead.")
    return [tokenizer.bos_token_id]


@dataclass(frozen=True)
class Batch:
    """Pieces padded on the right with id 0, where a causal model cannot see the padding from any token."""

    ids: Int[Tensor, "pieces length"]
    mask: Bool[Tensor, "pieces length"]
    """True where there is a token."""
    document: Int[Tensor, "pieces"]
    """Number of the document that each piece is from."""
    position: Int[Tensor, "pieces length"]
    """The position of each token in its document; modulo the context it is the position that the model sees."""

    @property
    def tokens(self) -> int:
        """Number of tokens without padding."""
        return int(self.mask.sum())


def batches_by_length(pieces: Iterable[TokenisedDocument], tokens_per_batch: int) -> Iterator[Batch]:
    """Batches of at most `tokens_per_batch` positions, padding included; the same pieces give the same batches.

    Pieces are sorted inside windows of WINDOW batches, so order changes only within a window.
    """
    if tokens_per_batch < 1:
        raise ExpanderError(f"A batch must hold at least 1 token, not {tokens_per_batch}.")
    return _batches(pieces, tokens_per_batch)


def _batches(pieces: Iterable[TokenisedDocument], tokens_per_batch: int) -> Iterator[Batch]:
    window: list[TokenisedDocument] = []
    held = 0
    for piece in pieces:
        if len(piece.ids) > tokens_per_batch:
            raise ExpanderError(
                f"A piece of {len(piece.ids)} tokens does not fit a batch of {tokens_per_batch}; "
                "make batches larger or the context shorter."
            )
        window.append(piece)
        held += len(piece.ids)
        if held >= WINDOW * tokens_per_batch:
            yield from _sorted_batches(window, tokens_per_batch)
            window, held = [], 0
    yield from _sorted_batches(window, tokens_per_batch)


def _sorted_batches(window: list[TokenisedDocument], tokens_per_batch: int) -> Iterator[Batch]:
    # Longest first: what does not fit into memory shows at once.
    ordered = sorted(window, key=lambda piece: -len(piece.ids))
    start = 0
    while start < len(ordered):
        rows = tokens_per_batch // len(ordered[start].ids)
        yield _padded(ordered[start : start + rows])
        start += rows


def _padded(pieces: list[TokenisedDocument]) -> Batch:
    lengths = torch.tensor([len(piece.ids) for piece in pieces])
    steps = torch.arange(int(lengths.max()))
    ids = torch.zeros(len(pieces), len(steps), dtype=torch.int64)
    for row, piece in enumerate(pieces):
        ids[row, : len(piece.ids)] = torch.tensor(piece.ids)
    starts = torch.tensor([piece.start for piece in pieces])
    return Batch(
        ids=ids,
        mask=steps < lengths[:, None],
        document=torch.tensor([piece.document for piece in pieces]),
        position=starts[:, None] + steps,
    )
