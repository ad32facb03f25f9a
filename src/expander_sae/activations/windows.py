"""Windows of a text: consecutive batches of it whose activations are held together and visited in random order.

Several processes share a window: each runs the model on some of its batches, and all of them know the norm of every
token, so that they agree, without asking again, on which tokens are left out and on the order of the others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from expander_sae.activations.distributed import activations_of
from expander_sae.activations.harvest import TextConfig, text_batches
from expander_sae.activations.hookpoints import Hookpoint
from expander_sae.activations.models import LanguageModel
from expander_sae.activations.store.manifest import MASSIVE_MULTIPLE
from expander_sae.activations.store.order import Stream, permutation
from expander_sae.activations.texts import Batch
from expander_sae.distribution import Group
from expander_sae.errors import ExpanderError


@dataclass(frozen=True)
class Place:
    """Where a window begins: at the batch of this number in the text, which is read for the epoch-th time."""

    epoch: int = 0
    batch: int = 0


class WindowedText:
    """The text again and again, cut into windows that have a number of tokens, or less where it ends."""

    def __init__(self, language_model: LanguageModel, text: TextConfig, tokens: int) -> None:
        self._language_model, self._text, self._tokens = language_model, text, tokens
        self._batches: Iterator[Batch] = iter(())
        self._place: Place | None = None

    def window(self, place: Place) -> tuple[Place, list[Batch]]:
        """The batches of the window at a place; where the text ends there, of the first one of the next epoch."""
        self._go_to(place)
        batches = list(self._take())
        if not batches:
            place = Place(place.epoch + 1)
            self._go_to(place)
            batches = list(self._take())
        self._place = Place(place.epoch, place.batch + len(batches))
        return place, batches

    def _go_to(self, place: Place) -> None:
        here, self._place = self._place, None
        if place == here:
            return
        self._batches = text_batches(self._language_model, self._text)
        passed = sum(1 for _ in islice(self._batches, place.batch))
        if passed < place.batch:
            raise ExpanderError(
                f"{self._text.text} has {passed} batches of text where there were {place.batch} and more: it has "
                "changed; resume with the same text or start anew in another folder."
            )

    def _take(self) -> Iterator[Batch]:
        held = 0
        while held < self._tokens and (batch := next(self._batches, None)) is not None:
            yield batch
            held += batch.tokens


class Window:
    """One window: what this process computed of it, and, once all of them are done, the order of its tokens."""

    def __init__(
        self,
        language_model: LanguageModel,
        hookpoint: Hookpoint,
        width: int,
        place: Place,
        batches: list[Batch],
        group: Group,
    ) -> None:
        self.place, self._batches, self._group = place, batches, group
        self._language_model, self._hookpoint = language_model, hookpoint
        sizes = torch.tensor([batch.tokens for batch in batches])
        owners = torch.arange(place.batch, place.batch + len(batches)) % group.world
        self._begins = (sizes.cumsum(0) - sizes).tolist()
        self._own = (owners == group.rank).nonzero()[:, 0].tolist()
        """Numbers of the batches that this process computes."""
        self._is_own = (owners == group.rank).repeat_interleave(sizes)
        self._row = self._is_own.cumsum(0) - 1
        device = language_model.device
        self._rows = torch.empty(int(self._is_own.sum()), width, dtype=language_model.model.dtype, device=device)
        self._norms = torch.zeros(int(sizes.sum()), dtype=torch.float64, device=device)
        self._computed = self._filled = 0
        self._order: Int[Tensor, " count"] = torch.empty(0, dtype=torch.int64)
        self.finished = False
        """Whether the order is fixed."""

    @property
    def after(self) -> Place:
        """Where the next window begins, unless the text ends there."""
        return Place(self.place.epoch, self.place.batch + len(self._batches))

    @property
    def fingerprint(self) -> str:
        """The same for windows of the same tokens."""
        digest = hashlib.sha256()
        for batch in self._batches:
            digest.update(batch.ids[batch.mask].numpy().tobytes())
        return digest.hexdigest()[:16]

    def compute(self, share: float = 1.0) -> None:
        """Run the model on until this process has done this share of its batches."""
        while self._computed < share * len(self._own):
            number = self._own[self._computed]
            batch = self._batches[number]
            rows = activations_of(self._language_model, [self._hookpoint], batch)[self._hookpoint]
            self._rows[self._filled : self._filled + batch.tokens] = rows
            begin = self._begins[number]
            self._norms[begin : begin + batch.tokens] = torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64)
            self._computed, self._filled = self._computed + 1, self._filled + batch.tokens

    def finish(self, median: float | None, seed: int) -> float:
        """Compute what is left, then fix the order; gives back the median norm, the window's own if none is given."""
        self.compute()
        norms = self._group.add_up(self._norms).cpu()
        if not norms.isfinite().all():
            self._refuse(int((~norms.isfinite()).nonzero()[0]))
        median = float(np.median(norms.numpy())) if median is None else median
        kept = (norms <= MASSIVE_MULTIPLE * median).nonzero()[:, 0]
        number = (self.place.epoch << 32) | self.place.batch
        shuffled = torch.from_numpy(permutation(len(kept), seed, Stream.TOKENS_OF_TEXT, number).copy())
        self._order, self.finished = kept[shuffled], True
        return median

    @property
    def count(self) -> int:
        """Tokens that are visited, in all processes together."""
        return len(self._order)

    def gather(self, offset: int, count: int) -> Float[Tensor, "tokens m"]:
        """What this process has of at most `count` tokens from `offset` on in the window's order."""
        chosen = self._order[offset : offset + count]
        return self._rows[self._row[chosen[self._is_own[chosen]]].to(self._rows.device)]

    def _refuse(self, token: int) -> None:
        """Say which token's activation is not finite."""
        number = next(n for n, begin in reversed(list(enumerate(self._begins))) if begin <= token)
        batch, within = self._batches[number], token - self._begins[number]
        token_id, position = int(batch.ids[batch.mask][within]), int(batch.position[batch.mask][within])
        document = int(batch.document[:, None].expand(batch.mask.shape)[batch.mask][within])
        text = self._language_model.tokenizer.decode([token_id])
        raise ExpanderError(
            f"The activation at {self._hookpoint} of {text!r} (id {token_id}), position {position} of document "
            f"{document} of the text, has NaN or infinite values, which nothing can learn from; run the model in "
            "float32 or bfloat16, or leave this text out."
        )
