"""Contexts of features as readers see them: texts of tokens, and how strongly the feature fires on each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

VISIBLE = str.maketrans({"\n": "↵", "\r": "␍", "\t": "⇥"})
"""White space that would otherwise move the text around."""


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


def highlighted(contexts: Sequence[Mapping[str, Any]]) -> list[list[Piece]]:
    """The pieces of contexts as a feature database has them, with strengths that can be compared among them."""
    strongest = max((abs(value) for context in contexts for value in context["activations"]), default=0.0)
    return [
        [
            Piece(
                text.translate(VISIBLE),
                abs(activation) / strongest if strongest else 0.0,
                activation,
                place == context["peak"],
            )
            for place, (text, activation) in enumerate(zip(context["tokens"], context["activations"], strict=True))
        ]
        for context in contexts
    ]
