"""Sets of features to look at, uniformly random or those that codes use, and how sure shares of them are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64
from numpy.typing import NDArray
from scipy.special import betaincinv  # scipy.stats takes long to import

from expander_sae.activations.store import Store
from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.certificates.progress import Report
from expander_sae.dictionaries import Codes
from expander_sae.errors import ExpanderError

CONFIDENCE = 0.95
TOKENS_AT_ONCE = 1024

Sets = Sequence[Int64[NDArray[np.int64], " features"]]


@dataclass(frozen=True)
class Rate:
    """A share of a population, from a sample of it."""

    passed: int
    trials: int
    low: float
    """With `high` the Clopper-Pearson interval of 95 %."""
    high: float

    @classmethod
    def of(cls, outcomes: Iterable[bool]) -> Rate:
        """The share of true outcomes."""
        each = list(outcomes)
        return cls.counted(sum(each), len(each))

    @classmethod
    def counted(cls, passed: int, trials: int) -> Rate:
        """So many of so many."""
        tail = (1 - CONFIDENCE) / 2
        low = float(betaincinv(passed, trials - passed + 1, tail)) if passed else 0.0
        high = float(betaincinv(passed + 1, trials - passed, 1 - tail)) if passed < trials else 1.0
        return cls(passed, trials, low, high)

    @property
    def share(self) -> float:
        """The share of the sample that passed."""
        return self.passed / self.trials

    def __str__(self) -> str:
        return f"{self.share:.1%} of them (95 % interval {self.low:.1%} to {self.high:.1%})"


def random_sets(features: Int64[NDArray[np.int64], " features"], k: int, number: int, seed: int) -> Sets:
    """Independent uniformly random sets of k of these features, ascending."""
    generator = np.random.default_rng([seed, k])
    return [np.sort(generator.choice(features, k, replace=False, shuffle=False)) for _ in range(number)]


def sets_of_codes(codes: Codes) -> Sets:
    """The features that each token uses, ascending; tokens that use none are left out."""
    active, indices = (
        codes.active.reshape(-1, codes.active.shape[-1]),
        codes.indices.reshape(-1, codes.indices.shape[-1]),
    )
    sets = [np.unique(line[used].numpy()) for line, used in zip(indices.cpu(), active.cpu(), strict=True)]
    return [each.astype(np.int64) for each in sets if each.size]


@torch.no_grad()
def codes_of_store(sae: SparseAutoencoder, store: Store, tokens: int, seed: int, report: Report) -> Codes:
    """The autoencoder's own codes for tokens drawn from all over a store, massive ones left out."""
    if store.width != sae.m:
        raise ExpanderError(
            f"The dictionary is for activations of width {sae.m}, but those of {store.path} are {store.width} wide; "
            "give a store of the hookpoint that it was trained on."
        )
    if len(store) == 0:
        raise ExpanderError(f"{store.path} holds no token yet; let the harvest write at least one shard.")
    chosen = np.sort(np.random.default_rng(seed).choice(len(store), min(tokens, len(store)), replace=False))
    pieces: list[Codes] = []
    for start in range(0, len(chosen), TOKENS_AT_ONCE):
        batch = [store[position : position + 1] for position in chosen[start : start + TOKENS_AT_ONCE].tolist()]
        ordinary = [token.activations for token in batch if not bool(token.massive)]
        if ordinary:
            pieces.append(sae.encode(torch.cat(ordinary).to(sae.dictionary.device, torch.float32)).to("cpu"))
        report("encoding", start + len(batch), len(chosen))
    if not pieces:
        raise ExpanderError(f"Every token drawn from {store.path} is massive, so no code can be looked at.")
    return Codes.concatenate(pieces)
