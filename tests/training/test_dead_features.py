"""Dead features: counted in tokens, reached by a gradient, and brought back to life."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import expander_sae as xs
from expander_sae.distribution import Group
from expander_sae.training import FiringRecord, Sample, TensorBatches, Trainee, learn, new_autoencoder, train
from expander_sae.training.losses import auxk_loss, batch_statistics
from tests.training.planted import D, K, M, N, config, planted

DEAD = torch.tensor([1, 5, 6, 40, 77])


def autoencoder(dense: bool, tied: bool) -> xs.SparseAutoencoder:
    torch.manual_seed(1)
    if dense:
        dictionary: xs.Dictionary = xs.DenseDictionary(M, N)
    else:
        support = xs.Support.make("uniform", m=M, n=N, d=D, seed=0)
        dictionary = xs.ExpanderDictionary(support, torch.randn(N, D))
    return xs.SparseAutoencoder(dictionary, xs.TopK(K), tied=tied, latent_bias=True)


def _variation(residual: torch.Tensor) -> torch.Tensor:
    return batch_statistics(residual, Group()).variation


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dense", [True, False])
def test_the_gradient_reaches_dead_features_and_no_others(dense: bool, tied: bool) -> None:
    sae = autoencoder(dense, tied)
    residual = torch.randn(50, M, requires_grad=True)
    auxk_loss(sae, residual, DEAD, 2, _variation(residual).detach()).backward()
    assert residual.grad is None
    alive = torch.ones(N, dtype=torch.bool).index_fill(0, DEAD, False)
    for dictionary in {sae.dictionary, sae.encoder}:
        gradient = dictionary.get_parameter("values").grad
        assert gradient is not None
        assert (gradient[DEAD] != 0).any(dim=1).all()
        assert not gradient[alive].any()
    assert sae.pre_bias.grad is None


@pytest.mark.parametrize("dense", [True, False])
def test_the_loss_is_the_textbook_one(dense: bool) -> None:
    sae = autoencoder(dense, tied=True)
    residual = torch.randn(50, M)
    loss = auxk_loss(sae, residual, DEAD, 3, _variation(residual))
    (ours,) = torch.autograd.grad(loss, sae.dictionary.get_parameter("values"))
    columns = sae.dictionary.to_dense()[:, DEAD]
    best = (residual @ columns).topk(3)
    codes = torch.zeros(50, len(DEAD)).scatter(1, best.indices, best.values.relu())
    textbook = (residual - codes @ columns.T).square().sum() / (residual - residual.mean(dim=0)).square().sum()
    (theirs,) = torch.autograd.grad(textbook, sae.dictionary.get_parameter("values"))
    torch.testing.assert_close(loss, textbook)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("revival", [{"lift": 0.0, "auxk": 1.0}, {"lift": 1.0, "auxk": 0.0}, {}], ids=str)
def test_planted_dead_features_come_back(revival: dict[str, Any]) -> None:
    """Half of the features start with a column that is almost zero; left to themselves they stay dead."""
    _, x = planted(4096)
    left_alone, revived = (_dead_after_training(x, case) for case in ({"lift": 0.0, "auxk": 0.0}, revival))
    assert left_alone > 0.4
    assert revived < 0.2


def _dead_after_training(x: torch.Tensor, revival: dict[str, Any]) -> float:
    batches = TensorBatches(x, batch=64)
    chosen = config(tokens=64 * 300, dead_after=640, **revival)
    sample = Sample.of(batches, 64)
    sae = new_autoencoder(chosen, sample)
    with torch.no_grad():
        sae.dictionary.get_parameter("values")[::2] *= 1e-3
        assert sae.latent_bias is not None
        sae.latent_bias[::2] = -0.02
    trainee = Trainee(chosen, sae, sample)
    learn(trainee, batches, 64 * 300)
    return float(trainee.record.dead.float().mean())


@pytest.mark.parametrize(("n", "lifted"), [(N, True), (8 * N, False)])
def test_none_is_lifted_while_more_are_dead_than_can_begin_anew(n: int, lifted: bool) -> None:
    """A move would see two batches of 64 tokens here; none comes."""
    batches = TensorBatches(planted(2048)[1], batch=64)
    chosen = config(n=n, k=1, construction="learned", move_every=2, move_until=0.0, dead_after=64, auxk=0.0, lift=1.0)
    sample = Sample.of(batches, 64)
    trainee = Trainee(chosen, new_autoencoder(chosen, sample), sample)
    learn(trainee, batches, 64 * 6)
    never = trainee.record.silent_for == 64 * 6
    assert never.any()
    assert trainee.sae.latent_bias is not None
    assert (trainee.sae.latent_bias[never] > 0).all() == lifted
    assert (trainee.sae.latent_bias[never] == 0).all() != lifted


@given(st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=3), min_size=1, max_size=12), st.integers(1, 40))
@settings(deadline=None, max_examples=50)
def test_dead_is_silence_in_tokens(batches: list[list[int]], dead_after: int) -> None:
    """Batches of 7 tokens, each with one list of features that fire; feature 6 has a code of zero."""
    record = FiringRecord(7, dead_after, torch.device("cpu"))
    silent = [0] * 7
    for fired in batches:
        indices = torch.tensor([[*fired, 6]])
        values = torch.ones(1, len(fired) + 1).index_fill(1, torch.tensor([len(fired)]), 0.0)
        record.update(xs.Codes(values, indices, 7), 7, Group())
        silent = [0 if feature in fired else count + 7 for feature, count in enumerate(silent)]
    assert record.silent_for.tolist() == silent
    assert record.dead.tolist() == [count >= dead_after for count in silent]


def test_few_features_stay_dead_by_default() -> None:
    _, x = planted(4096)
    run = train(x, config(tokens=64 * 500, dead_after=64 * 20), progress=False)
    assert run.metrics[-1]["dead"] < 0.1
