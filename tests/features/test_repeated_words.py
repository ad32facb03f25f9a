"""Texts that many documents share."""

from __future__ import annotations

from pathlib import Path

import torch

from expander_sae.activations.store import Store, StoreWriter
from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.features import FeaturesConfig, collect_features
from tests.features.conftest import M, N


def test_words_that_many_documents_share_are_shown_once(sae: SparseAutoencoder, tmp_path: Path) -> None:
    """Ten documents, the first six of them the same."""
    generator = torch.Generator().manual_seed(2)
    same = torch.arange(10).clamp(min=5) - 5
    activations = torch.randn(10, 8, M, generator=generator)[same].flatten(0, 1)
    ids = (torch.arange(80).view(10, 8))[same].flatten()
    with StoreWriter(tmp_path / "acts", width=M, dtype=torch.float16, origin={}) as writer:
        writer.append(activations, ids, torch.arange(10).repeat_interleave(8), torch.arange(8).repeat(10))
        writer.finish()
    store = Store.open(tmp_path / "acts")
    database = collect_features(sae, store, out=tmp_path / "db", config=FeaturesConfig(tokens=80, strongest=3))
    shown = 0
    for feature in range(N):
        for group in ("strongest", "random"):
            contexts = [each for each in database.contexts(feature) if each["group"] == group]
            windows = [(*each["token_ids"], each["peak"]) for each in contexts]
            assert len(windows) == len(set(windows))
            shown += len(windows)
    assert shown > N
