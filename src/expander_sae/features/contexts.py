"""The contexts of features: which firings are shown, and the text around them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from expander_sae.features.schema import GROUPS
from expander_sae.features.shards import Block, Text
from expander_sae.kernels.cpu.columns import allocating

SPARE = 4
"""How many times more firings are looked at than contexts are wanted, since some repeat each other word for word."""
_SEED = 0x9E3779B97F4A7C15


class Contexts(NamedTuple):
    """Contexts of the features of a block, in the order of feature, group, rank."""

    feature: NDArray[np.int32]
    """Counted from the first of the block."""
    group: NDArray[np.int8]
    """Place in `GROUPS`."""
    rank: NDArray[np.int16]
    firing: NDArray[np.int64]
    """Of the block: the one that the context was chosen for."""
    begin: NDArray[np.int64]
    """The first token, in the order of the text."""
    end: NDArray[np.int64]
    """The token behind the last."""


@dataclass(frozen=True)
class Choice:
    """How contexts are chosen."""

    strongest: int
    """Strongest ones, each of another document."""
    drawn: int
    """Drawn from each quarter of the activations, and from all firings."""
    around: int
    """Tokens on each side."""

    def contexts(self, block: Block, text: Text) -> Contexts:
        """The contexts of the features of a block; none is word for word another of its group."""
        draws = _draws(block, text)
        document = text.document[block.place]
        strength = _sorted_within(block.feature, ~block.magnitude.view(np.uint32))
        lottery = _sorted_within(block.feature, (draws >> np.uint64(32)).astype(np.uint32))
        firing, feature, group = _candidates(
            block.starts, strength, lottery, document, SPARE * self.strongest, SPARE * self.drawn
        )
        place = block.place[firing]
        stretch = np.searchsorted(text.begin, place, side="right")
        begin = np.maximum(text.begin[stretch - 1], place - self.around)
        end = np.minimum(text.begin[stretch], place + self.around + 1)
        owner = feature * len(GROUPS) + group
        _, first = np.unique(_hash_of(owner, text, place, begin, end, self.around), return_index=True)
        first.sort()
        rank = _rank_within(owner[first])
        wanted = np.array([self.strongest, *[self.drawn] * (len(GROUPS) - 1)])
        kept = first[rank < wanted[group[first]]]
        rank = rank[rank < wanted[group[first]]]
        return Contexts(
            feature[kept].astype(np.int32), group[kept].astype(np.int8), rank.astype(np.int16), firing[kept],
            begin[kept], end[kept],
        )  # fmt: skip


def _draws(block: Block, text: Text) -> NDArray[np.uint64]:
    """A random number for every firing, that depends on nothing but its feature and where it stands in the text."""
    number = (block.features[block.feature] * text.tokens + block.place).astype(np.uint64)
    with np.errstate(over="ignore"):  # splitmix64
        mixed = number + np.uint64(_SEED)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _sorted_within(feature: NDArray[np.int32], key: NDArray[np.uint32]) -> NDArray[np.int64]:
    """Firings feature by feature, those of a feature by this key, and by their place where it is the same.

    (One sort of whole numbers is several times faster than a stable one by two keys.)
    """
    keys = (feature.astype(np.uint64) << np.uint64(32)) | key
    order = np.argsort(keys)
    keys = keys[order]
    tied = np.flatnonzero(keys[1:] == keys[:-1])
    if len(tied):
        tied = np.union1d(tied, tied + 1)
        order[tied] = order[tied][np.lexsort((order[tied], keys[tied]))]
    return order


@allocating
def _candidates(starts: Any, strength: Any, lottery: Any, document: Any, strongest: Any, drawn: Any) -> Any:
    """Firings that may be shown with their features and groups: at most so many of a group, in the order of choice.

    Firings are given feature by feature, from the strongest to the weakest and in the order of a lottery.
    """
    features = starts.size - 1
    most = 0
    for feature in range(features):
        count = starts[feature + 1] - starts[feature]
        most += min(count, strongest) + 4 * min((count + 3) // 4, drawn) + min(count, drawn)
    firing, owner, group = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(most, np.int64)
    quarter = np.empty(strength.size, np.int64)
    found = 0
    for feature in range(features):
        begin, end = starts[feature], starts[feature + 1]
        chosen = 0
        for place in range(begin, end):
            candidate = strength[place]
            quarter[candidate] = 1 + 4 * (place - begin) // (end - begin)
            known = False
            for other in range(found - chosen, found if chosen < strongest else 0):
                known |= document[firing[other]] == document[candidate]
            if chosen < strongest and not known:
                firing[found], owner[found], group[found] = candidate, feature, 0
                found += 1
                chosen += 1
        for wanted in range(1, 6):
            chosen = 0
            for place in range(begin, end):
                # From the other end for contexts from all firings, so that they are not those of the quarters again.
                candidate = lottery[place] if wanted < 5 else lottery[begin + end - 1 - place]
                if chosen < drawn and (wanted == 5 or quarter[candidate] == wanted):
                    firing[found], owner[found], group[found] = candidate, feature, wanted
                    found += 1
                    chosen += 1
    return firing[:found], owner[:found], group[:found]


def _hash_of(
    owner: NDArray[np.int64],
    text: Text,
    place: NDArray[np.int64],
    begin: NDArray[np.int64],
    end: NDArray[np.int64],
    around: int,
) -> NDArray[np.uint64]:
    """A number for whom a context is for, its words, and where in it the chosen token is."""
    total = owner.astype(np.uint64)
    with np.errstate(over="ignore"):
        for step in range(-around, around + 1):
            token = place + step
            inside = (token >= begin) & (token < end)
            word = text.token_ids[np.where(inside, token, 0)].astype(np.uint64) + np.uint64(1)
            total = (total + np.where(inside, word, np.uint64(0))) * np.uint64(0x9E3779B97F4A7C15)
            total ^= total >> np.uint64(29)
    return total


def _rank_within(keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many equal keys stand directly before each."""
    new = np.ones(len(keys), dtype=bool)
    new[1:] = keys[1:] != keys[:-1]
    begin = np.flatnonzero(new)
    return np.arange(len(keys)) - np.repeat(begin, np.diff([*begin, len(keys)]))


def tokens_of(contexts: Contexts) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All tokens of all contexts one after the other, in the order of the text; and where each context begins."""
    lengths = contexts.end - contexts.begin
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return np.arange(offsets[-1]) + np.repeat(contexts.begin - offsets[:-1], lengths), offsets


def activations_at(block: Block, tokens: int, feature: NDArray[np.int32], place: NDArray[np.int64]) -> Any:
    """The activations of features on tokens, 0 where they are silent."""
    if not len(block.place):
        return np.zeros(len(place), np.float32)
    keys = block.feature * np.int64(tokens) + block.place
    wanted = feature * np.int64(tokens) + place
    nearest = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[nearest] == wanted, block.value[nearest], np.float32(0))
