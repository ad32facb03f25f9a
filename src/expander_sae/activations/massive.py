"""Which tokens of a store are massive, in words.

One rule serves every family: a norm above 4 times the median. No list of tokens is needed, for what attention rests on
(the first token, BOS, in some texts a line break) is far above it, and nothing else comes near.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Self

from expander_sae.activations.store import Store
from expander_sae.activations.store.manifest import MASSIVE_MULTIPLE

NAMED = 3
"""Of the others, how many are named."""


@dataclass(frozen=True)
class MassiveTokens:
    """The massive tokens of a store."""

    beginnings: int
    """Those that begin a piece of the text, which attention rests on most of all."""
    others: dict[int, int]
    """How many all others are, by token id, the most frequent first."""

    @classmethod
    def of(cls, store: Store) -> Self:
        """Count them; a store that does not say how long pieces are has one piece a document."""
        context, beginnings, others, start = store.origin.get("context"), 0, Counter[int](), 0
        for length in store.shard_tokens:
            tokens = store[start : start + length]
            positions = tokens.position if context is None else tokens.position % context
            begins = positions == 0
            beginnings += int((tokens.massive & begins).sum())
            others.update(tokens.token_ids[tokens.massive & ~begins].tolist())
            start += length
        return cls(beginnings, dict(others.most_common()))

    def described(self, tokenizer: Any) -> str:
        """How many there are, and which."""
        count = self.beginnings + sum(self.others.values())
        sentence = f"{count:,} massive tokens (norm above {MASSIVE_MULTIPLE:g} medians)"
        if not count:
            return sentence
        named = ", ".join(f"{tokenizer.decode([token])!r} {self.others[token]:,}" for token in [*self.others][:NAMED])
        return f"{sentence}: {self.beginnings:,} begin a piece" + (f", others are {named}" if named else "")
