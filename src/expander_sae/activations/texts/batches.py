"""Pieces to batches of similar length, so that little padding is computed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from expander_sae.activations.texts.tokens import TokenisedDocument
from expander_sae.errors import ExpanderError

WINDOW = 16
"""Batches' worth of tokens that are sorted together: enough for small padding, and never more in memory."""


@dataclass(frozen=True)
class Batch:
    """Pieces padded on the right with id 0, where a causal model cannot see the padding from any token."""

    ids: Int[Tensor, "pieces length"]
    mask: Bool[Tensor, "pieces length"]
    """True where there is a token."""
    document: Int[Tensor, "pieces"]
    """Number of the document that each piece is from."""
    position: Int[Tensor, "pieces length"]
    """Of each token in its document; modulo the context it is the position that the model sees."""

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
