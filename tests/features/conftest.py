"""A store with documents in pieces and massive tokens, and a small autoencoder to look at it with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from expander_sae.activations.store import Store, StoreWriter
from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.coders import TopK
from expander_sae.dictionaries import ExpanderDictionary
from expander_sae.features import source
from expander_sae.supports import Support

M, N, K = 12, 24, 3
TOKENS, DOCUMENTS, LENGTH = 800, 20, 40


@pytest.fixture
def sae() -> SparseAutoencoder:
    """Columns of other norms and signs; feature 3 never fires."""
    generator = torch.Generator().manual_seed(0)
    support = Support.make("uniform", m=M, n=N, d=4, seed=0)
    values = torch.randn(N, 4, generator=generator)
    values[3] = 0
    return SparseAutoencoder(ExpanderDictionary(support, values), TopK(K))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Documents of forty tokens, each cut into two pieces that do not lie beside each other; some tokens massive."""
    generator = torch.Generator().manual_seed(1)
    half = LENGTH // 2
    document = torch.arange(DOCUMENTS).repeat_interleave(half).repeat(2)
    position = torch.cat([torch.arange(half).repeat(DOCUMENTS), torch.arange(half, LENGTH).repeat(DOCUMENTS)])
    activations = torch.randn(TOKENS, M, generator=generator)
    activations[::37] *= 100
    origin = {"model": "none", "revision": None, "hookpoint": "layers.1", "text": "planted", "context": half}
    with StoreWriter(tmp_path / "acts", width=M, dtype=torch.float16, origin=origin, tokens_per_shard=256) as writer:
        writer.append(activations, 40 * document + position + 1000, document, position)
        writer.finish()
    return Store.open(tmp_path / "acts")


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read in pieces and shards that cut through documents, describe a few features at a time."""
    monkeypatch.setattr(source, "TOKENS_AT_ONCE", 51)
    monkeypatch.setattr(source, "TOKENS_PER_SHARD", 200)
    monkeypatch.setattr("expander_sae.features.shards.ENTRIES_AT_ONCE", 700)
    monkeypatch.setattr("expander_sae.features.shards.FEATURES_AT_ONCE", 5)


@pytest.fixture
def codes(sae: SparseAutoencoder, store: Store) -> NDArray[np.float32]:
    """The activations of every feature on every token of the text, in its order; zero for massive tokens."""
    tokens = store[:]
    with torch.no_grad():
        dense = sae.encode(tokens.activations.float()).to_dense()
    dense[tokens.massive] = 0
    assert tokens.massive.any()
    found = dense.numpy()[np.lexsort((tokens.position, tokens.document))]
    return found
