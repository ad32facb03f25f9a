"""Contexts of features as readers see them: texts of tokens, and how strongly the feature fires on each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from expander_sae.evaluation.contexts import Context

VISIBLE = str.maketrans({"\n": "↵", "\r": "␍", "\t": "⇥"})
"""White space that would otherwise move the text around."""

_UNFINISHED = "\ufffd"  # what a decoder writes for bytes that are no whole character


class Decoder(Protocol):
    """What is asked of a tokenizer; those of transformers have it."""

    def decode(self, token_ids: list[int], *, clean_up_tokenization_spaces: bool) -> str: ...


@dataclass(frozen=True)
class Piece:
    """The text of a token."""

    text: str
    strength: float
    """From 0 (silent) to 1 (the strongest activation shown)."""
    activation: float
    peak: bool


@dataclass(frozen=True)
class FeatureCard:
    """A feature as the page shows it."""

    feature: int
    frequency: str
    touches: str
    """The coordinates of its column."""
    contexts: list[list[Piece]]

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> FeatureCard:
        """The card of which `dataclasses.asdict` made this."""
        contexts = [[Piece(**piece) for piece in context] for context in content["contexts"]]
        return cls(**{**content, "contexts": contexts})


def token_texts(tokenizer: Decoder, token_ids: Sequence[int]) -> list[str]:
    """What every token adds to the text; a character made of several tokens belongs to the last of them."""
    texts, before = list[str](), ""
    for end in range(1, len(token_ids) + 1):
        whole = tokenizer.decode(list(token_ids[:end]), clean_up_tokenization_spaces=False)
        finished = whole if end == len(token_ids) else whole.rstrip(_UNFINISHED)
        texts.append(finished[len(before) :])
        before = finished if len(finished) > len(before) else before
    return texts


def highlighted(tokenizer: Decoder, contexts: Sequence[Context]) -> list[list[Piece]]:
    """The pieces of every context, with strengths that can be compared among them."""
    strongest = max((abs(value) for context in contexts for value in context.activations), default=0.0)
    return [
        [
            Piece(
                text.translate(VISIBLE),
                abs(activation) / strongest if strongest else 0.0,
                activation,
                place == context.peak,
            )
            for place, (text, activation) in enumerate(
                zip(token_texts(tokenizer, context.token_ids), context.activations, strict=True)
            )
        ]
        for context in contexts
    ]
