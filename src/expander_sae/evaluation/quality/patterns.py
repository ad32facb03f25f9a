"""A feature explained as patterns over tokens: learned where it fires in one half of a text, tried on the other.

A pattern fixes some of the last four tokens and leaves the others open, as in "the * of". All patterns of a feature are
the paths of a trie read backwards from the current token, with wildcards, as in neuron-to-graph; but they are learned
from the text alone, the model is not asked about texts that were not written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array

from expander_sae.evaluation.quality.held_out import HeldOut

DEPTH = 4
"""Tokens that a pattern can look at, the current one included."""
SHAPES = [shape for size in range(1, DEPTH + 1) for shape in combinations(range(DEPTH), size)]
"""Which tokens a pattern fixes, as steps back from the current one; general ones first."""
PRECISION, LIFT = 0.5, 2.0
"""A pattern is kept if the feature fires on more than this share of its tokens, one silent one added to them, and on
more than this many times its share of all tokens: a feature that is on half the time is foretold by nothing."""


@dataclass(frozen=True)
class Pattern:
    """Some of the last tokens up to the current one."""

    shape: tuple[int, ...]
    """How many steps back each of them stands."""
    example: int
    """A token of the text that the pattern fits."""
    found: int
    """Tokens of the half that was learned from on which the feature fires and no earlier pattern fits."""


@dataclass(frozen=True)
class Explained:
    """How well patterns foretell a feature on the half that they were not learned from."""

    precision: float
    """Share of the tokens that fit a pattern on which the feature fires; nan if none fits."""
    recall: float
    """Share of the feature's activation that is on such tokens; nan if it has none there."""
    patterns: list[Pattern]
    """Those that find most, first."""

    @property
    def f1(self) -> float:
        """Harmonic mean of the two; 0 if no token fits, nan if the feature is silent there."""
        if np.isnan(self.recall):
            return float("nan")
        if np.isnan(self.precision) or self.precision + self.recall == 0:
            return 0.0
        return 2 * self.precision * self.recall / (self.precision + self.recall)


class Explainer:
    """The contexts of a text in a form in which many features can be explained quickly."""

    def __init__(self, held_out: HeldOut, learn: NDArray[np.bool_]) -> None:
        """`learn` says of every measured token whether its half is learned from."""
        self._learn = learn
        back = _tokens_back(held_out)
        self._keys = {shape: np.unique(back[:, shape], axis=0, return_inverse=True)[1].reshape(-1) for shape in SHAPES}

    def explain(self, tokens: NDArray[np.int64], values: NDArray[np.floating]) -> Explained:
        """The patterns of a feature that fires on these tokens so strongly."""
        fires = np.zeros(len(self._learn), dtype=bool)
        fires[tokens] = True
        least = max(PRECISION, LIFT * float(fires[self._learn].mean()))
        open_, fits = self._learn.copy(), np.zeros(len(self._learn), dtype=bool)
        patterns = []
        for shape in SHAPES:
            key = self._keys[shape]
            hits = np.bincount(key[open_ & fires])
            kept = np.flatnonzero(hits)
            if not len(kept):
                break
            kept = kept[hits[kept] > least * (np.bincount(key[open_], minlength=len(hits))[kept] + 1)]
            if not len(kept):
                continue
            chosen = np.zeros(int(key.max()) + 1, dtype=bool)
            chosen[kept] = True
            where = chosen[key]
            found = np.flatnonzero(where & open_ & fires)
            _, examples = np.unique(key[found], return_index=True)
            patterns += [Pattern(shape, int(found[at]), int(hits[key[found[at]]])) for at in examples]
            open_ &= ~where
            fits |= where
        strength = np.zeros(len(self._learn))
        strength[tokens] = np.abs(values)
        tried = fits & ~self._learn
        total = float(strength[~self._learn].sum())
        return Explained(
            precision=float(fires[tried].mean()) if tried.any() else float("nan"),
            recall=float(strength[tried].sum()) / total if total > 0 else float("nan"),
            patterns=sorted(patterns, key=lambda pattern: -pattern.found),
        )


def explain_features(
    firings: csc_array, held_out: HeldOut, learn: NDArray[np.bool_], features: Sequence[int]
) -> list[Explained]:
    """The patterns of each of these features."""
    explainer, found = Explainer(held_out, learn), []
    for feature in features:
        column = slice(firings.indptr[feature], firings.indptr[feature + 1])
        found.append(explainer.explain(firings.indices[column], firings.data[column]))
    return found


def written(pattern: Pattern, held_out: HeldOut) -> str:
    """A pattern as a reader sees it, a star for a token that may be any."""
    text, place = held_out.text, int(held_out.place[pattern.example])
    first = max(pattern.shape)
    words = [text.spelled[int(text.ids[place - back])] if back in pattern.shape else " *"
             for back in range(first, -1, -1)]  # fmt: skip
    return "".join(words)


def _tokens_back(held_out: HeldOut) -> NDArray[np.int64]:
    """For every measured token itself and those before it in its piece; -1 where there is none."""
    text, place = held_out.text, held_out.place
    back = np.full((len(place), DEPTH), -1, dtype=np.int64)
    for step in range(DEPTH):
        before = np.maximum(place - step, 0)
        there = (place >= step) & (text.piece[before] == text.piece[place])
        back[there, step] = text.ids[before[there]]
    return back
