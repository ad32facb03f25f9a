"""Memory of a feature database of a million features: python -m benchmarks.features [--tokens 10000000]

Codes are drawn and not encoded, since what is measured is the pass over them: every token uses k features at random,
whose frequencies follow Zipf's law, so that there are as many firings and pairs as a trained dictionary of this size
has, and a few features that fire on some percent of all tokens. Prints the peak of memory as it goes.
"""

from __future__ import annotations

import resource
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from jaxtyping import Float
from torch import Tensor

from expander_sae.activations.store import Tokens
from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.coders import Coder
from expander_sae.dictionaries import Codes, Dictionary, ExpanderDictionary
from expander_sae.features import FeaturesConfig, collect_features
from expander_sae.features.source import TOKENS_AT_ONCE, TOKENS_PER_SHARD
from expander_sae.supports import Support

DOCUMENT = 1000
"""Tokens of a document."""


@dataclass(frozen=True)
class PlantedCodes(Coder):
    """A coder that looks at nothing: features at random, the one of rank r about 1 / r times as often as the first."""

    k: int

    def __call__(self, dictionary: Dictionary, x: Float[Tensor, "*batch m"]) -> Codes:
        # Every pick has features of its own, so that those of a token are distinct.
        rank = (dictionary.n // self.k) ** torch.rand(len(x), self.k, dtype=torch.float64)
        indices = (rank.long() - 1) * self.k + torch.arange(self.k)
        return Codes(torch.rand(len(x), self.k) + 0.1, indices, dictionary.n)


@dataclass(frozen=True)
class PlantedText:
    """Tokens without activations worth reading."""

    width: int
    tokens: int

    def origin(self) -> dict[str, Any]:
        return {"text": "planted"}

    def pieces(self, first: int) -> Iterator[tuple[int, Tokens]]:
        for start in range(first * TOKENS_PER_SHARD, self.tokens, TOKENS_AT_ONCE):
            place = torch.arange(start, min(start + TOKENS_AT_ONCE, self.tokens), dtype=torch.int32)
            ids = torch.randint(0, 50_000, place.shape, dtype=torch.int32)
            x, massive = torch.zeros(len(place), self.width), torch.zeros(len(place), dtype=torch.bool)
            yield start // TOKENS_PER_SHARD, Tokens(x, ids, place // DOCUMENT, place % DOCUMENT, massive)


def main(n: int = 1_048_576, m: int = 2048, d: int = 16, k: int = 16, tokens: int = 10_000_000) -> None:
    """Make the database of n features in a temporary folder."""
    torch.manual_seed(0)
    coder = PlantedCodes(k)
    sae = SparseAutoencoder(ExpanderDictionary(Support.make("uniform", m=m, n=n, d=d, seed=0)), coder)
    folder, start = Path(tempfile.mkdtemp()), time.process_time()
    print(f"the autoencoder is there: {_peak():,} MiB", flush=True)

    def report(what: str, done: int, total: int) -> None:
        if done == total or done % (1 << 17) == 0:
            spent = time.process_time() - start
            print(f"{what}, {done:,} of {total:,}: {_peak():,} MiB, {spent:,.0f} s of CPU time", flush=True)

    try:
        config = FeaturesConfig(tokens=tokens, strongest=2, drawn=1, nearest=0)
        database = collect_features(
            sae, PlantedText(m, tokens), out=folder, name="planted", config=config, report=report
        )
        print(f"{database.info.alive:,} features alive, {database.info.dead:,} dead; peak {_peak():,} MiB")
    finally:
        shutil.rmtree(folder)


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    tyro.cli(main)
