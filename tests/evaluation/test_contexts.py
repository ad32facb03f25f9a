"""Contexts against a search over everything at once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from expander_sae.activations.store import Store, StoreWriter
from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.coders import TopK
from expander_sae.dictionaries import ExpanderDictionary
from expander_sae.errors import ExpanderError
from expander_sae.evaluation import contexts as module
from expander_sae.evaluation.contexts import firing_counts, spread_over_frequency, top_contexts
from expander_sae.supports import Support

M, N, K = 12, 24, 3


@pytest.fixture
def sae() -> SparseAutoencoder:
    generator = torch.Generator().manual_seed(0)
    support = Support.make("uniform", m=M, n=N, d=4, seed=0)
    return SparseAutoencoder(ExpanderDictionary(support, generator=generator), TopK(K))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """400 tokens of 20 documents, each cut into two pieces that do not lie beside each other; some tokens massive."""
    generator = torch.Generator().manual_seed(1)
    document = torch.arange(20).repeat_interleave(10).repeat(2)
    position = torch.cat([torch.arange(10).repeat(20), torch.arange(10, 20).repeat(20)])
    activations = torch.randn(400, M, generator=generator)
    activations[::37] *= 100
    with StoreWriter(tmp_path / "acts", width=M, dtype=torch.float16, origin={}, tokens_per_shard=64) as writer:
        writer.append(activations, torch.arange(400) + 1000, document, position)
        writer.finish()
    return Store.open(tmp_path / "acts")


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read in pieces that cut through documents and shards."""
    monkeypatch.setattr(module, "TOKENS_AT_ONCE", 51)


def activations_of(sae: SparseAutoencoder, store: Store) -> Tensor:
    """[tokens, n], zero for massive tokens."""
    tokens = store[:]
    with torch.no_grad():
        dense = sae.encode(tokens.activations.float()).to_dense()
    dense[tokens.massive] = 0
    assert tokens.massive.any()
    return dense


def test_counts_are_those_of_all_tokens_together(sae: SparseAutoencoder, store: Store) -> None:
    assert torch.equal(firing_counts(sae, store), (activations_of(sae, store) != 0).sum(dim=0))


def test_the_strongest_token_of_each_of_the_strongest_documents(sae: SparseAutoencoder, store: Store) -> None:
    dense, document = activations_of(sae, store), store[:].document
    found = top_contexts(sae, store, [5, 2, 5, 17], per_feature=4, around=3)
    assert list(found) == [5, 2, 17]
    for feature, contexts in found.items():
        best = torch.stack([dense[document == number, feature].max() for number in range(20)])
        expected = best[best > 0].sort(descending=True).values[:4]
        peaks = [context.activations[context.peak] for context in contexts]
        assert peaks == pytest.approx(expected.tolist(), rel=1e-5)
        assert len({context.document for context in contexts}) == len(contexts)


def test_windows_hold_what_stands_beside_the_token_in_the_text(sae: SparseAutoencoder, store: Store) -> None:
    dense, tokens = activations_of(sae, store), store[:]
    for feature, contexts in top_contexts(sae, store, range(N), per_feature=20, around=4).items():
        for context in contexts:
            numbers = [number - 1000 for number in context.token_ids]
            peak = numbers[context.peak]
            assert numbers == list(range(numbers[0], numbers[-1] + 1))
            assert (int(tokens.document[peak]), int(tokens.position[peak])) == (context.document, context.position)
            start = 10 * (peak // 10)  # pieces are of ten tokens
            assert numbers == list(range(max(start, peak - 4), min(start + 10, peak + 5)))
            assert context.activations == pytest.approx(dense[numbers, feature].tolist(), rel=1e-5)


def test_a_feature_that_never_fires_has_no_context(sae: SparseAutoencoder, store: Store) -> None:
    assert isinstance(sae.dictionary, ExpanderDictionary)
    with torch.no_grad():
        sae.dictionary.values[3] = 0
    assert top_contexts(sae, store, [3]) == {3: []}


def test_words_that_many_documents_share_are_shown_once(sae: SparseAutoencoder, tmp_path: Path) -> None:
    """Ten documents, the first six of them the same."""
    generator = torch.Generator().manual_seed(2)
    same = torch.arange(10).clamp(min=5) - 5
    activations = torch.randn(10, 8, M, generator=generator)[same].flatten(0, 1)
    ids = (torch.arange(80).view(10, 8))[same].flatten()
    with StoreWriter(tmp_path / "acts", width=M, dtype=torch.float16, origin={}) as writer:
        writer.append(activations, ids, torch.arange(10).repeat_interleave(8), torch.arange(8).repeat(10))
        writer.finish()
    for contexts in top_contexts(sae, Store.open(tmp_path / "acts"), range(N), per_feature=3).values():
        windows = [tuple(context.token_ids) for context in contexts]
        assert len(windows) == len(set(windows)) <= 3


@settings(deadline=None, max_examples=60)
@given(
    counts=st.lists(st.integers(0, 40), min_size=1, max_size=60),
    wanted=st.integers(1, 10),
    least=st.integers(1, 30),
)
def test_features_are_spread_from_rare_to_frequent(counts: list[int], wanted: int, least: int) -> None:
    chosen = spread_over_frequency(torch.tensor(counts), wanted, least=least)
    allowed = sorted(count for count in counts if count >= least)
    found = [counts[feature] for feature in chosen]
    assert len(chosen) == len(set(chosen)) == min(wanted, len(allowed))
    assert found == sorted(found)
    assert all(count >= least for count in found)
    # Between two neighbours lie equally many features, give or take one.
    if len(allowed) > wanted:
        share = len(allowed) / wanted
        for place, count in enumerate(found):
            assert allowed[int(place * share)] <= count <= allowed[min(len(allowed) - 1, int((place + 1) * share))]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"features": [N]}, f"There is no feature {N}; they are numbered from 0 to {N - 1}."),
        ({"features": [-1]}, "There is no feature -1"),
        ({"features": [0], "per_feature": 0}, "per_feature must be at least 1"),
        ({"features": [0], "around": -1}, "around at least 0"),
    ],
)
def test_refusals(sae: SparseAutoencoder, store: Store, arguments: dict[str, object], sentence: str) -> None:
    with pytest.raises(ExpanderError, match=sentence):
        top_contexts(sae, store, **arguments)  # type: ignore[arg-type]
