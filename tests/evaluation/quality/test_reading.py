"""What a feature tells a reader, against its definition word for word, and on features of which the answer is known."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.sparse import csc_array

from expander_sae.evaluation.quality.firings import firing_often
from expander_sae.evaluation.quality.predictions import Predictions
from expander_sae.evaluation.quality.reading import (
    CONTEXTS,
    Contexts,
    Halves,
    any_tokens,
    coherence_of_activations,
    coherence_of_predictions,
    in_random_order,
    purity,
    strongest_first,
    token_r2,
)

SEEDS = st.integers(0, 2**32 - 1)


def some_firings(seed: int, tokens: int = 60, n: int = 5) -> NDArray[np.float32]:
    generator = np.random.default_rng(seed)
    values = generator.integers(1, 9, (tokens, n)).astype(np.float32)
    return np.where(generator.random((tokens, n)) < 0.4, values, 0)


def chosen(tokens: list[int]) -> Contexts:
    """A feature with these contexts and no other choice of them."""
    return Contexts(np.array(tokens, dtype=np.int64), [np.arange(len(tokens))])


@given(SEEDS)
@settings(deadline=None, max_examples=30)
def test_token_r2_is_what_its_definition_says(seed: int) -> None:
    generator = np.random.default_rng(seed)
    dense, token = some_firings(seed), generator.integers(0, 7, 60)
    halves = Halves.of(np.repeat(np.arange(6), 10), seed)
    found = token_r2(csc_array(dense), token, halves.first, ~halves.first)
    for column, values in enumerate(dense.T.astype(np.float64)):
        learn, test = values[halves.first], values[~halves.first]
        kinds, tested = token[halves.first], token[~halves.first]
        means = [
            (learn[kinds == kind].sum() + learn.mean()) / ((kinds == kind).sum() + 1) for kind in tested
        ]  # fmt: skip
        expected = 1 - ((test - means) ** 2).sum() / ((test - test.mean()) ** 2).sum()
        assert found[column] == pytest.approx(expected, abs=1e-9)


def test_token_r2_of_a_detector_is_one_of_noise_is_nought_and_of_silence_is_blank() -> None:
    generator = np.random.default_rng(0)
    token, document = generator.integers(0, 5, 20_000), np.repeat(np.arange(100), 200)
    columns = [3.0 * (token == 2), generator.random(20_000), np.zeros(20_000)]
    first = Halves.of(document, 0).first
    detector, noise, silent = token_r2(csc_array(np.stack(columns, axis=1)), token, first, ~first)
    assert detector > 0.999
    assert abs(noise) < 0.01
    assert np.isnan(silent)


@given(SEEDS)
@settings(deadline=None, max_examples=30)
def test_contexts_are_the_strongest_of_each_document(seed: int) -> None:
    dense, document = some_firings(seed), np.random.default_rng(seed).integers(0, 9, 60)
    firings = csc_array(dense)
    for feature, values in enumerate(dense.T):
        best = {number: values[document == number].max(initial=0) for number in range(9)}
        expected = sorted((value for value in best.values() if value > 0), reverse=True)
        contexts = strongest_first(firings, document, feature)
        assert [values[token] for token in contexts] == expected
        drawn = in_random_order(firings, document, feature, np.random.default_rng(seed))
        for found in (contexts, drawn):
            assert len(set(document[found])) == len(found) == len(expected)
            assert (values[found] > 0).all()


@given(SEEDS, st.integers(0, 40), st.integers(1, 6))
@settings(deadline=None, max_examples=40)
def test_without_a_part_of_the_documents_the_next_best_contexts_take_its_place(
    seed: int, count: int, parts: int
) -> None:
    generator = np.random.default_rng(seed)
    ordered, part = generator.permutation(60)[:count], generator.integers(0, parts, 60)
    contexts = Contexts.of(ordered, part, parts)
    assert contexts.first.tolist() == ordered[:CONTEXTS].tolist()
    for number in range(parts):
        expected = [token for token in ordered if part[token] != number][:CONTEXTS]
        assert contexts.tokens[contexts.choices[1 + number]].tolist() == expected


def test_a_negative_code_counts_by_its_size() -> None:
    firings = csc_array(np.array([[1.0], [-5.0], [2.0]]))
    assert strongest_first(firings, np.arange(3), 0).tolist() == [1, 2, 0]


def test_purity_is_the_share_of_the_commonest() -> None:
    folded = np.array([7, 7, 3, 7, 1])
    found = purity(folded, [chosen([0, 1, 2, 3]), chosen([2]), chosen([])])
    assert found[:2].tolist() == [[0.75], [1.0]]
    assert np.isnan(found[2])


@given(SEEDS)
@settings(deadline=None, max_examples=20)
def test_coherence_is_the_mean_over_pairs(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, hidden, embedding = (torch.randn(rows, 6, generator=generator) for rows in (12, 12, 20))
    groups = [[0, 1, 2, 3], [11, 0, 5]]
    contexts = [chosen(group) for group in groups]
    predictions = Predictions(hidden, embedding)
    cosines, affinities = coherence_of_activations(x, contexts), coherence_of_predictions(predictions, contexts)
    p = torch.softmax(hidden @ embedding.T, dim=-1)
    for place, group in enumerate(groups):
        pairs = list(itertools.combinations(group, 2))
        cosine = sum(float(torch.cosine_similarity(x[a], x[b], dim=0)) for a, b in pairs) / len(pairs)
        affinity = sum(float((p[a] * p[b]).sqrt().sum()) for a, b in pairs) / len(pairs)
        assert cosines[place, 0] == pytest.approx(cosine, abs=1e-5)
        assert affinities[place, 0] == pytest.approx(affinity, abs=1e-5)


def test_coherence_of_equals_is_one_and_of_a_single_context_blank() -> None:
    x = torch.ones(3, 4)
    same, single = coherence_of_activations(x, [chosen([0, 1, 2]), chosen([1])])[:, 0]
    assert same == pytest.approx(1)
    assert np.isnan(single)


def test_random_contexts_are_of_different_documents() -> None:
    document = np.repeat(np.arange(20), 3)
    found = any_tokens(document, np.random.default_rng(0))
    assert sorted(document[found]) == list(range(20))


def test_only_features_that_fire_often_in_many_documents_are_measured() -> None:
    document = np.repeat(np.arange(40), 2)
    often = np.arange(80) < 30
    in_nine_documents, once_each = np.isin(document, np.arange(9)), np.arange(80) % 2 == 0
    columns = np.stack([often, in_nine_documents, once_each, np.zeros(80, dtype=bool)], axis=1)
    assert firing_often(csc_array(columns.astype(np.float32)), document).tolist() == [0, 2]
