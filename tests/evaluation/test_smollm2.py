"""On the real model: what is known of it comes out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from expander_sae import TextConfig, evaluate, load_language_model
from expander_sae.interventions.replaced import PatchedModel
from tests.evaluation.subjects import constant, identity

M = 576


@pytest.mark.slow
def test_the_real_model_keeps_its_loss_under_a_perfect_reconstruction_only(smollm2: Path, monkeypatch):
    skipped = []
    run = PatchedModel._run

    def watched(self, *arguments):
        skipped.append(len(self.skipped))
        return run(self, *arguments)

    monkeypatch.setattr(PatchedModel, "_run", watched)
    saes = {"perfect": identity(M), "half": identity(M, 64), "zero": constant(torch.zeros(M))}
    language_model = load_language_model("smollm2", device="cpu")
    found = evaluate(
        saes, language_model, hookpoint="layers.12", text=TextConfig(part="held-out"), tokens=300, reference="perfect"
    )
    loss = {name: evaluation.language_model for name, evaluation in found.items()}
    assert set(skipped) == {13}
    assert loss["perfect"].clean.value < 4.5
    assert loss["perfect"].patched.value == loss["perfect"].clean.value
    assert loss["zero"].patched.value == loss["zero"].zero.value
    assert loss["zero"].zero.value > 8
    assert 0.1 < loss["half"].retention_zero.value < 1
    assert 1 <= found["half"].passed_through["massive"] < 20
    assert 0 < found["half"].fvu.value < 1
