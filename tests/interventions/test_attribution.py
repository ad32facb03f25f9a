"""Attribution against ablation done by hand, and against a model in which the effect is linear."""

from __future__ import annotations

import pytest
import torch

import expander_sae as xs
from expander_sae.interventions import Ablate, attach, attribute, logit_difference, text_loss
from tests.interventions.conftest import dictionary


def test_effects_by_ablation_are_those_of_an_attached_edit(language_model, sae, ids):
    metric = logit_difference(5, 9)
    found = attribute(language_model, {"layers.1": sae}, ids[0], metric, ablate=30)
    assert len(found.tried) == 30
    for effect in found.tried[::7]:
        edit = Ablate(effect.feature, [effect.position])
        with torch.no_grad(), attach(language_model, {"layers.1": sae}, edits={"layers.1": [edit]}):
            left = float(metric(language_model.model(input_ids=ids).logits))
        assert effect.by_ablation == pytest.approx(found.metric - left, abs=1e-4)


def test_effects_by_gradient_are_exact_where_the_rest_is_linear(language_model, sae, ids):
    """Behind the last norm's input only the norm bends; at its output logits are linear in the activations."""
    found = attribute(language_model, {"norm": sae}, ids[0], logit_difference(5), ablate=1000)
    assert found.agreement == pytest.approx(1)
    here = [effect for effect in found.effects if effect.position == ids.shape[1] - 1]
    assert len(here) == 5
    for effect in here:
        assert effect.by_gradient == pytest.approx(effect.by_ablation, rel=1e-3, abs=1e-4)
    others = [effect for effect in found.effects if effect.position < ids.shape[1] - 1]
    assert all(effect.by_gradient == 0 and abs(effect.by_ablation) < 1e-5 for effect in others)


def test_several_dictionaries_and_the_loss_of_a_text(language_model, sae, ids):
    saes = {"layers.0": sae, "layers.2": dictionary(1, xs.TopK(k=3))}
    found = attribute(language_model, saes, ids[0], text_loss(ids[0]), ablate=40)
    assert {effect.hookpoint for effect in found.effects} == set(saes)
    expected = language_model.model(input_ids=ids, labels=ids).loss
    assert found.metric == pytest.approx(float(expected), rel=1e-4)
    sizes = [abs(effect.by_gradient) for effect in found.effects]
    assert sizes == sorted(sizes, reverse=True)
    assert found.agreement > 0.3


def test_too_little_to_attribute(language_model, sae, ids):
    with pytest.raises(xs.ExpanderError, match="at least 2 tokens"):
        attribute(language_model, {"layers.1": sae}, ids[0, :1], logit_difference(5))
    with pytest.raises(xs.ExpanderError, match="ablate must be at least 0"):
        attribute(language_model, {"layers.1": sae}, ids[0], logit_difference(5), ablate=-1)
    assert attribute(language_model, {"layers.1": sae}, ids[0], logit_difference(5), ablate=0).agreement is None
