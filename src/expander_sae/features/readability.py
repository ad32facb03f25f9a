"""How readable features are, as far as codes and tokens tell it; the measures are those of `evaluation.quality`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array

from expander_sae.activations.texts.spelling import Spelling
from expander_sae.evaluation.quality import reading
from expander_sae.evaluation.quality.firings import firing_often
from expander_sae.evaluation.quality.reading import CONTEXTS, Halves, token_r2
from expander_sae.features.contexts import Contexts
from expander_sae.features.shards import Block, Text


@dataclass(frozen=True)
class Readability:
    """A text in the form in which features are measured on it."""

    text: Text
    learn: NDArray[np.bool_]
    test: NDArray[np.bool_]
    folded: NDArray[np.int64]
    """The kind of every token, letter case apart."""

    @classmethod
    def of(cls, text: Text, spelling: Spelling) -> Self:
        """Half of the documents are learned from, drawn at random; massive tokens are left out."""
        first = Halves.of(text.document.astype(np.int64), seed=0).first
        kinds, kind = np.unique(text.token_ids, return_inverse=True)
        numbers: dict[str, int] = {}
        folded = [numbers.setdefault(spelling.alone(int(each)).casefold(), len(numbers)) for each in kinds]
        return cls(text, first & ~text.massive, ~first & ~text.massive, np.array(folded, dtype=np.int64)[kind])

    def columns(self, block: Block, contexts: Contexts) -> dict[str, Any]:
        """The columns `token_r2` and `purity`, for features that fire often enough to be measured."""
        entries = (block.value, block.place, block.starts)
        firings = csc_array(entries, shape=(self.text.tokens, block.count))
        often = firing_often(firings, self.text.document.astype(np.int64))
        explained, pure = np.full(block.count, np.nan), np.full(block.count, np.nan)
        explained[often] = token_r2(firings[:, often], self.text.token_ids, self.learn, self.test)
        shown = (contexts.group == 0) & (contexts.rank < CONTEXTS)
        ends = np.cumsum(np.bincount(contexts.feature[shown], minlength=block.count))
        places = np.split(block.place[contexts.firing[shown]], ends[:-1])
        compared = [reading.Contexts(places[each], [np.arange(len(places[each]))]) for each in often]
        if len(often):
            pure[often] = reading.purity(self.folded, compared)[:, 0]
        return {name: np.ma.masked_invalid(values) for name, values in (("token_r2", explained), ("purity", pure))}
