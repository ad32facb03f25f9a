"""The probe of training gives the numbers of an evaluation."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from expander_sae import ExpanderError, evaluate
from expander_sae.evaluation import LossProbe
from tests.evaluation.subjects import constant, identity, random

M = 16


def test_a_probe_is_a_cheap_evaluation(language_model, text):
    probe = LossProbe(language_model, "layers.1", text, 600)
    for sae in (identity(M), identity(M, 4), random(M)):
        loss = evaluate(sae, language_model, hookpoint="layers.1", text=text, tokens=600).language_model
        assert probe(sae) == pytest.approx(
            {
                "ce": loss.patched.value,
                "ce_delta": loss.patched.value - loss.clean.value,
                "ce_recovered_zero": loss.recovered_zero.value,
                "ce_recovered_mean": loss.recovered_mean.value,
            },
            abs=1e-9,
        )


def test_a_probe_leaves_training_alone(language_model, text):
    sae = random(M).train()
    sae.dictionary.values.grad = torch.ones_like(sae.dictionary.values)
    first = LossProbe(language_model, "layers.1", text, 100)(sae)
    assert sae.training
    assert bool((sae.dictionary.values.grad == 1).all())
    assert all(isinstance(value, float) for value in first.values())


def test_massive_tokens_can_be_those_of_training(language_model, text):
    sae = constant(torch.zeros(M))
    usual = LossProbe(language_model, "layers.1", text, 600)(sae)
    spared = LossProbe(language_model, "layers.1", text, 600, massive_above=3.0)(sae)
    assert spared["ce"] != usual["ce"]


def test_a_share_that_does_not_exist_is_left_out(language_model, text):
    model = type(language_model.model)(language_model.model.config).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.fill_(0.1)
    dull = dataclasses.replace(language_model, model=model)
    assert "ce_recovered_mean" not in LossProbe(dull, "layers.1", text, 100)(identity(M))


def test_refusals(language_model, text):
    with pytest.raises(ExpanderError, match="The autoencoder is for activations of width 5"):
        LossProbe(language_model, "layers.1", text, 60)(random(5))
    with pytest.raises(ExpanderError, match="No module"):
        LossProbe(language_model, "h.1", text, 60)
