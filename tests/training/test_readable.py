"""The readable objective: columns that begin as tokens, fire by one product and are pruned while they learn."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import expander_sae as xs
from expander_sae.coders import Candidates
from expander_sae.distribution import Group
from expander_sae.training import Sample, TensorBatches, Trainee, batch_statistics, fvu, new_autoencoder, train
from expander_sae.training.losses import losses_of
from tests.training.planted import D, K, M, N, config, planted, same_tensors


def readable(**changes: Any) -> xs.TrainConfig:
    return config(**({"construction": "learned", "coder": None, "move_every": 4, "stretch": 3} | changes))


def trainee(x: torch.Tensor, settings: xs.TrainConfig) -> Trainee:
    sample = Sample.of(TensorBatches(x, batch=settings.batch), settings.batch)
    return Trainee(settings, new_autoencoder(settings, sample), sample)


def test_it_is_the_default_of_learned_rows_without_a_coder() -> None:
    default = xs.TrainConfig(n=64, d=4, k=4)
    assert default.readable
    assert default.make_coder() == Candidates(4, 4)
    assert xs.TrainConfig(n=64, d=7, k=16).make_coder() == Candidates(16, 17)
    assert xs.TrainConfig(n=64, d=32, k=16).make_coder() == Candidates(16, 20)
    assert default.name == "learned-d4-n64-candidates4"
    for change in ({"coder": "omp"}, {"d": None}, {"construction": "uniform"}, {"objective": "fidelity"}):
        assert not xs.TrainConfig(**({"n": 64, "d": 4, "k": 4} | change)).readable


def test_columns_begin_as_tokens_and_end_with_the_values_they_may_have() -> None:
    _, x = planted(4096)
    learner = trainee(x, readable(tokens=64 * 60))
    rows = learner.sae.dictionary.get_buffer("rows")
    assert int((rows >= 0).sum()) == N * 3 * D
    batches, before = TensorBatches(x, batch=64), N * 3 * D
    while learner.tokens < 64 * 60:
        learner.step(next(batches))
        rows = learner.sae.dictionary.get_buffer("rows")
        assert int((rows >= 0).sum()) <= before
        before = int((rows >= 0).sum())
    assert before == N * D
    degrees = (rows >= 0).sum(dim=1)
    assert learner.config.lengths.least <= int(degrees.min()) < int(degrees.max()) <= 3 * D


def test_it_explains_what_was_planted_and_its_metrics_are_of_the_refitted_reading() -> None:
    _, x = planted(4096)
    run = train(x, readable(tokens=64 * 400), progress=False)
    with torch.no_grad():
        left = float(fvu(x - run.sae(x), (x - x.mean(dim=0)).square().sum()))
    assert isinstance(run.sae.coder, Candidates)
    assert left < 0.35
    assert run.metrics[-1]["fvu"] == pytest.approx(left, abs=0.05)


def test_no_gradient_flows_through_refitted_amplitudes() -> None:
    """The gradient is that of a reconstruction whose codes are given."""
    _, x = planted(256)
    settings = readable(refit_share=1.0)
    sae = trainee(x, settings).sae
    batch = batch_statistics(x, Group())
    losses = losses_of(settings, sae, x, batch, torch.zeros(0, dtype=torch.int64), Group())
    losses.total.backward()
    values = sae.dictionary.get_parameter("values")
    found, values.grad = values.grad, None
    centred = x * sae.scale - sae.pre_bias
    variation = batch.variation * sae.scale**2
    fvu(centred - sae.dictionary.synthesize(losses.codes), variation).backward()
    torch.testing.assert_close(found, values.grad)
    assert sae.latent_bias is not None
    assert not sae.latent_bias.grad.any()


def test_dead_features_begin_anew_as_tokens_while_columns_are_long() -> None:
    _, x = planted(4096)
    learner = trainee(x, readable(tokens=64 * 100, dead_after=64 * 3, n=4 * N, prune_until=0.9))
    batches = TensorBatches(x, batch=64)
    for _ in range(4):
        learner.step(next(batches))
    assert (learner.record.silent_for <= 64 * 3).all()


def test_running_averages_of_pruned_columns_have_their_rows() -> None:
    _, x = planted(4096)
    sae = train(x, readable(average=0.9, tokens=64 * 60), progress=False).sae
    assert int((sae.dictionary.get_parameter("values") != 0).sum()) <= N * D


@pytest.mark.parametrize("signed", [False, True])
def test_the_same_run_twice_is_the_same(signed: bool) -> None:
    _, x = planted(4096)
    one, other = (train(x, readable(signed=signed), progress=False).sae for _ in range(2))
    assert same_tensors(one, other)
    assert one.encode(x).values.lt(0).any() == signed


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"objective": "pretty"}, "objective must be readable or fidelity, not 'pretty'"),
        ({"objective": "readable", "coder": "omp"}, "choose objective fidelity, or give d and leave"),
        ({"objective": "readable", "d": None}, "choose objective fidelity, or give d and leave"),
        ({"tied": False}, "leave tied, latent_bias and unit_norm alone"),
        ({"latent_bias": False}, "leave tied, latent_bias and unit_norm alone"),
        ({"unit_norm": True}, "leave tied, latent_bias and unit_norm alone"),
        ({"candidates": K - 1}, f"candidates must be at least k = {K}"),
        ({"refit_share": 1.5}, "refit_share must be from 0 to 1"),
        ({"prune_until": -0.5}, "prune_until must be from 0 to 1"),
    ],
    ids=str,
)
def test_refuses(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(xs.ExpanderError, match=sentence):
        readable(**change)


def test_width_is_never_exceeded() -> None:
    _, x = planted(4096)
    assert trainee(x, readable(stretch=M)).sae.dictionary.get_buffer("rows").shape == (N, M)
