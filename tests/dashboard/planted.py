"""A feature database over a text of hostile tokens, without a language model."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from expander_sae.activations.store import Store, StoreWriter
from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.coders import TopK
from expander_sae.dictionaries import ComposedDictionary, DenseDictionary, Dictionary, ExpanderDictionary
from expander_sae.features import FeaturesConfig, collect_features
from expander_sae.reporting.dashboard import Measure, Shown
from expander_sae.supports import Support

M, N, K = 16, 130, 3
TOKENS, DOCUMENTS = 3000, 60
DEAD = 5
"""A feature that never fires."""
HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(2)>",
    "</script><script>alert(3)</script>",
    "\u202eright to left\u202c",
    " שלום",
    " مرحبا",
    "👩‍👩‍👧‍👦",
    "\u0000",
    "\u0007\u001b[31m",
    "x" * 3000,
    " " * 40,
    "\n\n",
    '"quoted"',
    "&lt;b&gt;",
    " water",
    " fire",
    "'); X.receive({});//",
    "\u2028",
]


class HostileTokenizer:
    """Tokens that are these texts over and over."""

    def __len__(self) -> int:
        return len(HOSTILE)

    def decode(self, token_ids: list[int], **_: Any) -> str:
        return "".join(HOSTILE[token % len(HOSTILE)] for token in token_ids)


def database(folder: Path, seed: int, tokens: int = TOKENS, atoms: bool = False) -> Shown:
    """Features that fire on directions that tokens have, so that every one has tokens of its own.

    With atoms, the first features are those directions and all others mixtures of four of them.
    """
    generator = torch.Generator().manual_seed(7)
    ids = torch.randint(len(HOSTILE), (TOKENS,), generator=generator)
    directions = torch.randn(len(HOSTILE), M, generator=generator)
    activations = directions[ids] + 0.4 * torch.randn(TOKENS, M, generator=generator)
    document = torch.arange(DOCUMENTS).repeat_interleave(TOKENS // DOCUMENTS)
    position = torch.arange(TOKENS // DOCUMENTS).repeat(DOCUMENTS)
    origin = {"model": "<b>none</b>", "revision": None, "hookpoint": "layers.1", "text": "planted", "context": 50}
    with StoreWriter(folder / "acts", width=M, dtype=torch.float16, origin=origin) as writer:
        writer.append(activations, ids, document, position)
        writer.finish()
    values = torch.randn(N, 4, generator=torch.Generator().manual_seed(seed))
    values[DEAD] = 0
    dictionary: Dictionary = ExpanderDictionary(Support.make("uniform", m=M, n=N, d=4, seed=seed), values)
    if atoms:
        p = len(HOSTILE)
        rows = Support.make("uniform", m=p, n=N, d=4, seed=seed).rows.clone()
        rows[:p], rows[:p, 0], values[:p, 0] = -1, torch.arange(p), 1.0
        mixtures = ExpanderDictionary(Support.from_rows(rows, p), values)
        dictionary = ComposedDictionary(DenseDictionary(M, p, directions), mixtures)
    sae = SparseAutoencoder(dictionary, TopK(K))
    model: Any = SimpleNamespace(tokenizer=HostileTokenizer())
    found = collect_features(
        sae, Store.open(folder / "acts"), out=folder / f"<i>{seed}" / "features", language_model=model,
        config=FeaturesConfig(tokens=tokens, lens=0, around=6),
    )  # fmt: skip
    return Shown(found, sae, [Measure("FVU", "<b>what is left</b>", 0.25, 0.2, 0.3)])
