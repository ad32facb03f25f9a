"""Metrics of reconstruction on activations alone, against scikit-learn and by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import r2_score

from expander_sae import ExpanderError, Store
from expander_sae.activations.store import StoreWriter
from expander_sae.evaluation import DENSITY_EDGES, evaluate_activations
from tests.evaluation.subjects import constant, identity, random

M = 12


def activations(tokens=300, mean=0.0, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    spread = torch.rand(M, generator=generator, dtype=torch.float64) + 0.1
    return (mean + spread * torch.randn(tokens, M, generator=generator, dtype=torch.float64)).to(dtype)


@settings(deadline=None, max_examples=25)
@given(st.integers(2, 200), st.floats(-1e4, 1e4), st.integers(1, M), st.integers(0, 100))
def test_explained_variance_is_the_variance_weighted_r2(tokens, mean, k, seed):
    x = activations(tokens, mean, seed)
    sae = identity(M, k, torch.float64)
    found = evaluate_activations(sae, x)
    expected = r2_score(x.numpy(), sae(x).detach().numpy(), multioutput="variance_weighted")
    assert found.explained_variance.value == pytest.approx(expected, rel=1e-6, abs=1e-9)
    assert found.fvu.value == pytest.approx(1 - expected, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("mean", [0.0, 1e4])
def test_predicting_the_mean_explains_exactly_nothing(mean):
    x = activations(mean=mean)
    found = evaluate_activations(constant(x.mean(dim=0)), x, documents=torch.arange(300) // 10)
    for value in (found.explained_variance.value, found.explained_variance.low, found.explained_variance.high):
        assert abs(value) < 1e-12


def test_in_single_precision_a_large_mean_does_no_harm():
    x = activations(mean=1e3, dtype=torch.float32)
    found = evaluate_activations(constant(x.double().mean(dim=0).float()), x)
    assert found.explained_variance.value == pytest.approx(0, abs=1e-6)


def test_cosine_l0_and_density_by_hand():
    x = activations(tokens=400)
    found = evaluate_activations(identity(M, 2, torch.float64), x)
    kept = torch.zeros_like(x).scatter(1, x.abs().topk(2).indices, 1.0) * x
    assert found.l0.value == 2
    assert found.cosine.value == pytest.approx(float(torch.cosine_similarity(x, kept).mean()))
    frequency = (kept != 0).double().mean(dim=0)
    assert found.never_fired == float((frequency == 0).double().mean())
    edges = torch.tensor(DENSITY_EDGES, dtype=torch.float64)
    bins = torch.bucketize(frequency[frequency > 0].log10(), edges, right=True).clamp(max=len(edges) - 1) - 1
    assert found.density == torch.bincount(bins, minlength=len(edges) - 1).tolist()


def test_a_feature_that_always_fires_is_in_the_last_bin_and_a_rare_one_in_the_first():
    assert evaluate_activations(identity(M, M, torch.float64), activations()).density[-1] == M
    assert len(DENSITY_EDGES) == len(evaluate_activations(identity(M), activations()).density) + 1


def test_massive_tokens_are_left_out():
    x = activations()
    spoiled = torch.cat([x, 1000 + x[:7]])
    sae = identity(M, 3, torch.float64)
    clean, found = evaluate_activations(sae, x), evaluate_activations(sae, spoiled)
    assert found.passed_through == {"massive": 7}
    assert found.tokens == 307
    assert found.fvu.value == pytest.approx(clean.fvu.value)


def test_documents_give_intervals():
    x, sae = activations(), random(M)
    assert math.isnan(evaluate_activations(sae, x).fvu.low)
    found = evaluate_activations(sae, x, documents=torch.arange(300) % 20 + 5)
    assert found.documents == 20
    assert found.fvu.low < found.fvu.value < found.fvu.high
    assert found.fvu.value == pytest.approx(evaluate_activations(sae, x).fvu.value)


def test_a_store_is_read_like_a_matrix(tmp_path):
    x = torch.cat([activations(9000, dtype=torch.float32), torch.full((3, M), 50.0)]).half()
    numbers = torch.arange(len(x), dtype=torch.int32)
    documents = numbers // 100 * 3
    with StoreWriter(tmp_path, width=M, dtype=torch.float16, tokens_per_shard=4000, origin={"text": "a"}) as writer:
        writer.append(x, numbers, documents, numbers)
        writer.finish()
    saes = {"a": random(M), "b": identity(M, 3)}
    stored = evaluate_activations(saes, Store.open(tmp_path))
    given_ = evaluate_activations(saes, x.float(), documents=documents)
    assert stored["a"].setting["text"] == "a"
    for name in saes:
        assert stored[name].passed_through == {"massive": 3}
        assert stored[name].density == given_[name].density
        assert stored[name].fvu == given_[name].fvu
    few = evaluate_activations(saes["a"], Store.open(tmp_path), tokens=150)
    assert (few.tokens, few.documents) == (150, 2)


@pytest.mark.parametrize(
    ("source", "options", "sentence"),
    [
        (torch.ones(5, M, dtype=torch.int64), {}, "floating-point matrix"),
        (torch.ones(5), {}, "floating-point matrix"),
        (torch.ones(5, M + 1), {}, f"those of the source are {M + 1} wide"),
        (torch.ones(5, M), {"documents": torch.ones(4)}, "number the 5 tokens"),
        (torch.ones(0, M), {}, "no token to evaluate"),
        (torch.ones(5, M), {"tokens": 0}, "no token to evaluate"),
        (torch.full((5, M), torch.nan), {}, "not finite"),
    ],
)
def test_refusals(source, options, sentence):
    with pytest.raises(ExpanderError, match=sentence):
        evaluate_activations(random(M), source, **options)
