"""The text of an evaluation, and the model's activations on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from expander_sae.activations.harvest import TextConfig, text_pieces, with_bos_known
from expander_sae.activations.hookpoints import Hookpoint, read_activations
from expander_sae.activations.models import LanguageModel
from expander_sae.activations.store.manifest import MASSIVE_MULTIPLE
from expander_sae.activations.texts import Batch, batches_by_length
from expander_sae.activations.texts.tokens import SHORTEST, TokenisedDocument
from expander_sae.errors import ExpanderError

TOKENS_PER_BATCH = 2048
"""Tokens of a batch at most, as long as a context fits."""
LOGITS_PER_BATCH = 2**27
"""Logits of a batch at most, as long as a context fits: half a gigabyte of them in float32."""
POOL = 2_000_000
"""Tokens that a passage from here and there is drawn from, where it needs no more."""
KEPT_BYTES = 2**30
"""Activations of a text that take no more than this are kept between the passes over it."""
SAMPLE = 16_384
"""Tokens that the median norm is taken from where the training text's is not known."""


@dataclass(frozen=True)
class Part:
    """A batch of the text with its activations, on the language model's device."""

    ids: Int[Tensor, "pieces length"]
    document: Int[Tensor, " pieces"]
    """The document of every piece, numbered from 0 without gaps over the whole text."""
    predicts: Bool[Tensor, "pieces length"]
    """Tokens whose prediction of the next one counts: there is a next one, and the token is not special."""
    replaced: Bool[Tensor, "pieces length"]
    """Tokens whose activations are replaced and measured: neither padding nor special nor massive."""
    massive: int
    special: int
    """Tokens that are passed through; one that is both is special."""
    activations: Float[Tensor, "pieces length m"]

    @property
    def tokens(self) -> int:
        """Number of tokens without padding."""
        return int(self.replaced.sum()) + self.massive + self.special

    @property
    def x(self) -> Float[Tensor, "tokens m"]:
        """The activations to be replaced."""
        return self.activations[self.replaced]

    def replaced_by(self, rows: Float[Tensor, "*tokens m"]) -> Float[Tensor, "pieces length m"]:
        """The activations with these in place of `x`; one row serves all tokens."""
        patched = self.activations.clone()
        patched[self.replaced] = rows.to(patched.dtype)
        return patched

    def documents_at(self, mask: Bool[Tensor, "pieces length"]) -> Int[Tensor, " tokens"]:
        """The document of every token where the mask is true."""
        return self.document[:, None].expand(mask.shape)[mask]


@dataclass(frozen=True)
class Passage:
    """Some documents of a text, cut and batched."""

    batches: list[Batch]
    tokens: int
    documents: int

    @classmethod
    def of(cls, language_model: LanguageModel, text: TextConfig, tokens: int) -> Passage:
        """The first `tokens` tokens of the text (but no piece of a single one), or all if it has fewer."""
        chosen = list(first_tokens(pieces_of(language_model, text, tokens), tokens))
        most = min(TOKENS_PER_BATCH, LOGITS_PER_BATCH // language_model.vocabulary)
        return cls._batched(chosen, max(text.context, most))

    @classmethod
    def drawn(
        cls, language_model: LanguageModel, text: TextConfig, tokens: int, *, tokens_per_batch: int, seed: int
    ) -> Passage:
        """`tokens` tokens (but no piece of a single one) from here and there, batches of them in a seeded order.

        They come from the first `POOL` tokens of the text, or from the first `tokens` if those are more.
        """
        generator = torch.Generator().manual_seed(seed)
        pool = list(first_tokens(pieces_of(language_model, text, tokens), max(tokens, POOL)))
        order = torch.randperm(len(pool), generator=generator).tolist()
        chosen = list(first_tokens((pool[number] for number in order), tokens))
        passage = cls._batched(chosen, max(text.context, tokens_per_batch))
        if passage.tokens < tokens - SHORTEST:
            raise ExpanderError(
                f"The text has {passage.tokens:,} tokens, not {tokens:,}; ask for fewer or give a longer text."
            )
        order = torch.randperm(len(passage.batches), generator=generator).tolist()
        return replace(passage, batches=[passage.batches[number] for number in order])

    @classmethod
    def _batched(cls, pieces: list[TokenisedDocument], tokens_per_batch: int) -> Passage:
        numbers = {number: count for count, number in enumerate(dict.fromkeys(piece.document for piece in pieces))}
        numbered = [replace(piece, document=numbers[piece.document]) for piece in pieces]
        batches = list(batches_by_length(numbered, tokens_per_batch))
        return cls(batches, sum(len(piece.ids) for piece in pieces), len(numbers))


def pieces_of(language_model: LanguageModel, text: TextConfig, tokens: int) -> Iterator[TokenisedDocument]:
    """The text in pieces that the model can read, to take so many tokens from."""
    bos = bool(with_bos_known(language_model, text).bos)
    if tokens < SHORTEST + bos:
        raise ExpanderError(f"A passage needs at least {SHORTEST + bos} tokens, not {tokens}.")
    return text_pieces(language_model, text)


def first_tokens(pieces: Iterator[TokenisedDocument], tokens: int) -> Iterator[TokenisedDocument]:
    """Pieces of this many tokens together; the last one is cut."""
    left = tokens
    for piece in pieces:
        if left < SHORTEST:
            return
        yield replace(piece, ids=piece.ids[:left])
        left -= len(piece.ids)


class TextActivations:
    """The activations of a passage at a hookpoint: kept if they are few, else computed anew in every pass."""

    def __init__(
        self,
        language_model: LanguageModel,
        hookpoint: Hookpoint,
        passage: Passage,
        massive_above: float | None = None,
        progress: Callable[[int], None] = lambda tokens: None,
    ) -> None:
        """One pass over the text for what follows; without `massive_above` it is 4 medians of this text."""
        self.passage, self.hookpoint = passage, hookpoint
        self._language_model = language_model
        self._kept: dict[int, Tensor] = {}
        self._keeps = True
        special = language_model.tokenizer.all_special_ids
        self._special = torch.tensor(special, dtype=torch.int64, device=language_model.device)
        first = self._activations(0)
        self.width = first.shape[-1]
        positions = sum(batch.ids.numel() for batch in passage.batches)
        if positions * self.width * first.element_size() > KEPT_BYTES:
            self._keeps, self._kept = False, {}
        self.massive_above = MASSIVE_MULTIPLE * self._median() if massive_above is None else massive_above
        self.massive = self.special = 0
        """Tokens of the text that are passed through."""
        self.mean, self.variation = self._summarise(progress)

    def parts(self, start: int = 0) -> Iterator[Part]:
        """The batches of the passage from number `start` on, one after the other."""
        for number, batch in enumerate(self.passage.batches[start:], start):
            activations = self._activations(number)
            ids, there = batch.ids.to(activations.device), batch.mask.to(activations.device)
            special = torch.isin(ids, self._special) & there
            massive = (_norms(activations) > self.massive_above) & there & ~special
            has_next = torch.nn.functional.pad(there[:, 1:], (0, 1))
            yield Part(
                ids=ids,
                document=batch.document.to(ids.device),
                predicts=has_next & ~special,
                replaced=there & ~special & ~massive,
                massive=int(massive.sum()),
                special=int(special.sum()),
                activations=activations,
            )

    def _activations(self, number: int) -> Float[Tensor, "pieces length m"]:
        if number in self._kept:
            return self._kept[number]
        activations = self._read(number)
        if self._keeps:
            self._kept[number] = activations
        return activations

    def _read(self, number: int) -> Float[Tensor, "pieces length m"]:
        ids = self.passage.batches[number].ids.to(self._language_model.device)
        return read_activations(self._language_model.model, [self.hookpoint], ids)[self.hookpoint]

    def _median(self) -> float:
        """The median norm of the first tokens."""
        norms, held = [], 0
        for number, batch in enumerate(self.passage.batches):
            if held >= SAMPLE:
                break
            activations = self._activations(number)
            there = batch.mask.to(activations.device)
            norms.append(_norms(activations[there]))
            held += batch.tokens
        return float(torch.cat(norms).median())

    def _summarise(self, progress: Callable[[int], None]) -> tuple[Float64[Tensor, " m"], float]:
        """Count what is passed through; gives back the mean of the rest, and its mean squared distance from that."""
        total, squares, count = torch.zeros(self.width, dtype=torch.float64), 0.0, 0
        for part in self.parts():
            x = part.x
            total += x.double().sum(dim=0).cpu()
            squares += float(x.double().square().sum())
            count, self.massive, self.special = count + len(x), self.massive + part.massive, self.special + part.special
            progress(part.tokens)
        if count == 0:
            raise ExpanderError("Every token of the text is special or massive, so there is nothing to replace.")
        if not total.isfinite().all():
            raise ExpanderError(f"The activations at {self.hookpoint} are not finite; load the model in float32.")
        mean = total / count
        return mean, squares / count - float(mean.square().sum())


def _norms(activations: Float[Tensor, "*tokens m"]) -> Float[Tensor, "*tokens"]:
    """The norm of every token, in float32 at least."""
    return torch.linalg.vector_norm(activations, dim=-1, dtype=torch.promote_types(activations.dtype, torch.float32))
