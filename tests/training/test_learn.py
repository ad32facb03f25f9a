"""Learners outside a run: the steps are those of `train`, and anything that counts its tokens can take them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import expander_sae as xs
from expander_sae.errors import ExpanderError
from expander_sae.training import Numbers, Sample, TensorBatches, Trainee, learn, new_autoencoder, train
from tests.training.planted import K, config, planted, same_tensors

X = planted(4096)[1]


@pytest.mark.parametrize("changes", [{}, {"construction": "learned", "coder": "omp", "move_every": 4}], ids=str)
def test_a_trainee_takes_the_steps_of_train(changes: dict[str, Any]) -> None:
    settings, batches = config(average=0.9, **changes), TensorBatches(X, batch=64)
    sample = Sample.of(batches, 64)
    trainee = Trainee(settings, new_autoencoder(settings, sample), sample)
    learn(trainee, batches, settings.tokens)
    assert same_tensors(trainee.finished(), train(X, settings, progress=False).sae)


def test_what_is_finished_can_go_on_learning() -> None:
    settings, batches = config(average=0.9), TensorBatches(X, batch=64)
    sample = Sample.of(batches, 64)
    trainee = Trainee(settings, new_autoencoder(settings, sample), sample)
    learn(trainee, batches, 64 * 7)
    with torch.no_grad():
        for parameter in trainee.finished().parameters():
            parameter.zero_()
    learn(trainee, batches, settings.tokens)
    assert same_tensors(trainee.finished(), train(X, settings, progress=False).sae)


def test_an_autoencoder_in_memory_goes_on_as_one_in_a_folder(tmp_path: Any) -> None:
    first = train(X, config(), out=tmp_path, progress=False).sae
    settings = config(start=str(tmp_path), learning_rate=1e-3)
    trainee = Trainee(settings, first)
    learn(trainee, TensorBatches(X, batch=64), settings.tokens)
    assert same_tensors(trainee.finished(), train(X, settings, progress=False).sae)


def test_a_coder_that_no_config_can_name_is_in_the_loop() -> None:
    settings, batches = config(coder="omp"), TensorBatches(X, batch=64)
    sample, coder = Sample.of(batches, 64), xs.OMP(K, tolerance=0.5)
    trainee = Trainee(settings, new_autoencoder(settings, sample, coder=coder), sample)
    learn(trainee, batches, settings.tokens)
    assert trainee.finished().coder == coder
    assert not same_tensors(trainee.finished(), train(X, settings, progress=False).sae)


class Counting:
    """Learns nothing from words."""

    def __init__(self) -> None:
        self.tokens, self.words = 0, list[str]()

    def step(self, batch: list[str]) -> Numbers:
        self.tokens += len(batch)
        self.words += batch
        return {}


def test_any_learner_takes_steps_until_it_has_enough_and_no_more() -> None:
    learner, batches = Counting(), iter([["one", "two"], ["three"], ["four", "five"], ["six"]])
    learn(learner, batches, 4)
    assert learner.words == ["one", "two", "three", "four", "five"]
    learn(learner, batches, 4)
    assert learner.tokens == 5
    with pytest.raises(ExpanderError, match="The source ended after 6 of 9 tokens"):
        learn(learner, batches, 9)


def test_learned_rows_need_a_sample() -> None:
    settings = config(construction="learned", coder="omp")
    sae = new_autoencoder(settings, Sample.of(TensorBatches(X, batch=64), 64))
    with pytest.raises(ExpanderError, match="Learned rows need a sample"):
        Trainee(settings, sae)
